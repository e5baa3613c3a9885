//! Reading an archive of images while it arrives: is it a tar that an engine
//! may be given? Pure and incremental; keeps one header and one long name.
//!
//! Only what `docker save` and OCI writers make is let through: files, folders
//! and links whose paths stay inside, of the size that was announced, with an
//! end mark, and with a manifest. What readers of tar take in different ways,
//! such as a path that is said twice, is refused: the engine's reader, Go's,
//! would not see what was checked here.

mod header;
mod path;

use header::{BLOCK, DAMAGED, Header, Kind};

/// The most entries: an image has at most 127 layers, four entries each.
const ENTRIES: u32 = 65_536;
/// The longest name or extension record that is read, in bytes.
const TEXT: usize = 64 * 1024;
/// The longest path.
const PATH: usize = 4_096;

/// Why an archive is refused, in words for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct BadArchive(String);

impl BadArchive {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// Checks an archive piece by piece; how it is cut makes no difference.
#[derive(Debug)]
pub(super) struct Checker {
    /// Bytes that are still to come, as was announced.
    left: u64,
    state: State,
    block: Vec<u8>,
    entries: u32,
    /// From an extension record, for the next entry.
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    long_size: Option<u64>,
    /// The kinds of extension records that the next entry has; one of each.
    records: Vec<Kind>,
    manifest: bool,
    index: bool,
    layout: bool,
}

#[derive(Debug)]
enum State {
    /// Reading a header.
    Header,
    /// Reading the text of an extension record.
    Text { kind: Kind, left: u64, padding: u64, text: Vec<u8> },
    /// Skipping what a file holds, padding included.
    Data { left: u64 },
    /// After the first block of zeros.
    Ending,
    /// After the end mark: only zeros.
    Ended,
}

impl Checker {
    /// For an archive of this many bytes.
    #[must_use]
    pub(super) fn new(size: u64) -> Self {
        Self {
            left: size,
            state: State::Header,
            block: Vec::with_capacity(BLOCK),
            entries: 0,
            long_path: None,
            long_link: None,
            long_size: None,
            records: Vec::new(),
            manifest: false,
            index: false,
            layout: false,
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When no archive that begins like this is accepted.
    pub(super) fn take(&mut self, mut piece: &[u8]) -> Result<(), BadArchive> {
        if piece.len() as u64 > self.left {
            return Err(BadArchive::new("it is longer than was announced"));
        }
        while !piece.is_empty() {
            piece = self.step(piece)?;
        }
        Ok(())
    }

    /// All has come.
    ///
    /// # Errors
    /// When the archive is cut off or has no manifest.
    pub(super) fn finish(&self) -> Result<(), BadArchive> {
        if !matches!(self.state, State::Ended) || !self.block.is_empty() {
            return Err(BadArchive::new("it is cut off: the end of the archive is missing"));
        }
        if self.manifest || (self.index && self.layout) {
            return Ok(());
        }
        Err(BadArchive::new(
            "it holds no image: there is neither manifest.json nor index.json with oci-layout",
        ))
    }

    fn step<'a>(&mut self, piece: &'a [u8]) -> Result<&'a [u8], BadArchive> {
        let some =
            |left: u64, piece: &[u8]| usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        match &mut self.state {
            State::Data { left } => {
                let (skipped, rest) = piece.split_at(some(*left, piece));
                *left -= skipped.len() as u64;
                self.left -= skipped.len() as u64;
                if *left == 0 {
                    self.state = State::Header;
                }
                Ok(rest)
            }
            State::Text { left, padding, text, .. } => {
                let (taken, rest) = piece.split_at(some(*left, piece));
                text.extend_from_slice(taken);
                *left -= taken.len() as u64;
                self.left -= taken.len() as u64;
                if *left > 0 {
                    return Ok(rest);
                }
                let padding = *padding;
                self.extension()?;
                self.state = after(padding);
                Ok(rest)
            }
            State::Header | State::Ending | State::Ended => {
                let (taken, rest) = piece.split_at((BLOCK - self.block.len()).min(piece.len()));
                self.block.extend_from_slice(taken);
                self.left -= taken.len() as u64;
                if self.block.len() == BLOCK {
                    let block = std::mem::take(&mut self.block);
                    self.block(&block)?;
                    self.block = block;
                    self.block.clear();
                }
                Ok(rest)
            }
        }
    }

    fn block(&mut self, block: &[u8]) -> Result<(), BadArchive> {
        let zeros = block.iter().all(|byte| *byte == 0);
        self.state = match (&self.state, zeros) {
            (State::Header, true) => State::Ending,
            (State::Ending | State::Ended, true) => State::Ended,
            (State::Ending | State::Ended, false) => {
                return Err(BadArchive::new("there are bytes after the end of the archive"));
            }
            (_, false) => self.entry(block)?,
            (other, true) => return Err(BadArchive::new(format!("unexpected zeros: {other:?}"))),
        };
        Ok(())
    }

