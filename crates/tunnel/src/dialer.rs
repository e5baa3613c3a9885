//! The caller's side: a byte stream to a target of an endpoint.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use prost::Message as _;
use tonic::Status;
use tower_service::Service as _;
use wolfpack_proto::tunnel::v1::{
    DialOpen, DialRequest, DialResponse, dial_request, dial_response,
};
use wolfpack_rpc::client::Bearer;
use wolfpack_rpc::error::from_status;
use wolfpack_rpc::{RequestCut, RpcChannel};
use wolfpack_types::{Endpoint, Fault, Reason, Target};

use crate::grpc;
use crate::protocol::{DataMode, MAX_EARLY_DATA, encode};
use crate::stream::{ByteStream, Incoming, Item, Pipe, Take, byte_stream_io, reset};

/// How much longer than the broker we wait, so that its own answer arrives.
const GRACE: Duration = Duration::from_millis(500);

/// How long a channel waits for its connection.
const CHANNEL_DIAL: Duration = Duration::from_secs(10);

/// Opens connections through a broker; cheap to clone.
#[derive(Clone)]
pub struct Dialer {
    broker: RpcChannel,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialer")
    }
}

impl Dialer {
    /// A dialer that uses this channel to a broker.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "the channel becomes the dialer's own")]
    pub fn new(broker: RpcChannel) -> Self {
        Self { broker: broker.without_deadline() }
    }

    /// The same dialer for another caller: the broker decides by this credential.
    #[must_use]
    pub fn with_bearer(&self, bearer: impl Into<Bearer>) -> Self {
        Self { broker: self.broker.with_bearer(bearer) }
    }

    /// Opens a connection. Waits up to `timeout` for an endpoint that is away
    /// and for the target; dropping the future takes the dial back.
    ///
    /// # Errors
    /// Those of `DialService.Dial`: `ENDPOINT_NOT_FOUND`, `TARGET_FORBIDDEN`,
    /// `TARGET_UNREACHABLE`, `DIAL_TIMEOUT`, `DIALS_LIMITED`,
    /// `BROKER_DRAINING`, or that of a broker that cannot be reached.
    pub async fn dial(
        &self,
        endpoint: &Endpoint,
        target: &Target,
        timeout: Duration,
    ) -> Result<TunnelStream, Fault> {
        self.dial_with(endpoint, target, timeout, Bytes::new()).await
    }

    /// As [`Dialer::dial`], with first bytes (at most 16 KiB) that reach the
    /// target together with the connection.
    ///
    /// # Errors
    /// As [`Dialer::dial`]; `REQUEST_INVALID` for more early data.
    pub async fn dial_with(
        &self,
        endpoint: &Endpoint,
        target: &Target,
        timeout: Duration,
        mut early_data: Bytes,
    ) -> Result<TunnelStream, Fault> {
        self.dial_keeping(endpoint, target, timeout, &mut early_data).await
    }

    /// As [`Dialer::dial_with`]; `early_data` is taken when the dial leaves for
    /// the broker. What is still there after a failure has reached nobody: the
    /// dial may be made again without anything being said twice.
    ///
    /// # Errors
    /// As [`Dialer::dial_with`].
    pub async fn dial_keeping(
        &self,
        endpoint: &Endpoint,
        target: &Target,
        timeout: Duration,
        early_data: &mut Bytes,
    ) -> Result<TunnelStream, Fault> {
        if early_data.len() > MAX_EARLY_DATA {
            return Err(Fault::new(
                Reason::RequestInvalid,
                "early data is at most 16 KiB; send the rest after",
            ));
        }
        let open = DialOpen {
            endpoint: endpoint.to_string(),
            target: target.to_string(),
            early_data: early_data.clone(),
            timeout: prost_types::Duration::try_from(timeout).ok(),
        };
        let late = || {
            Fault::new(Reason::DialTimeout, "the target was not reached in time; try again later")
                .about(endpoint.to_string())
        };
        let left = Arc::new(AtomicBool::new(false));
        let opened = tokio::time::timeout(timeout + GRACE, self.open(open, left.clone())).await;
        if left.load(Ordering::Acquire) {
            *early_data = Bytes::new();
        }
        opened.map_err(|_| late())?
    }

    /// gRPC over a connection that is dialed at the first call, and again after
    /// each loss; a dial waits at most 10 s. A call's own deadline still bounds
    /// it.
    #[must_use]
    pub fn channel(&self, endpoint: Endpoint, target: Target) -> RpcChannel {
        self.channel_within(endpoint, target, CHANNEL_DIAL)
    }

