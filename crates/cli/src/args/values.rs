//! How values are written: amounts, pairs, durations.

use std::str::FromStr;
use std::time::Duration;

use wolfpack_rpc::auth::MAX_LINK_LIFE;

/// `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Before the first `=`.
    pub key: String,
    /// After it.
    pub value: String,
}

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                Ok(Self { key: key.into(), value: value.into() })
            }
            _ => Err("write KEY=VALUE".to_owned()),
        }
    }
}

/// The pairs as a map; of a key given twice the last counts.
pub(crate) fn map(pairs: &[Pair]) -> std::collections::BTreeMap<String, String> {
    pairs.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect()
}

/// CPU time in thousandths of a core, from `2`, `0.5` or `500m`.
///
/// # Errors
/// When it is neither.
pub fn cpu_milli(text: &str) -> Result<u32, String> {
    let wrong = || "write cores such as 2 or 0.5, or thousandths such as 500m".to_owned();
    if let Some(milli) = text.strip_suffix('m') {
        return milli.parse().ok().filter(|milli| *milli > 0).ok_or_else(wrong);
    }
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3
        || !part.bytes().all(|b| b.is_ascii_digit())
        || (whole.is_empty() && part.is_empty())
    {
        return Err(wrong());
    }
    let whole: u32 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
    let part: u32 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
    whole
        .checked_mul(1000)
        .and_then(|milli| milli.checked_add(part))
        .filter(|milli| *milli > 0)
        .ok_or_else(wrong)
}

/// Bytes, from `512M`, `2GiB`, `1.5G` or a plain number; the units are powers
/// of 1024.
///
/// # Errors
/// When it is none of these.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "write an amount such as 512M, 2G or 1.5GiB (powers of 1024)".to_owned();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit
        .trim_end_matches("iB")
        .trim_end_matches(['b', 'B'])
        .to_ascii_lowercase()
        .as_str()
    {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(wrong()),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let mut amount = whole.checked_mul(1 << shift).ok_or_else(wrong)?;
    if !part.is_empty() {
        if part.len() > 6 || shift == 0 {
            return Err(wrong());
        }
        let thousandths: u64 = part.parse().map_err(|_| wrong())?;
        let scale = 10_u64.pow(u32::try_from(part.len()).map_err(|_| wrong())?);
        amount = (thousandths << shift)
            .checked_div(scale)
            .and_then(|more| amount.checked_add(more))
            .ok_or_else(wrong)?;
    }
    if amount == 0 { Err(wrong()) } else { Ok(amount) }
}

/// The least memory that a sandbox's agent and a shell run in.
const LEAST_MEMORY: u64 = 32 << 20;

/// Memory of a sandbox: as [`bytes`], at least 32 MiB.
///
/// # Errors
/// When it is no amount, or too little to start in.
pub fn memory(text: &str) -> Result<u64, String> {
    match bytes(text)? {
        amount @ ..LEAST_MEMORY if !text.ends_with(|last: char| last.is_ascii_alphabetic()) => {
            Err(format!(
                "{amount} bytes are too little: a sandbox needs at least 32M; {text} alone means bytes, write {text}M or {text}G"
            ))
        }
        ..LEAST_MEMORY => Err("too little: a sandbox needs at least 32M".to_owned()),
        amount => Ok(amount),
    }
}

/// A duration such as `90s` or `2h`.
///
/// # Errors
/// When it is none, or nothing.
pub fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() => Err("it must be longer than nothing".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; write one such as 90s or 2h")),
    }
}

/// The shortest life of a link.
const LEAST_LINK_LIFE: Duration = Duration::from_secs(60);

/// The life of a link: as [`duration`], 1 minute to 7 days.
///
/// # Errors
/// When it is no duration, or not one of these.
pub fn link_life(text: &str) -> Result<Duration, String> {
    let life = duration(text)?;
    match (LEAST_LINK_LIFE..=MAX_LINK_LIFE).contains(&life) {
        true => Ok(life),
        false => Err("a link lives 1 minute to 7 days; write 1m, 2h or 7days".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_people_write_them() {
        assert_eq!(cpu_milli("2"), Ok(2000));
        assert_eq!(cpu_milli("0.25"), Ok(250));
        assert_eq!(cpu_milli(".5"), Ok(500));
        assert_eq!(cpu_milli("500m"), Ok(500));
        for bad in ["", ".", "0", "-1", "1.2345", "x", "0m", "5000000"] {
            assert!(cpu_milli(bad).is_err(), "{bad}");
        }
        assert_eq!(bytes("1024"), Ok(1024));
        assert_eq!(bytes("512M"), Ok(512 << 20));
        assert_eq!(bytes("2GiB"), Ok(2 << 30));
        assert_eq!(bytes("2gb"), Ok(2 << 30));
        assert_eq!(bytes("1.5G"), Ok(3 << 29));
        for bad in ["", "0", "G", "1.5", "1X", "-1", "99999999T"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_too_small_to_start_in_is_refused_with_what_was_meant() {
        assert_eq!(memory("32M"), Ok(32 << 20));
        assert_eq!(memory("33554432"), Ok(32 << 20));
        let told = memory("1").unwrap_err();
        assert!(told.contains("at least 32M") && told.contains("1M or 1G"), "{told}");
        assert!(memory("31M").unwrap_err().contains("at least 32M"));
        assert!(memory("x").unwrap_err().contains("such as 512M"));
    }

    #[test]
    fn a_link_lives_from_a_minute_to_a_week() {
        for (text, seconds) in [("1m", 60), ("90s", 90), ("1h", 3600), ("7days", 604_800)] {
            assert_eq!(link_life(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        let most = "18446744073709551615s 1ms";
        for bad in ["10s", "59s 999ms", "7days 1ms", "8days", most, "0s", "-1m", "x"] {
            assert!(link_life(bad).is_err(), "{bad}");
        }
        assert!(link_life("10s").unwrap_err().contains("1 minute to 7 days"));
    }

    #[test]
    fn pairs_split_at_the_first_sign() {
        assert_eq!("a=b=c".parse(), Ok(Pair { key: "a".into(), value: "b=c".into() }));
        assert!("=b".parse::<Pair>().is_err());
        assert!("ab".parse::<Pair>().is_err());
    }
}
