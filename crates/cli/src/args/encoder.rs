//! `--encoder N[:CODEC][:NEED]`.

use std::str::FromStr;

use wolfpack_proto::types::v1 as types;

/// Hardware encoder sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderArg {
    sessions: u32,
    codec: types::EncoderCodec,
    need: types::EncoderNeed,
}

const HELP: &str = "write N[:h264|hevc|av1][:required|preferred|software], such as 1 or 2:hevc:preferred; N is 1 to 64";

impl FromStr for EncoderArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split(':');
        let sessions = words.next().and_then(|count| count.parse().ok());
        let sessions = sessions.filter(|count| (1..=64).contains(count)).ok_or(HELP)?;
        let (mut codec, mut need) = (None, None);
        for word in words {
            match word {
                // In this order: a codec never follows a need.
                "h264" | "hevc" | "h265" | "av1" if codec.is_none() && need.is_none() => {
                    codec = Some(match word {
                        "h264" => types::EncoderCodec::H264,
                        "av1" => types::EncoderCodec::Av1,
                        _ => types::EncoderCodec::Hevc,
                    });
                }
                "required" | "preferred" | "software" if need.is_none() => {
                    need = Some(match word {
                        "preferred" => types::EncoderNeed::Preferred,
                        "software" => types::EncoderNeed::Software,
                        _ => types::EncoderNeed::Required,
                    });
                }
                _ => return Err(HELP.to_owned()),
            }
        }
        let (codec, need) = (codec.unwrap_or_default(), need.unwrap_or_default());
        Ok(Self { sessions, codec, need })
    }
}

impl From<EncoderArg> for types::EncoderRequest {
    fn from(encoder: EncoderArg) -> Self {
        Self { sessions: encoder.sessions, codec: encoder.codec.into(), need: encoder.need.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{EncoderCodec as Codec, EncoderNeed as Need};

    #[test]
    fn a_count_may_have_a_codec_and_a_need() {
        let read = |text: &str| {
            text.parse::<EncoderArg>().map(|read| (read.sessions, read.codec, read.need))
        };
        assert_eq!(read("1"), Ok((1, Codec::Unspecified, Need::Unspecified)));
        assert_eq!(read("2:h264"), Ok((2, Codec::H264, Need::Unspecified)));
        assert_eq!(read("2:h265"), Ok((2, Codec::Hevc, Need::Unspecified)));
        assert_eq!(read("3:preferred"), Ok((3, Codec::Unspecified, Need::Preferred)));
        assert_eq!(read("64:av1:software"), Ok((64, Codec::Av1, Need::Software)));
        for bad in
            ["", "0", "65", "x", "1:", "1:vp9", "1:software:av1", "1:av1:hevc", "1:av1:software:x"]
        {
            assert!(read(bad).unwrap_err().contains("such as"), "{bad}");
        }
    }
}
