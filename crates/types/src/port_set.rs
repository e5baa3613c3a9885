//! Ports that may be dialed, as people write them: `22`, `8000-8999`.

use std::fmt;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Ports from 1 to 65535, as a list of ports and ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct PortSet(Vec<PortRange>);

/// One port, or all from one to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRange(RangeInclusive<u16>);

impl PortSet {
    /// Every port there is.
    #[must_use]
    pub fn all() -> Self {
        Self(vec![PortRange(1..=u16::MAX)])
    }

    /// Whether it has no port.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a port is in it.
    #[must_use]
    pub fn contains(&self, port: NonZeroU16) -> bool {
        self.0.iter().any(|range| range.0.contains(&port.get()))
    }
}

impl FromIterator<PortRange> for PortSet {
    fn from_iter<I: IntoIterator<Item = PortRange>>(ranges: I) -> Self {
        Self(ranges.into_iter().collect())
    }
}

impl TryFrom<Vec<String>> for PortSet {
    type Error = String;

    fn try_from(rows: Vec<String>) -> Result<Self, String> {
        rows.iter().map(|row| row.parse()).collect()
    }
}

impl From<PortSet> for Vec<String> {
    fn from(ports: PortSet) -> Self {
        ports.0.iter().map(ToString::to_string).collect()
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self(first.get()..=last.get())),
            _ => Err(format!(
                "{text:?} is neither a port from 1 to 65535 nor a range such as 8000-8999"
            )),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.start(), self.0.end()) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// A port as digits and nothing else: no sign, no leading zero, not 0.
#[must_use]
pub fn port(text: &str) -> Option<NonZeroU16> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(rows: &[&str]) -> Result<PortSet, String> {
        rows.iter().map(|row| (*row).to_owned()).collect::<Vec<_>>().try_into()
    }

    #[test]
    fn what_is_written_is_what_is_allowed() {
        let has = |ports: &PortSet, port: u16| ports.contains(NonZeroU16::new(port).unwrap());
        let ports = set(&["22", "8000-8999"]).unwrap();
        for (port, inside) in [
            (22, true),
            (21, false),
            (23, false),
            (7999, false),
            (8000, true),
            (8999, true),
            (9000, false),
        ] {
            assert_eq!(has(&ports, port), inside, "{port}");
        }
        assert!(has(&PortSet::all(), 1) && has(&PortSet::all(), u16::MAX));
        assert!(set(&[]).unwrap().is_empty() && !has(&PortSet::default(), 80), "empty is none");
        let json = serde_json::to_string(&ports).unwrap();
        assert_eq!(json, r#"["22","8000-8999"]"#);
        assert_eq!(serde_json::from_str::<PortSet>(&json).unwrap(), ports);
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for bad in ["", "0", "65536", "-1", "+80", "080", "9-8", "1-", "-", "1-2-3", "a", " 80"] {
            assert!(set(&[bad]).is_err(), "{bad:?}");
        }
    }
}
