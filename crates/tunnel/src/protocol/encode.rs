//! Frames on their way out: gRPC framing around one protobuf message.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::Message;

use super::{DATA_TAG, GRPC_HEADER};

/// Room to leave before the bytes of a connection for [`seal_data`]: the gRPC
/// header, the tag and a length of up to 32 bits.
pub const HEADROOM: usize = GRPC_HEADER + 1 + 5;

/// A frame that says `fin`; the same in all four messages.
pub const FIN: Bytes = Bytes::from_static(&[0, 0, 0, 0, 2, 0x1a, 0]);

/// The frame of `CarryRequest.opened`.
pub const OPENED: Bytes = Bytes::from_static(&[0, 0, 0, 0, 2, 0x22, 0]);

/// The frame of `CarryRequest.park` that parks a stream again.
pub const PARK_AGAIN: Bytes = Bytes::from_static(&[0, 0, 0, 0, 2, 0x0a, 0]);

/// Makes the frame of `data` in place: `buffer` is [`HEADROOM`] bytes of any
/// content and then the bytes of the connection, which are not copied.
///
/// A buffer without anything after the headroom gives a frame of empty data.
#[must_use]
pub fn seal_data(mut buffer: BytesMut) -> Bytes {
    if buffer.len() < HEADROOM {
        buffer.resize(HEADROOM, 0);
    }
    let payload = buffer.len() - HEADROOM;
    let mut header = [0_u8; HEADROOM];
    let used = write_data_header(&mut header, payload);
    buffer[HEADROOM - used..HEADROOM].copy_from_slice(&header[..used]);
    buffer.advance(HEADROOM - used);
    buffer.freeze()
}

/// Makes the frame of `data` by copying, for bytes that have no headroom.
#[must_use]
pub fn data(payload: &[u8]) -> Bytes {
    let mut header = [0_u8; HEADROOM];
    let used = write_data_header(&mut header, payload.len());
    let mut frame = BytesMut::with_capacity(used + payload.len());
    frame.put_slice(&header[..used]);
    frame.put_slice(payload);
    frame.freeze()
}

/// Makes the frame of any other message.
#[must_use]
pub fn message(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(GRPC_HEADER + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    frame.put_slice(&message.encode_to_vec());
    frame.freeze()
}

/// Writes the header of a data frame to the front of `header` and returns its
/// length.
fn write_data_header(header: &mut [u8; HEADROOM], payload: usize) -> usize {
    let payload = u32::try_from(payload).unwrap_or(u32::MAX);
    let mut at = GRPC_HEADER;
    header[at] = DATA_TAG;
    at += 1;
    let mut rest = payload;
    while rest >= 0x80 {
        header[at] = (rest & 0x7f) as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    header[at] = (rest & 0x7f) as u8;
    at += 1;
    let length = payload.saturating_add(u32::try_from(at - GRPC_HEADER).unwrap_or(0));
    header[0] = 0;
    header[1..GRPC_HEADER].copy_from_slice(&length.to_be_bytes());
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_proto::tunnel::v1::{
        CarryRequest, CarryResponse, DialRequest, DialResponse, Fin, Opened, Park, carry_request,
        carry_response, dial_request, dial_response,
    };

    #[test]
    fn data_by_hand_is_what_prost_writes_in_all_four_messages() {
        for length in [0_usize, 1, 127, 128, 16_383, 16_384, 32_768, 2_097_152] {
            let payload = Bytes::from(vec![7_u8; length]);
            let mut buffer = BytesMut::zeroed(HEADROOM);
            buffer.extend_from_slice(&payload);
            let sealed = seal_data(buffer);
            let up = CarryRequest { frame: Some(carry_request::Frame::Data(payload.clone())) };
            let down = CarryResponse { frame: Some(carry_response::Frame::Data(payload.clone())) };
            let call = DialRequest { frame: Some(dial_request::Frame::Data(payload.clone())) };
            let answer = DialResponse { frame: Some(dial_response::Frame::Data(payload.clone())) };
            for expected in [message(&up), message(&down), message(&call), message(&answer)] {
                assert_eq!(sealed, expected, "{length}");
            }
            assert_eq!(data(&payload), sealed);
        }
    }

    #[test]
    fn constants_are_what_prost_writes() {
        let fin = CarryRequest { frame: Some(carry_request::Frame::Fin(Fin {})) };
        assert_eq!(FIN, message(&fin));
        let fin = DialResponse { frame: Some(dial_response::Frame::Fin(Fin {})) };
        assert_eq!(FIN, message(&fin));
        let opened = CarryRequest { frame: Some(carry_request::Frame::Opened(Opened {})) };
        assert_eq!(OPENED, message(&opened));
        let park = CarryRequest { frame: Some(carry_request::Frame::Park(Park::default())) };
        assert_eq!(PARK_AGAIN, message(&park));
    }
}
