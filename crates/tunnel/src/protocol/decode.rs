//! Frames on their way in: an incremental decoder that copies nothing of the
//! data, whatever pieces it arrives in.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::encode::HEADROOM;
use super::{DATA_TAG, GRPC_HEADER, MAX_FRAME, MAX_MESSAGE};

/// What a decoder gives for data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataMode {
    /// The bytes of the connection, for its two ends.
    Payload,
    /// The frames as they came, headers included, for a broker that passes
    /// them on.
    Raw,
}

/// What was decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A piece of data, in the mode of the decoder; never empty. A large frame
    /// may come in several pieces.
    Data(Bytes),
    /// A whole message that is not plain data, for prost to decode.
    Message(Bytes),
}

/// Why the bytes are not frames of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The frame is compressed, which was never offered.
    #[error("the frame is compressed")]
    Compressed,
    /// The frame is larger than the decoder takes.
    #[error("the frame of {0} bytes is too large")]
    TooLarge(u32),
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Truncated,
}

#[derive(Debug)]
enum State {
    /// Between frames, or within a header of which some bytes are in `head`.
    Header,
    /// Within the bytes of a data frame.
    Data { remaining: usize },
    /// Within another message.
    Message { whole: BytesMut, missing: usize },
}

/// An incremental decoder. [`Decoder::push`] what arrived, then call
/// [`Decoder::next_event`] until it gives nothing.
///
/// It holds at most the piece that was pushed, one header and one message of
/// [`MAX_MESSAGE`] bytes. After an error it must not be used any more.
#[derive(Debug)]
pub struct Decoder {
    mode: DataMode,
    state: State,
    head: [u8; HEADROOM],
    head_len: usize,
    chunk: Bytes,
}

/// What the first bytes of a frame say.
enum Head {
    /// More bytes are needed.
    Short,
    /// Plain data: the length of the header and of the bytes after it.
    Data { header: usize, payload: usize },
    /// Something else: the length of the message.
    Message { length: usize },
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new(mode: DataMode) -> Self {
        Self { mode, state: State::Header, head: [0; HEADROOM], head_len: 0, chunk: Bytes::new() }
    }

