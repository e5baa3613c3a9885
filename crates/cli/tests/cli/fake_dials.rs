//! A broker whose targets behave as their ports say.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use wolfpack_proto::tunnel::v1::dial_service_server::DialService;
use wolfpack_proto::tunnel::v1::{
    DialOpened, DialRequest, DialResponse, Fin, dial_request, dial_response,
};
use wolfpack_types::Reason;

use crate::fake_gateway::{Answers, fault};

/// What was dialed, and how it went.
#[derive(Clone, Default)]
pub(crate) struct Dials {
    /// How each connection ended, as the target saw it.
    ends: Arc<Mutex<Vec<String>>>,
    /// What each dial came by.
    callers: Arc<Mutex<Vec<SocketAddr>>>,
    /// Why nobody is there to dial, where that is so.
    away: Arc<Mutex<Option<Reason>>>,
}

impl Dials {
    pub(crate) fn ends(&self) -> Vec<String> {
        self.ends.lock().unwrap().clone()
    }

    pub(crate) fn callers(&self) -> Vec<SocketAddr> {
        self.callers.lock().unwrap().clone()
    }

    pub(crate) fn all_fail(&self, why: Option<Reason>) {
        *self.away.lock().unwrap() = why;
    }
}

fn frame(frame: dial_response::Frame) -> Result<DialResponse, Status> {
    Ok(DialResponse { frame: Some(frame) })
}

#[tonic::async_trait]
impl DialService for Dials {
    type DialStream = Answers<DialResponse>;

    async fn dial(
        &self,
        request: Request<Streaming<DialRequest>>,
    ) -> Result<Response<Self::DialStream>, Status> {
        self.callers.lock().unwrap().extend(request.remote_addr());
        let mut requests = request.into_inner();
        let Some(DialRequest { frame: Some(dial_request::Frame::Open(open)) }) =
            requests.message().await?
        else {
            return Err(fault(Reason::FirstMessageMissing));
        };
        if let Some(why) = *self.away.lock().unwrap() {
            return Err(fault(why));
        }
        match open.target.as_str() {
            "tcp:403" => return Err(fault(Reason::TargetForbidden)),
            "tcp:503" => return Err(fault(Reason::TargetUnreachable)),
            _ => {}
        }
        let (send, answers) = mpsc::channel(4);
        let ends = self.ends.clone();
        tokio::spawn(async move {
            let mut requests = Caller { early: open.early_data, requests };
            let end = match open.target.as_str() {
                "tcp:1" => echo(&mut requests, &send).await,
                "tcp:2" => count(&mut requests, &send).await,
                "tcp:5" => early(&mut requests, &send).await,
                _ => break_off(&mut requests, &send).await,
            };
            ends.lock().unwrap().push(format!("{} {end}", open.target));
        });
        let opened =
            frame(dial_response::Frame::Opened(DialOpened { connection_id: "c".to_owned() }));
        let answers = futures::stream::iter([opened]).chain(ReceiverStream::new(answers));
        Ok(Response::new(answers.boxed()))
    }
}

type Sender = mpsc::Sender<Result<DialResponse, Status>>;

/// What the caller sends.
struct Caller {
    early: Bytes,
    requests: Streaming<DialRequest>,
}

/// The next bytes; none after the fin, an error when the caller gave up.
async fn next(caller: &mut Caller) -> Result<Option<Bytes>, &'static str> {
    if !caller.early.is_empty() {
        return Ok(Some(std::mem::take(&mut caller.early)));
    }
    match caller.requests.message().await {
        Ok(Some(DialRequest { frame: Some(dial_request::Frame::Data(data)) })) => Ok(Some(data)),
        Ok(Some(DialRequest { frame: Some(dial_request::Frame::Fin(_)) })) => Ok(None),
        _ => Err("given up"),
    }
}

/// Gives everything back, and finishes after the caller has.
async fn echo(requests: &mut Caller, send: &Sender) -> &'static str {
    loop {
        match next(requests).await {
            Ok(Some(data)) => {
                let _ = send.send(frame(dial_response::Frame::Data(data))).await;
            }
            Ok(None) => {
                let _ = send.send(frame(dial_response::Frame::Fin(Fin {}))).await;
                return "finished";
            }
            Err(end) => return end,
        }
    }
}

/// Says how much it got, once the caller has finished.
async fn count(requests: &mut Caller, send: &Sender) -> &'static str {
    let mut count = 0;
    loop {
        match next(requests).await {
            Ok(Some(data)) => count += data.len(),
            Ok(None) => {
                let told = Bytes::from(count.to_string());
                let _ = send.send(frame(dial_response::Frame::Data(told))).await;
                let _ = send.send(frame(dial_response::Frame::Fin(Fin {}))).await;
                return "finished";
            }
            Err(end) => return end,
        }
    }
}

/// Says at once how much came with the dial, and then how much came in all.
async fn early(requests: &mut Caller, send: &Sender) -> &'static str {
    let told = Bytes::from(format!("{} ", requests.early.len()));
    let _ = send.send(frame(dial_response::Frame::Data(told))).await;
    count(requests, send).await
}

/// Breaks after the first bytes.
async fn break_off(requests: &mut Caller, send: &Sender) -> &'static str {
    match next(requests).await {
        Ok(_) => {
            let _ = send.send(frame(dial_response::Frame::Data("half".into()))).await;
            let _ = send.send(Err(fault(Reason::ConnectionReset))).await;
            "broken"
        }
        Err(end) => end,
    }
}
