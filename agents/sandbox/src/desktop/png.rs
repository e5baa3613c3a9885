//! As much of PNG as tells a picture from garbage.

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
const TRAILER: &[u8] = b"\0\0\0\0IEND\xae\x42\x60\x82";

/// Width and height of a PNG that begins and ends as one.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn size(image: &[u8]) -> Result<(u32, u32), &'static str> {
    let header = image.strip_prefix(SIGNATURE).ok_or("it does not begin as a PNG")?;
    // The first chunk: its length 13, its name, then width and height.
    let header = header.strip_prefix(b"\0\0\0\x0dIHDR").ok_or("its header is not that of a PNG")?;
    if !image.ends_with(TRAILER) {
        return Err("its end is missing");
    }
    let number = |bytes: &[u8]| bytes.try_into().map(u32::from_be_bytes).ok();
    let width = header.get(..4).and_then(number);
    let height = header.get(4..8).and_then(number);
    match (width, height) {
        (Some(width @ 1..), Some(height @ 1..)) => Ok((width, height)),
        _ => Err("it has no size"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::RgbImage::new(width, height).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn a_real_one_is_measured_and_a_cut_one_refused() {
        let whole = picture(320, 7);
        assert_eq!(size(&whole), Ok((320, 7)));
        for cut in 0..whole.len() {
            assert!(size(&whole[..cut]).is_err(), "cut at {cut}");
        }
        assert!(size(b"grim: failed").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            let _ = size(&bytes);
            let _ = size(&[SIGNATURE, b"\0\0\0\x0dIHDR", &bytes, TRAILER].concat());
        }
    }
}