    fn entry(&mut self, block: &[u8]) -> Result<State, BadArchive> {
        let header = Header::read(block).map_err(|why| self.no_header(block, why))?;
        let size = match header.kind {
            Kind::Long | Kind::LongLink | Kind::Extension | Kind::GlobalExtension => header.size,
            _ => self.long_size.take().unwrap_or(header.size),
        };
        let padded = size.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64);
        // The end mark follows every entry.
        if padded.saturating_add(2 * BLOCK as u64) > self.left {
            return Err(BadArchive::new("an entry is larger than what is left: it is cut off"));
        }
        self.entries += 1;
        if self.entries > ENTRIES {
            return Err(BadArchive::new(format!("it has more than {ENTRIES} entries")));
        }
        match header.kind {
            Kind::Long | Kind::LongLink | Kind::Extension | Kind::GlobalExtension => {
                if self.records.contains(&header.kind) {
                    return Err(BadArchive::new("an entry has two extension records of one kind"));
                }
                if header.kind != Kind::GlobalExtension {
                    self.records.push(header.kind);
                }
                if size > TEXT as u64 {
                    return Err(BadArchive::new("an extension record is too long"));
                }
                if size == 0 {
                    return Ok(State::Header);
                }
                let (left, padding) = (size, padded - size);
                return Ok(State::Text { kind: header.kind, left, padding, text: Vec::new() });
            }
            Kind::Folder | Kind::HardLink | Kind::SymbolicLink if size > 0 => {
                return Err(BadArchive::new("a folder or link has content"));
            }
            Kind::File | Kind::Folder | Kind::HardLink | Kind::SymbolicLink => {}
        }
        self.records.clear();
        let name = self.long_path.take().unwrap_or(header.path);
        let link = self.long_link.take().unwrap_or(header.link);
        let inside = path::inside(&name, PATH).map_err(BadArchive::new)?;
        match header.kind {
            Kind::HardLink => drop(path::inside(&link, PATH).map_err(BadArchive::new)?),
            Kind::SymbolicLink => path::link_inside(&inside, &link).map_err(BadArchive::new)?,
            Kind::File => self.note(&inside),
            _ => {}
        }
        Ok(after(padded))
    }

    fn note(&mut self, path: &[&[u8]]) {
        match path {
            [b"manifest.json"] => self.manifest = true,
            [b"index.json"] => self.index = true,
            [b"oci-layout"] => self.layout = true,
            _ => {}
        }
    }

    fn extension(&mut self) -> Result<(), BadArchive> {
        let State::Text { kind, text, .. } = &mut self.state else { return Ok(()) };
        let text = std::mem::take(text);
        match kind {
            Kind::Long => once(&mut self.long_path, header::until_nul(&text).to_vec())?,
            Kind::LongLink => once(&mut self.long_link, header::until_nul(&text).to_vec())?,
            // What holds for every entry: no writer of images uses it for paths.
            Kind::GlobalExtension => {
                let records = header::records(&text).map_err(BadArchive::new)?;
                let odd = |key: &[u8]| matches!(key, b"path" | b"linkpath" | b"size");
                if records.iter().any(|(key, _)| odd(key)) {
                    return Err(BadArchive::new("a global record sets paths or sizes"));
                }
            }
            _ => {
                for (key, value) in header::records(&text).map_err(BadArchive::new)? {
                    match key {
                        b"path" => once(&mut self.long_path, value.to_vec())?,
                        b"linkpath" => once(&mut self.long_link, value.to_vec())?,
                        b"size" => {
                            let size = std::str::from_utf8(value).ok();
                            let size = size.and_then(|size| size.parse().ok());
                            let size =
                                size.ok_or_else(|| BadArchive::new("a size is not a number"))?;
                            once(&mut self.long_size, size)?;
                        }
                        key if key.starts_with(b"GNU.sparse") => {
                            return Err(BadArchive::new("it has sparse files"));
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    fn no_header(&self, block: &[u8], why: &'static str) -> BadArchive {
        if self.entries > 0 || why != DAMAGED {
            return BadArchive::new(why);
        }
        let compressed =
            [&[0x1f, 0x8b][..], b"BZh", &[0xfd, b'7', b'z'], &[0x28, 0xb5, 0x2f, 0xfd]];
        if compressed.iter().any(|magic| block.starts_with(magic)) {
            return BadArchive::new("it is compressed: send the tar itself");
        }
        BadArchive::new("it is not a tar archive")
    }
}

/// Takes what an extension record says of the next entry. Of two that say the
/// same thing readers take one or the other.
fn once<T>(place: &mut Option<T>, said: T) -> Result<(), BadArchive> {
    match place.replace(said) {
        None => Ok(()),
        Some(_) => Err(BadArchive::new("an entry has its path, link or size twice")),
    }
}

/// After a header or record: so many bytes to skip.
fn after(skip: u64) -> State {
    if skip == 0 { State::Header } else { State::Data { left: skip } }
}

#[cfg(test)]
mod tests;
