//! The codec of streams that hardly ever say anything.

use std::marker::PhantomData;

use tonic::codec::{BufferSettings, Codec};
use tonic_prost::ProstCodec;
use tonic_prost::prost::Message;

/// Of each direction, from the start and as long as the stream lives; they grow
/// where a message is longer. tonic's own are 8 KiB.
const BUFFER: usize = 256;
/// Messages that are there together go out together, up to this.
const TOGETHER: usize = 8 * 1024;

/// As [`ProstCodec`], with small buffers: thousands of agents have a stream each.
pub(super) struct SmallCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> SmallCodec<T, U> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = <ProstCodec<T, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(BUFFER, TOGETHER))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(BUFFER, TOGETHER))
    }
}
