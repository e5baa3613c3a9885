//! Calls any rpc by its descriptor, with requests written as JSON.

use std::time::Duration;

use prost::Message as _;
use prost::bytes::{Buf, BufMut, Bytes};
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use serde_json::Value;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// How long a call may take: the checks of a wolf measure for a while.
const DEADLINE: Duration = Duration::from_secs(120);
/// How long a stream that goes on is listened to after its first message.
const LISTEN: Duration = Duration::from_secs(2);

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

/// The messages of an answer; never none.
pub(crate) type Answers = Vec<Vec<u8>>;

/// Whether an answer comes to an end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It ends; one that does not is `DEADLINE_EXCEEDED`.
    Ends,
    /// It is listened to for a while after its first message.
    GoesOn,
}

/// Calls an rpc with the messages in `json`, one document after the other, and
/// the end of the request; gives all that it answers, or the status. An answer
/// without any message is `DATA_LOSS`.
pub(crate) async fn call(
    channel: &Channel,
    method: &MethodDescriptor,
    key: Option<&str>,
    json: &str,
    answer: Answer,
) -> Result<Answers, Status> {
    let mut request = Request::new(tokio_stream::iter(encoded(method, json)));
    request.set_timeout(DEADLINE);
    if let Some(key) = key {
        request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    }
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let path = path(method).parse().unwrap();
    let mut stream = grpc.streaming(request, path, BytesCodec).await?.into_inner();
    let mut all = Vec::new();
    let listen = async {
        while let Some(message) = stream.message().await? {
            all.push(message);
            if answer == Answer::GoesOn {
                break;
            }
        }
        Ok::<_, Status>(())
    };
    // The server's deadline should be first.
    tokio::time::timeout(DEADLINE + Duration::from_secs(10), listen)
        .await
        .map_err(|_| Status::deadline_exceeded("the answer did not end"))??;
    if answer == Answer::GoesOn && !all.is_empty() {
        let more = async {
            while let Some(message) = stream.message().await? {
                all.push(message);
            }
            Err::<(), _>(Status::data_loss("a stream that should go on has ended"))
        };
        if let Ok(ended) = tokio::time::timeout(LISTEN, more).await {
            ended?;
        }
    }
    if all.is_empty() {
        return Err(Status::data_loss("the call ended with OK and without a message"));
    }
    Ok(all)
}

fn encoded(method: &MethodDescriptor, json: &str) -> Vec<Bytes> {
    let mut messages = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(json);
    loop {
        let message = DynamicMessage::deserialize(method.input(), &mut deserializer)
            .unwrap_or_else(|error| panic!("{}: {error}: {json}", path(method)));
        messages.push(message.encode_to_vec().into());
        if deserializer.end().is_ok() {
            return messages;
        }
    }
}

/// Whether some message of an answer has what `wanted` says: the path of a
/// field that must be set and not be empty, `sandbox.name`, and perhaps how it
/// must begin as JSON, `text="x`. An empty path wants any message.
pub(crate) fn shows(method: &MethodDescriptor, answers: &Answers, wanted: &str) -> bool {
    let (field, start) = wanted.split_once('=').unwrap_or((wanted, ""));
    answers.iter().any(|bytes| {
        let message = DynamicMessage::decode(method.output(), bytes.as_slice())
            .unwrap_or_else(|error| panic!("{}: {error}", path(method)));
        // As JSON a field that is not set, or empty, is not there at all.
        let json = serde_json::to_value(&message).unwrap();
        let mut place = Some(&json);
        for name in field.split('.').filter(|name| !name.is_empty()) {
            place = place.and_then(|value: &Value| value.get(name));
        }
        place.is_some_and(|value| value.to_string().starts_with(start))
    })
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

#[test]
fn an_answer_shows_only_what_is_in_it() {
    use wolfpack_proto::sandbox::v1 as pb;
    let methods = methods(&pool());
    let exec = methods.iter().find(|it| path(it).ends_with("SandboxIoService/Exec")).unwrap();
    let output = |output| {
        let output = pb::ExecOutput { output: Some(output) };
        let frame = Some(pb::exec_response::Frame::Output(output));
        vec![pb::ExecResponse { frame }.encode_to_vec()]
    };
    let exit = |code| pb::exec_output::Output::Exit(pb::ExecExit { code, ..Default::default() });
    let wrote = pb::exec_output::Output::Stdout(pb::ExecChunk::default());
    assert!(shows(exec, &output(exit(0)), "output.exit={}"));
    assert!(!shows(exec, &output(exit(7)), "output.exit={}"));
    assert!(!shows(exec, &output(wrote), "output.exit"));
    let shot = methods.iter().find(|it| path(it).ends_with("DesktopService/GetScreenshot"));
    let empty = vec![pb::GetScreenshotResponse { width: 7, ..Default::default() }.encode_to_vec()];
    assert!(!shows(shot.unwrap(), &empty, "image"));
    assert!(shows(shot.unwrap(), &empty, ""));
}
