//! One header block of a tar archive, and the records of its extensions.

/// The unit of an archive, in bytes.
pub(super) const BLOCK: usize = 512;

/// What is said of a block that is no header at all.
pub(super) const DAMAGED: &str = "a header is damaged";

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    HardLink,
    SymbolicLink,
    /// GNU: the path of the next entry.
    Long,
    /// GNU: the link of the next entry.
    LongLink,
    /// POSIX: records for the next entry.
    Extension,
    /// POSIX: records for all entries after it.
    GlobalExtension,
}

/// A header.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) size: u64,
}

impl Header {
    /// Reads a block of 512 bytes.
    pub(super) fn read(block: &[u8]) -> Result<Self, &'static str> {
        let field = |from: usize, len: usize| block.get(from..from + len).unwrap_or_default();
        let wrong = DAMAGED;
        let sum = number(field(148, 8)).ok_or(wrong)?;
        let blank = |at: usize| (148..156).contains(&at);
        let real: u64 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| if blank(at) { u64::from(b' ') } else { u64::from(*byte) })
            .sum();
        if sum != real {
            return Err(wrong);
        }
        let kind = match block.get(156) {
            Some(0 | b'0' | b'7') => Kind::File,
            Some(b'1') => Kind::HardLink,
            Some(b'2') => Kind::SymbolicLink,
            Some(b'5') => Kind::Folder,
            Some(b'L') => Kind::Long,
            Some(b'K') => Kind::LongLink,
            Some(b'x') => Kind::Extension,
            Some(b'g') => Kind::GlobalExtension,
            Some(b'3' | b'4' | b'6') => return Err("it holds a device or a pipe"),
            _ => return Err("it holds an entry of an unknown kind"),
        };
        let mut path = until_nul(field(0, 100)).to_vec();
        let prefix = until_nul(field(345, 155));
        // Other formats keep other things in that field, and Go's reader takes
        // it for a beginning all the same when those are none.
        if field(257, 6) != b"ustar\0" {
            if !is_time(field(345, 12)) || !is_time(field(357, 12)) {
                return Err("a header has times that are no numbers");
            }
        } else if field(508, 4) == b"tar\0" {
            return Err("it is in the format of star");
        } else if !prefix.is_empty() {
            path = [prefix, b"/", &path].concat();
        }
        let size = number(field(124, 12)).ok_or(wrong)?;
        Ok(Self { kind, path, link: until_nul(field(157, 100)).to_vec(), size })
    }
}

/// A number: octal digits, or base 256 when the first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        let mut value = u64::from(first & 0x7f);
        for byte in field.get(1..)? {
            value = value.checked_mul(256)?.checked_add(u64::from(*byte))?;
        }
        return Some(value);
    }
    let text = std::str::from_utf8(until_nul(field)).ok()?.trim();
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

/// A time as every reader takes it: octal digits, or nothing.
fn is_time(field: &[u8]) -> bool {
    field.iter().all(|byte| matches!(byte, b'0'..=b'7' | b' ' | 0)) && number(field).is_some()
}

/// The text before the first NUL.
pub(super) fn until_nul(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    field.get(..end).unwrap_or(field)
}

/// A key and its value.
type Record<'a> = (&'a [u8], &'a [u8]);

/// The records `LENGTH KEY=VALUE\n` of an extension.
pub(super) fn records(mut text: &[u8]) -> Result<Vec<Record<'_>>, &'static str> {
    let wrong = "an extension record is damaged";
    let mut found = Vec::new();
    while !text.is_empty() {
        let space = text.iter().position(|byte| *byte == b' ').ok_or(wrong)?;
        let (digits, _) = text.split_at(space);
        let length = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        let length: usize = length.filter(|length| *length > space + 1).ok_or(wrong)?;
        let (record, rest) = text.split_at_checked(length).ok_or(wrong)?;
        let record = record.get(space + 1..).and_then(|it| it.strip_suffix(b"\n")).ok_or(wrong)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or(wrong)?;
        let (key, value) = record.split_at(equals);
        found.push((key, value.get(1..).unwrap_or_default()));
        text = rest;
    }
    Ok(found)
}
