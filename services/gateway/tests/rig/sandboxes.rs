//! Ports of sandboxes behind a broker that is a fake: each is a socket of this
//! machine, dialed for whom the real broker would dial it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use futures::{Stream, StreamExt as _};
use jsonwebtoken::EncodingKey;
use parking_lot::Mutex;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use wolfpack_proto::tunnel::v1::*;
use wolfpack_rpc::auth::LinkClaims;
use wolfpack_rpc::error::to_status;
use wolfpack_types::{Fault, Principal, ProjectId, Reason, SandboxId, UserId};

/// The registry's signing key.
static SIGNING: LazyLock<(EncodingKey, [u8; 32])> = LazyLock::new(|| {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let public = pair.public_key().as_ref().try_into().unwrap();
    (EncodingKey::from_ed_der(pkcs8.as_ref()), public)
});

/// A link as the registry signs it; `age` is for how long it is over, or less.
pub fn link(sandbox: &str, port: u16, life: Duration, age: Duration) -> String {
    let (sandbox, project) = (SandboxId::parse(sandbox).unwrap(), ProjectId::new());
    let began = SystemTime::now() - age;
    LinkClaims::new(&sandbox, port, &project, &UserId::new(), began, life)
        .sign("k", &SIGNING.0)
        .unwrap()
}

pub fn verify(link: &str) -> Result<Principal, Fault> {
    LinkClaims::verify(link, &SIGNING.1)?.principal()
}

/// The ports there are, and who was let to them.
#[derive(Clone, Default)]
pub struct Sandboxes(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    ports: HashMap<(String, u16), SocketAddr>,
    dialed: Vec<String>,
    refusing: Option<Fault>,
}

type Answers = Pin<Box<dyn Stream<Item = Result<DialResponse, Status>> + Send>>;

impl Sandboxes {
    /// A port of a sandbox of ada's project.
    pub fn listen(&self, sandbox: &str, port: u16, at: SocketAddr) {
        self.0.lock().ports.insert((sandbox.to_owned(), port), at);
    }

    /// Who dialed, in order.
    pub fn dialed(&self) -> Vec<String> {
        self.0.lock().dialed.clone()
    }

    /// Refuses all dials from now on.
    pub fn refuse(&self, fault: Fault) {
        self.0.lock().refusing = Some(fault);
    }

    pub(super) async fn dial(
        &self,
        caller: &Principal,
        open: &DialOpen,
        frames: Streaming<DialRequest>,
    ) -> Result<Answers, Fault> {
        let refusing = self.0.lock().refusing.clone();
        if let Some(fault) = refusing {
            return Err(fault);
        }
        let sandbox = open.endpoint.strip_prefix("sandboxes/").unwrap().to_owned();
        let port: u16 = open.target.strip_prefix("tcp:").unwrap().parse().unwrap();
        let theirs = match caller {
            Principal::User { user, .. } => user.as_str() == "ada",
            Principal::Link { sandbox: its, .. } => its.as_str() == sandbox,
            _ => false,
        };
        let known = self.0.lock().ports.keys().any(|(id, _)| *id == sandbox);
        if !theirs || !known {
            return Err(Fault::new(Reason::EndpointNotFound, "there is no such endpoint"));
        }
        if let Principal::Link { port: its, .. } = caller
            && *its != port
        {
            return Err(Fault::new(Reason::TargetForbidden, "not what this link opens"));
        }
        let at = self.0.lock().ports.get(&(sandbox, port)).copied();
        let refused = || Fault::new(Reason::TargetUnreachable, "connection refused");
        let socket = match at {
            Some(at) => TcpStream::connect(at).await.map_err(|_| refused())?,
            None => return Err(refused()),
        };
        self.0.lock().dialed.push(caller.to_string());
        Ok(carry(socket, frames))
    }
}

/// Bytes both ways, each direction to its own end. A socket that breaks ends the
/// call with an error, and the end of the call breaks the socket.
fn carry(socket: TcpStream, mut frames: Streaming<DialRequest>) -> Answers {
    use dial_request::Frame as Sent;
    use dial_response::Frame;
    let (sender, receiver) = mpsc::channel(1);
    let answer = |frame| Ok(DialResponse { frame: Some(frame) });
    let opened = DialOpened { connection_id: "c".to_owned() };
    let (mut read, mut write) = socket.into_split();
    let up = tokio::spawn(async move {
        while let Ok(Some(message)) = frames.message().await {
            let sent = match message.frame {
                Some(Sent::Data(data)) => write.write_all(&data).await,
                Some(Sent::Fin(_)) => {
                    let _ = write.shutdown().await;
                    std::future::pending().await
                }
                _ => Ok(()),
            };
            if sent.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        let _ = sender.send(answer(Frame::Opened(opened))).await;
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let read = tokio::select! {
                read = read.read(&mut buffer) => read,
                () = sender.closed() => break,
            };
            let (message, over) = match read {
                Ok(0) => (answer(Frame::Fin(Fin {})), true),
                Ok(n) => (answer(Frame::Data(buffer[..n].to_vec().into())), false),
                Err(_) => {
                    let fault = Fault::new(Reason::ConnectionReset, "the target broke it");
                    (Err(to_status(fault)), true)
                }
            };
            if sender.send(message).await.is_err() || over {
                break;
            }
        }
        // The caller may still send after the target's end.
        sender.closed().await;
        up.abort();
    });
    ReceiverStream::new(receiver).boxed()
}
