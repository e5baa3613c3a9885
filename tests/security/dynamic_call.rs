//! Calls any rpc by its descriptor, with a request written as JSON.

use std::time::Duration;

use prost::Message as _;
use prost::bytes::{Buf, BufMut, Bytes};
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// The pool of every API of ours.
pub(crate) fn pool() -> DescriptorPool {
    DescriptorPool::decode(wolfpack_proto::DESCRIPTOR_SET).unwrap()
}

/// Every rpc of our packages.
pub(crate) fn methods(pool: &DescriptorPool) -> Vec<MethodDescriptor> {
    pool.services()
        .filter(|service| service.full_name().starts_with("wolfpack."))
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .collect()
}

/// The path of an rpc.
pub(crate) fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

/// Calls an rpc with one message and the end of the request; gives all it
/// answers, as bytes one after the other, or the status. Of a stream that goes
/// on, what comes until it is silent for 2 s.
pub(crate) async fn call(
    channel: &Channel,
    method: &MethodDescriptor,
    key: Option<&str>,
    json: &str,
) -> Result<Vec<u8>, Status> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let message = DynamicMessage::deserialize(method.input(), &mut deserializer)
        .unwrap_or_else(|error| panic!("{}: {error}: {json}", path(method)));
    let bytes = Bytes::from(message.encode_to_vec());
    let mut request = Request::new(tokio_stream::iter([bytes]));
    request.set_timeout(Duration::from_secs(20));
    if let Some(key) = key {
        request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    }
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let path = path(method).parse().unwrap();
    let mut answers = grpc.streaming(request, path, BytesCodec).await?.into_inner();
    let mut all = Vec::new();
    for _ in 0..1000 {
        match tokio::time::timeout(Duration::from_secs(2), answers.message()).await {
            Ok(Ok(Some(answer))) => all.extend(answer),
            Ok(Ok(None)) | Err(_) => break,
            Ok(Err(status)) => return Err(status),
        }
    }
    Ok(all)
}

#[derive(Debug, Clone, Copy)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut bytes);
        Ok(Some(bytes))
    }
}
