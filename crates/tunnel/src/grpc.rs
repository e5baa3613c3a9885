//! The little of gRPC over HTTP that the streams written by hand need.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, header};
use tonic::Status;
use tonic::body::Body;
use wolfpack_rpc::error::to_status;
use wolfpack_types::Fault;

/// Path of `AgentTunnelService.Attach`.
pub const ATTACH_PATH: &str = "/wolfpack.tunnel.v1.AgentTunnelService/Attach";
/// Path of `AgentTunnelService.Carry`.
pub const CARRY_PATH: &str = "/wolfpack.tunnel.v1.AgentTunnelService/Carry";
/// Path of `DialService.Dial`.
pub const DIAL_PATH: &str = "/wolfpack.tunnel.v1.DialService/Dial";

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// A request with a body that makes its own frames.
pub(crate) fn request<B>(path: &'static str, body: B) -> Request<Body>
where
    B: http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
{
    let mut request = Request::new(Body::new(body));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from_static(path);
    request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    request.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    request
}

/// A response with a body that makes its own frames and trailers.
pub fn response<B>(body: B) -> Response<Body>
where
    B: http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
{
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    response
}

/// A response that only fails.
#[must_use]
pub fn refusal(fault: Fault) -> Response<Body> {
    to_status(fault).into_http()
}

/// The trailers of a stream that ended well.
pub(crate) fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

/// The trailers of a stream that failed.
pub(crate) fn fault_trailers(fault: Fault) -> HeaderMap {
    let status = to_status(fault);
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // Details that are no header value: the code alone still tells.
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from(i32::from(status.code())));
    }
    trailers
}

/// An error that resets the stream with CANCEL, as a gRPC client does that
/// gives a call up. What was not sent yet is dropped.
pub(crate) fn cancelled() -> Status {
    let mut status = Status::cancelled("the connection was given up");
    status.set_source(Arc::new(h2::Error::from(h2::Reason::CANCEL)));
    status
}

/// The failure that a response carries in its headers, if it carries one.
pub(crate) fn failure(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers).filter(|status| status.code() != tonic::Code::Ok)
}
