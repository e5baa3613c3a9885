//! A request and its answer over a connection to the target.

use std::error::Error;
use std::io;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use wolfpack_tunnel::{Destination, Dial};
use wolfpack_types::{Endpoint, Fault, Reason, Target};

use super::Inner;
use super::address::{Address, BY_ID};
use super::body::{Outgoing, Upload};
use super::credential::Credential;
use super::pool::{Key, Sender};

/// What is read of a target ahead, at most, and the most its headers may take.
const READ_AHEAD: usize = 128 * 1024;

/// A target for one caller.
pub(super) struct Way<'a> {
    pub(super) key: Arc<Key>,
    pub(super) credential: &'a Credential,
}

impl<'a> Way<'a> {
    pub(super) fn of(credential: &'a Credential, address: &Address) -> Self {
        let (sandbox, port) = (address.sandbox.clone(), address.port);
        Self { key: Arc::new(Key { who: credential.digest(), sandbox, port }), credential }
    }
}

impl<D: Dial> Inner<D> {
    /// Sends a request over a connection that waits, or over a fresh one. A
    /// request that met a connection at its end goes once more when the target
    /// cannot have got it, or may get it twice and there is no body.
    pub(super) async fn send(
        &self,
        way: &Way<'_>,
        mut request: Request<Outgoing>,
        may_reuse: bool,
    ) -> Result<(Response<Incoming>, Sender), Fault> {
        let upload = request.body().upload();
        if may_reuse && let Some(mut sender) = self.pool.take(&way.key) {
            self.metrics.reused();
            let again = repeatable(&request);
            let answer = sender.requests().try_send_request(request);
            match self.in_time(answer, upload.as_deref()).await? {
                Ok(response) => return Ok((response, sender)),
                Err(mut failed) => match (failed.take_message(), again) {
                    (Some(unsent), _) => request = unsent,
                    (None, Some(again)) if at_its_end(failed.error()) => request = again,
                    _ => return Err(broken(failed.into_error(), way.key.port)),
                },
            }
        }
        let mut sender = self.connect(way).await?;
        let answer = sender.requests().send_request(request);
        match self.in_time(answer, upload.as_deref()).await? {
            Ok(response) => Ok((response, sender)),
            Err(error) => Err(broken(error, way.key.port)),
        }
    }

    /// Finds out whether a credential is let in, which only the broker can say, by
    /// a connection: it waits a moment for the request that follows.
    ///
    /// # Errors
    /// As the broker refuses it. That nothing listens is no refusal: whoever is
    /// told so was let in.
    pub(super) async fn verify(&self, way: &Way<'_>) -> Result<(), Fault> {
        if self.pool.has(&way.key) {
            return Ok(());
        }
        match self.connect(way).await {
            Ok(sender) => self.pool.give(Arc::clone(&way.key), sender, false),
            Err(fault) if fault.reason == Reason::TargetUnreachable => {}
            Err(fault) => return Err(fault),
        }
        Ok(())
    }

    /// Waits for the head of an answer. The time is that of a target which keeps
    /// still: while it takes the body it begins anew.
    async fn in_time<T>(
        &self,
        answer: impl Future<Output = T>,
        upload: Option<&Upload>,
    ) -> Result<T, Fault> {
        let limit = self.config.answer_timeout;
        let mut answer = std::pin::pin!(answer);
        let mut seen = 0;
        loop {
            match tokio::time::timeout(limit, answer.as_mut()).await {
                Ok(answer) => return Ok(answer),
                Err(_) => {
                    let now = upload.map_or(0, Upload::frames);
                    if now == seen {
                        return Err(late(limit));
                    }
                    seen = now;
                }
            }
        }
    }

    async fn connect(&self, way: &Way<'_>) -> Result<Sender, Fault> {
        let dialed = self.dialer.dial(Destination {
            endpoint: Endpoint::Sandbox(way.key.sandbox.clone()),
            target: Target::tcp(way.key.port),
            timeout: self.config.dial_timeout,
            early_data: Bytes::new(),
            credential: Some(way.credential.bearer()),
        });
        let dialed = dialed.await;
        self.metrics.dialed(dialed.as_ref().map_or_else(|fault| fault.reason.as_str(), |_| "OK"));
        let io = TokioIo::new(dialed.map_err(|fault| unreachable(fault, way.key.port))?);
        let mut builder = http1::Builder::new();
        builder.max_buf_size(READ_AHEAD);
        let (sender, connection) =
            builder.handshake(io).await.map_err(|error| broken(error, way.key.port))?;
        // It ends when nobody sends on it or reads of it any more.
        self.supervisor.spawn("gateway.ingress.connection", async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to a target ended");
            }
        });
        Ok(Sender::new(sender))
    }
}

/// The same request once more, if it may be sent twice.
fn repeatable(request: &Request<Outgoing>) -> Option<Request<Outgoing>> {
    let idempotent = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    );
    if !idempotent || !request.body().is_end_stream() {
        return None;
    }
    let mut again = Request::new(Outgoing::none());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

/// Whether a connection was over when a request came to it: nothing of an answer
/// was there.
fn at_its_end(error: &hyper::Error) -> bool {
    error.is_closed() || error.is_incomplete_message() || error.is_canceled() || io_of(error)
}

fn io_of(error: &hyper::Error) -> bool {
    error.source().is_some_and(<dyn Error>::is::<io::Error>)
}

fn late(limit: Duration) -> Fault {
    Fault::new(
        Reason::DeadlineExceeded,
        format!("the program in the sandbox did not answer within {limit:?}; see what it does"),
    )
}

/// In the words of whoever looks at a port.
fn unreachable(fault: Fault, port: NonZeroU16) -> Fault {
    let words = match fault.reason {
        Reason::TargetUnreachable => {
            format!("nothing listens on port {port} in the sandbox; start a server there")
        }
        // What was written may well be the name that people call it by.
        Reason::EndpointNotFound => {
            format!("no sandbox with this id runs any more, or it is not yours; {BY_ID}")
        }
        _ => return fault,
    };
    Fault { message: words, ..fault }
}

/// Why there is no answer, when the connection was there.
fn broken(error: hyper::Error, port: NonZeroU16) -> Fault {
    if let Some(fault) = fault_in(&error) {
        return fault.clone();
    }
    let words = if error.is_parse() {
        format!("what listens on port {port} in the sandbox does not speak HTTP/1.1")
    } else {
        format!("the program on port {port} of the sandbox closed the connection unanswered")
    };
    Fault::new(Reason::ConnectionReset, words).caused_by(error)
}

/// The fault that a tunnel gave for a connection that broke.
fn fault_in<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Fault> {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(fault) = error.downcast_ref::<Fault>() {
            return Some(fault);
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        at = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
