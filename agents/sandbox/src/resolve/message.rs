//! As much of a DNS message (RFC 1035) as a question for addresses needs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The record types that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// IPv4.
    A = 1,
    /// IPv6.
    Aaaa = 28,
}

const CLASS_IN: u16 = 1;

/// What a server said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Addresses; none when the name has none of this kind, or is not there.
    Addresses(Vec<IpAddr>),
    /// The server could not say; another may.
    Failed,
}

/// A question with recursion wanted; `None` when `name` is no host name.
pub(super) fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(64);
    message.extend(id.to_be_bytes());
    message.extend([0x01, 0x00]);
    message.extend([0, 1, 0, 0, 0, 0, 0, 0]);
    let name = name.trim_end_matches('.');
    if name.is_empty() || name.len() > 253 {
        return None;
    }
    for label in name.split('.') {
        let clean =
            label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length));
        message.push(length.filter(|_| clean)?);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend((kind as u16).to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    Some(message)
}

/// Reads the answer to `question`; `None` when it is the answer to something
/// else, or damaged. Names of records are not looked at: a recursive server
/// sends the chain of aliases and the addresses it ends at.
pub(super) fn answer(question: &[u8], message: &[u8]) -> Option<Answer> {
    let mut reader = Reader { bytes: message };
    let id = reader.take(2)?;
    let flags = reader.number()?;
    let counts = [reader.number()?, reader.number()?, reader.number()?, reader.number()?];
    let is_answer = flags & 0x8000 != 0;
    // The question comes back as it was sent, as to its letters' case too.
    let asked = question.get(12..)?;
    if id != question.get(..2)?
        || !is_answer
        || counts[0] != 1
        || reader.take(asked.len())? != asked
    {
        return None;
    }
    let kind = u16::from_be_bytes([*asked.get(asked.len() - 4)?, *asked.get(asked.len() - 3)?]);
    match flags & 0x000f {
        0 => {}
        // There is no such name.
        3 => return Some(Answer::Addresses(Vec::new())),
        _ => return Some(Answer::Failed),
    }
    let mut addresses = Vec::new();
    for _ in 0..counts[1] {
        // A truncated answer ends in the middle; what came before counts.
        let Some(record) = reader.record() else { break };
        let address = match (record.kind, record.data.len()) {
            (1, 4) => <[u8; 4]>::try_from(record.data)
                .ok()
                .map(|bytes| IpAddr::from(Ipv4Addr::from(bytes))),
            (28, 16) => <[u8; 16]>::try_from(record.data)
                .ok()
                .map(|bytes| IpAddr::from(Ipv6Addr::from(bytes))),
            _ => None,
        };
        addresses.extend(address.filter(|_| record.kind == kind && record.class == CLASS_IN));
    }
    Some(Answer::Addresses(addresses))
}

struct Record<'a> {
    kind: u16,
    class: u16,
    data: &'a [u8],
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Passes over a name, which ends with a zero or a pointer.
    fn name(&mut self) -> Option<()> {
        loop {
            match self.take(1)?[0] {
                0 => return Some(()),
                length @ 1..=63 => drop(self.take(length.into())?),
                0xc0..=0xff => return self.take(1).map(drop),
                _ => return None,
            }
        }
    }

    fn record(&mut self) -> Option<Record<'a>> {
        self.name()?;
        let (kind, class) = (self.number()?, self.number()?);
        let _seconds = self.take(4)?;
        let length = self.number()?;
        Some(Record { kind, class, data: self.take(length.into())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer of a real server: an alias, then its address.
    fn reply(question: &[u8], flags: u16) -> Vec<u8> {
        let mut message = question[..2].to_vec();
        message.extend(flags.to_be_bytes());
        message.extend([0, 1, 0, 2, 0, 0, 0, 0]);
        message.extend(&question[12..]);
        message.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 4, 1, b'x', 0xc0, 12]);
        message.extend([1, b'x', 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 1, 2, 3]);
        message
    }

    #[test]
    fn an_answer_is_read_through_its_aliases() {
        let question = question(7, "a.example.", Kind::A).unwrap();
        let expected = Answer::Addresses(vec!["10.1.2.3".parse().unwrap()]);
        let whole = reply(&question, 0x8180);
        assert_eq!(answer(&question, &whole), Some(expected));
        assert_eq!(
            answer(&question, &reply(&question, 0x8183)),
            Some(Answer::Addresses(vec![])),
            "no such name"
        );
        assert_eq!(answer(&question, &reply(&question, 0x8182)), Some(Answer::Failed));
        assert_eq!(
            answer(&question, &whole[..whole.len() - 3]),
            Some(Answer::Addresses(vec![])),
            "cut"
        );
    }

    #[test]
    fn what_answers_something_else_is_no_answer() {
        let asked = question(7, "a.example", Kind::A).unwrap();
        let other = question(8, "a.example", Kind::A).unwrap();
        assert_eq!(answer(&asked, &reply(&other, 0x8180)), None, "another id");
        let other = question(7, "b.example", Kind::A).unwrap();
        assert_eq!(answer(&asked, &reply(&other, 0x8180)), None, "another name");
        assert_eq!(answer(&asked, &reply(&asked, 0x0180)), None, "a question");
    }

    #[test]
    fn only_host_names_are_asked_for() {
        let long = "x".repeat(64);
        for bad in ["", ".", "a..b", "a b", "ä", long.as_str(), &["abc"; 70].join(".")] {
            assert_eq!(question(1, bad, Kind::Aaaa), None, "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let asked = question(7, "a.example", Kind::A).unwrap();
            let _ = answer(&asked, &bytes);
            let mut behind = reply(&asked, 0x8180)[..asked.len()].to_vec();
            behind.extend(bytes);
            let _ = answer(&asked, &behind);
        }
    }
}
