//! The `grpc-timeout` header: `TimeoutValue TimeoutUnit` of the gRPC over
//! HTTP/2 specification.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

/// The header.
pub(crate) const GRPC_TIMEOUT: &str = "grpc-timeout";

/// The header does not follow the specification.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads the header; `None` when there is none.
pub(crate) fn read(headers: &HeaderMap) -> Result<Option<Duration>, Malformed> {
    let mut values = headers.get_all(GRPC_TIMEOUT).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Malformed);
    }
    parse(value.as_bytes()).map(Some)
}

fn parse(value: &[u8]) -> Result<Duration, Malformed> {
    let (unit, digits) = value.split_last().ok_or(Malformed)?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    let number = digits.iter().fold(0u64, |n, digit| n * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Ok(Duration::from_secs(number * 3600)),
        b'M' => Ok(Duration::from_secs(number * 60)),
        b'S' => Ok(Duration::from_secs(number)),
        b'm' => Ok(Duration::from_millis(number)),
        b'u' => Ok(Duration::from_micros(number)),
        b'n' => Ok(Duration::from_nanos(number)),
        _ => Err(Malformed),
    }
}

/// Writes a time left in the finest unit that fits eight digits.
pub(crate) fn write(left: Duration) -> HeaderValue {
    const LIMIT: u128 = 100_000_000;
    let units: [(u128, char); 5] = [
        (left.as_nanos(), 'n'),
        (left.as_micros(), 'u'),
        (left.as_millis(), 'm'),
        (u128::from(left.as_secs()), 'S'),
        (u128::from(left.as_secs() / 60), 'M'),
    ];
    let text = units
        .iter()
        .find(|(number, _)| *number < LIMIT)
        .map_or_else(|| format!("{}H", LIMIT - 1), |(number, unit)| format!("{number}{unit}"));
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("0n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_is_followed() {
        for (text, want) in [
            ("1H", Duration::from_secs(3600)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(want), "{text}");
        }
        for bad in ["", "S", "1", "1s", "-1S", "+1S", "123456789S", "1.5S", " 1S", "1S ", "１S"] {
            assert_eq!(parse(bad.as_bytes()), Err(Malformed), "{bad:?}");
        }
    }

    #[test]
    fn what_is_written_is_never_longer_and_nearly_as_long() {
        for left in [0u64, 1, 999, 1_000_001, 5_000_000_000, 30_000_000_000, 90_000_000_000_000_000]
        {
            let left = Duration::from_nanos(left);
            let read = parse(write(left).as_bytes()).unwrap();
            assert!(
                read <= left
                    && left.as_nanos() - read.as_nanos() <= left.as_nanos() / 1_000_000 + 1,
                "{left:?} {read:?}"
            );
        }
        let huge = Duration::from_secs(u64::MAX);
        assert!(parse(write(huge).as_bytes()).unwrap() < huge);
    }

    #[test]
    fn two_headers_are_malformed() {
        let mut headers = HeaderMap::new();
        assert_eq!(read(&headers), Ok(None));
        headers.append(GRPC_TIMEOUT, HeaderValue::from_static("1S"));
        assert_eq!(read(&headers), Ok(Some(Duration::from_secs(1))));
        headers.append(GRPC_TIMEOUT, HeaderValue::from_static("1S"));
        assert_eq!(read(&headers), Err(Malformed));
    }
}