    /// As [`Dialer::channel`] with another bound for a dial.
    #[must_use]
    pub fn channel_within(
        &self,
        endpoint: Endpoint,
        target: Target,
        timeout: Duration,
    ) -> RpcChannel {
        let dialer = self.clone();
        let peer = format!("{endpoint}/{target}");
        RpcChannel::over(&peer, move || {
            let (dialer, endpoint, target) = (dialer.clone(), endpoint.clone(), target.clone());
            async move { dialer.dial(&endpoint, &target, timeout).await }
        })
    }

    /// `left` is set when the request leaves.
    async fn open(&self, open: DialOpen, left: Arc<AtomicBool>) -> Result<TunnelStream, Fault> {
        let open = DialRequest { frame: Some(dial_request::Frame::Open(open)) };
        let pipe = Arc::new(Pipe::default());
        let mut unclaimed = Unclaimed(Some(pipe.clone()));
        let cut = RequestCut::default();
        let body = DialBody {
            first: Some(encode::message(&open)),
            left,
            pipe: pipe.clone(),
            cut: Some(cut.clone()),
            finished: false,
        };
        let mut request = grpc::request(grpc::DIAL_PATH, body);
        request.extensions_mut().insert(cut.clone());
        let response =
            self.broker.clone().call(request).await.map_err(|status| from_status(&status))?;
        if let Some(status) = grpc::failure(response.headers()) {
            return Err(from_status(&status));
        }
        let mut incoming = Incoming::new(response.into_body(), DataMode::Payload);
        match incoming.next().await {
            Ok(Item::Message(bytes)) => {
                match DialResponse::decode(bytes).ok().and_then(|message| message.frame) {
                    Some(dial_response::Frame::Opened(opened)) => {
                        unclaimed.0 = None;
                        Ok(TunnelStream {
                            stream: ByteStream::cutting(incoming, Bytes::new(), pipe, cut),
                            connection_id: opened.connection_id,
                        })
                    }
                    _ => Err(reset("the broker sent another frame than opened")),
                }
            }
            Ok(Item::Data(_)) => Err(reset("the broker sent data before opened")),
            Ok(Item::End(Some(status))) => Err(from_status(&status)),
            Ok(Item::End(None)) => Err(reset("the broker ended the call without a status")),
            Err(error) => Err(reset("the call to the broker broke").caused_by(error)),
        }
    }
}

/// A call that nobody holds yet: dropping it ends the call.
struct Unclaimed(Option<Arc<Pipe>>);

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(pipe) = self.0.take() {
            pipe.close();
        }
    }
}

/// A connection to a target.
///
/// `shutdown` half-closes and the other direction goes on. Dropping the stream
/// before it was read to its end takes the connection back: what was written
/// last may be lost, as on a socket that is closed with bytes unread. A connection that breaks is an
/// `io::Error` around a [`Fault`], never an end of file.
#[derive(Debug)]
pub struct TunnelStream {
    stream: ByteStream,
    connection_id: String,
}

impl TunnelStream {
    /// The connection, as it is named in logs of the broker and the agent.
    #[must_use]
    pub fn connection_id(&self) -> &str {
        &self.connection_id
    }

    /// Ends the connection with nothing lost: sends what was written and a fin,
    /// passes over what was not read, and waits until the target has taken all
    /// of it and has finished, too. As long as the target does not, this does not
    /// return; cancelling it takes the connection back.
    ///
    /// # Errors
    /// When the connection broke before that: what was written last may be lost.
    pub async fn close(mut self) -> std::io::Result<()> {
        self.stream.shutdown()?;
        std::future::poll_fn(|cx| self.stream.poll_end(cx)).await
    }
}

byte_stream_io!(TunnelStream);

/// The body of a Dial request.
struct DialBody {
    first: Option<Bytes>,
    left: Arc<AtomicBool>,
    pipe: Arc<Pipe>,
    /// Until it knows who polls it.
    cut: Option<RequestCut>,
    finished: bool,
}

impl Body for DialBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.cut.as_ref().is_some_and(RequestCut::polled) {
            self.cut = None;
        }
        if let Some(first) = self.first.take() {
            self.left.store(true, Ordering::Release);
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if self.finished {
            return Poll::Ready(None);
        }
        match ready!(self.pipe.poll_take(cx)) {
            Take::Data(frame) => Poll::Ready(Some(Ok(Frame::data(frame)))),
            Take::Fin => {
                self.finished = true;
                Poll::Ready(Some(Ok(Frame::data(encode::FIN))))
            }
            Take::Abort => {
                self.finished = true;
                Poll::Ready(Some(Err(grpc::cancelled())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.finished
    }
}

impl Drop for DialBody {
    fn drop(&mut self) {
        if !self.finished {
            self.pipe.break_with(reset("the connection was ended by the tunnel"));
        }
    }
}