    /// Whether the stream may end here.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        matches!(self.state, State::Header) && self.head_len == 0 && self.chunk.is_empty()
    }

    /// Goes on in another mode, for a stream whose first message was read.
    pub fn set_mode(&mut self, mode: DataMode) {
        self.mode = mode;
    }

    /// Adds what arrived. Bytes that were not asked for yet are kept, at the
    /// price of a copy.
    pub fn push(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            let mut both = BytesMut::with_capacity(self.chunk.len() + chunk.len());
            both.put_slice(&self.chunk);
            both.put_slice(&chunk);
            self.chunk = both.freeze();
        }
    }

    /// The next event; `None` when more bytes are needed.
    ///
    /// # Errors
    /// When the bytes are not frames of a connection.
    pub fn next_event(&mut self) -> Result<Option<Event>, DecodeError> {
        loop {
            match &mut self.state {
                State::Header => {
                    if let Some(event) = self.header()? {
                        return Ok(Some(event));
                    }
                    if matches!(self.state, State::Header) && self.chunk.is_empty() {
                        return Ok(None);
                    }
                }
                State::Data { remaining } => {
                    if *remaining == 0 {
                        self.state = State::Header;
                        continue;
                    }
                    if self.chunk.is_empty() {
                        return Ok(None);
                    }
                    let piece = self.chunk.split_to((*remaining).min(self.chunk.len()));
                    *remaining -= piece.len();
                    return Ok(Some(Event::Data(piece)));
                }
                State::Message { whole, missing } => {
                    let piece = self.chunk.split_to((*missing).min(self.chunk.len()));
                    *missing -= piece.len();
                    whole.put_slice(&piece);
                    if *missing > 0 {
                        return Ok(None);
                    }
                    let whole = std::mem::take(whole).freeze();
                    self.state = State::Header;
                    return Ok(Some(Event::Message(whole)));
                }
            }
        }
    }

    /// Reads a header. Leaves `State::Header` when it knows what follows.
    fn header(&mut self) -> Result<Option<Event>, DecodeError> {
        if self.head_len == 0 {
            // The common case: the header lies within the piece.
            match classify(&self.chunk)? {
                Head::Short => {}
                Head::Data { header, payload } => {
                    let present = payload.min(self.chunk.len() - header);
                    self.state = State::Data { remaining: payload - present };
                    let mut piece = self.chunk.split_to(header + present);
                    if self.mode == DataMode::Payload || payload == 0 {
                        piece.advance(header);
                    }
                    return Ok((!piece.is_empty()).then_some(Event::Data(piece)));
                }
                Head::Message { length } => {
                    self.chunk.advance(GRPC_HEADER);
                    if self.chunk.len() >= length {
                        return Ok(Some(Event::Message(self.chunk.split_to(length))));
                    }
                    self.begin_message(length, &[]);
                    return Ok(None);
                }
            }
        }
        // A header in pieces: collect it byte by byte, at most HEADROOM.
        while self.chunk.has_remaining() && self.head_len < HEADROOM {
            self.head[self.head_len] = self.chunk.get_u8();
            self.head_len += 1;
            let head = self.head;
            let head = &head[..self.head_len];
            match classify(head)? {
                Head::Short => {}
                Head::Data { header, payload } => {
                    self.head_len = 0;
                    self.state = State::Data { remaining: payload };
                    let raw = self.mode == DataMode::Raw && payload > 0;
                    return Ok(raw.then(|| Event::Data(Bytes::copy_from_slice(&head[..header]))));
                }
                Head::Message { length } => {
                    self.head_len = 0;
                    self.begin_message(length, &head[GRPC_HEADER..]);
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    fn begin_message(&mut self, length: usize, start: &[u8]) {
        let mut whole = BytesMut::with_capacity(length);
        whole.put_slice(start);
        self.state = State::Message { missing: length - start.len(), whole };
    }
}

/// Reads the front of a frame. What it takes of a message that is not plain
/// data is never more than the message has.
fn classify(bytes: &[u8]) -> Result<Head, DecodeError> {
    let Some((header, rest)) = bytes.split_at_checked(GRPC_HEADER) else {
        return Ok(Head::Short);
    };
    if header[0] != 0 {
        return Err(DecodeError::Compressed);
    }
    let announced = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
    let length = announced as usize;
    if length > MAX_FRAME {
        return Err(DecodeError::TooLarge(announced));
    }
    let message = || {
        if length > MAX_MESSAGE {
            Err(DecodeError::TooLarge(announced))
        } else {
            Ok(Head::Message { length })
        }
    };
    if length == 0 {
        return message();
    }
    let Some((tag, rest)) = rest.split_first() else {
        return Ok(Head::Short);
    };
    if *tag != DATA_TAG {
        return message();
    }
    let mut payload = 0_usize;
    for at in 0..5 {
        if 1 + at >= length {
            // The message ends within the length: prost will say so.
            return message();
        }
        let Some(byte) = rest.get(at) else {
            return Ok(Head::Short);
        };
        payload |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let prefix = 1 + at + 1;
            return if prefix + payload == length {
                Ok(Head::Data { header: GRPC_HEADER + prefix, payload })
            } else {
                message()
            };
        }
    }
    message()
}

#[cfg(test)]
mod tests {
    use super::super::encode;
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Item {
        Data(Vec<u8>),
        Message(Vec<u8>),
    }

    fn item() -> impl Strategy<Value = Item> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300).prop_map(Item::Data),
            (20_000_usize..40_000, any::<u8>())
                .prop_map(|(length, byte)| Item::Data(vec![byte; length])),
            // A message of another field, so that it is never taken for data.
            prop::collection::vec(any::<u8>(), 0..300).prop_map(Item::Message),
        ]
    }

    fn encode_item(item: &Item) -> Bytes {
        match item {
            Item::Data(payload) => encode::data(payload),
            Item::Message(body) => {
                let mut frame = BytesMut::new();
                frame.put_u8(0);
                frame.put_u32(u32::try_from(body.len() + 1).unwrap());
                frame.put_u8(0x1a);
                frame.put_slice(body);
                frame.freeze()
            }
        }
    }

    /// Feeds `wire` in pieces of the given sizes and gives back what came out:
    /// neighbouring data joined, messages each alone.
    fn run(mode: DataMode, wire: &Bytes, sizes: &[usize]) -> Result<Vec<Item>, DecodeError> {
        let mut decoder = Decoder::new(mode);
        let mut out: Vec<Item> = Vec::new();
        let mut wire = wire.clone();
        let mut sizes = sizes.iter().copied().cycle();
        while !wire.is_empty() {
            let size = sizes.next().unwrap_or(1).clamp(1, wire.len());
            decoder.push(wire.split_to(size));
            while let Some(event) = decoder.next_event()? {
                match event {
                    Event::Data(piece) => {
                        assert!(!piece.is_empty());
                        match out.last_mut() {
                            Some(Item::Data(bytes)) => bytes.extend_from_slice(&piece),
                            _ => out.push(Item::Data(piece.to_vec())),
                        }
                    }
                    Event::Message(body) => out.push(Item::Message(body.to_vec())),
                }
            }
        }
        if decoder.at_boundary() { Ok(out) } else { Err(DecodeError::Truncated) }
    }

    fn joined(items: &[Item], raw: bool) -> Vec<Item> {
        let mut out: Vec<Item> = Vec::new();
        for item in items {
            match item {
                Item::Data(payload) if payload.is_empty() => {}
                Item::Data(payload) => {
                    let bytes = if raw { encode::data(payload).to_vec() } else { payload.clone() };
                    match out.last_mut() {
                        Some(Item::Data(all)) => all.extend_from_slice(&bytes),
                        _ => out.push(Item::Data(bytes)),
                    }
                }
                Item::Message(body) => {
                    let mut whole = vec![0x1a];
                    whole.extend_from_slice(body);
                    out.push(Item::Message(whole));
                }
            }
        }
        out
    }

    fn same(left: &[Item], right: &[Item]) -> bool {
        left.len() == right.len()
            && left.iter().zip(right).all(|pair| match pair {
                (Item::Data(a), Item::Data(b)) | (Item::Message(a), Item::Message(b)) => a == b,
                _ => false,
            })
    }

    proptest! {
        #[test]
        fn any_splits_give_the_same_bytes(
            items in prop::collection::vec(item(), 0..12),
            sizes in prop::collection::vec(1_usize..5_000, 1..20),
            tiny in any::<bool>(),
        ) {
            let mut wire = BytesMut::new();
            for item in &items {
                wire.extend_from_slice(&encode_item(item));
            }
            let wire = wire.freeze();
            let sizes = if tiny { sizes.iter().map(|size| size % 13 + 1).collect() } else { sizes };
            for (mode, raw) in [(DataMode::Payload, false), (DataMode::Raw, true)] {
                let out = run(mode, &wire, &sizes).unwrap();
                prop_assert!(same(&out, &joined(&items, raw)));
            }
        }

        #[test]
        fn garbage_never_panics_and_nothing_grows(
            wire in prop::collection::vec(any::<u8>(), 0..4_000),
            sizes in prop::collection::vec(1_usize..200, 1..10),
        ) {
            let total = wire.len();
            if let Ok(items) = run(DataMode::Raw, &Bytes::from(wire), &sizes) {
                let out: usize = items.iter().map(|item| match item {
                    Item::Data(bytes) | Item::Message(bytes) => bytes.len(),
                }).sum();
                prop_assert!(out <= total);
            }
        }

        #[test]
        fn a_cut_frame_is_never_a_boundary(payload in prop::collection::vec(any::<u8>(), 1..400), cut in 1_usize..400) {
            let frame = encode::data(&payload);
            let cut = cut.min(frame.len() - 1);
            prop_assert_eq!(
                run(DataMode::Payload, &frame.slice(..cut), &[cut]).unwrap_err(),
                DecodeError::Truncated
            );
        }
    }

    #[test]
    fn sizes_are_bounded_before_anything_is_kept() {
        let mut decoder = Decoder::new(DataMode::Payload);
        decoder.push(Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 0x12]));
        assert_eq!(decoder.next_event(), Err(DecodeError::TooLarge(u32::MAX)));
        // A message that is not data has a smaller bound.
        let mut decoder = Decoder::new(DataMode::Payload);
        decoder.push(Bytes::from_static(&[0, 0, 2, 0, 0, 0x0a]));
        assert_eq!(decoder.next_event(), Err(DecodeError::TooLarge(0x2_0000)));
        let mut decoder = Decoder::new(DataMode::Payload);
        decoder.push(Bytes::from_static(&[1, 0, 0, 0, 2, 0x12, 0]));
        assert_eq!(decoder.next_event(), Err(DecodeError::Compressed));
    }

    #[test]
    fn odd_data_is_left_to_prost() {
        // A second field after data: a legal message, but not the plain form.
        let body = [0x12, 1, b'x', 0x1a, 0];
        let mut wire = vec![0, 0, 0, 0, 5];
        wire.extend_from_slice(&body);
        let mut decoder = Decoder::new(DataMode::Raw);
        decoder.push(Bytes::from(wire));
        assert_eq!(decoder.next_event(), Ok(Some(Event::Message(Bytes::copy_from_slice(&body)))));
    }
}
