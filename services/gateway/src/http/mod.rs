//! What is plain HTTP: for curl, probes and scrapers.

pub(crate) mod error;
pub mod metrics_page;
mod screenshot;

use axum::extract::State;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use wolfpack_rpc::client::RpcChannel;
use wolfpack_rpc::error::to_status;
use wolfpack_runtime::Telemetry;
use wolfpack_types::{Fault, Reason};

use crate::health::HealthBoard;
use error::HttpError;

/// What the handlers need.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) health: HealthBoard,
    /// With the deadline of a screenshot.
    pub(crate) sandbox_manager: RpcChannel,
    /// Whose metrics are shown.
    pub(crate) telemetry: Vec<Telemetry>,
}

/// What users reach.
pub(crate) fn public(parts: Parts) -> Router {
    finish(
        Router::new()
            .route("/healthz", get(healthz))
            .route("/v1/sandboxes/{id}/screenshot", get(screenshot::get))
            .with_state(parts),
    )
}

/// What this machine reaches: all that users do, and metrics.
pub(crate) fn local(parts: Parts) -> Router {
    finish(
        Router::new()
            .route("/healthz", get(healthz))
            .route("/metrics", get(metrics))
            .route("/v1/sandboxes/{id}/screenshot", get(screenshot::get))
            .with_state(parts),
    )
}

/// What operators reach.
pub(crate) fn admin(parts: Parts) -> Router {
    finish(
        Router::new()
            .route("/healthz", get(healthz))
            .route("/metrics", get(metrics))
            .with_state(parts),
    )
}

fn finish(router: Router) -> Router {
    router
        .fallback(nothing_here)
        .method_not_allowed_fallback(|| async {
            let fault = Fault::new(Reason::RouteNotFound, "this path takes GET only; use GET");
            HttpError::from(fault).with_status(StatusCode::METHOD_NOT_ALLOWED)
        })
        .layer(map_response(headers))
}

/// On every answer that is not gRPC: it is read as what it says, by whom it is
/// for, and kept by nobody.
async fn headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn healthz(State(parts): State<Parts>) -> Response {
    let serving = parts.health.is_serving();
    let word = |serves: bool| if serves { "serving" } else { "not_serving" };
    let services: serde_json::Map<String, serde_json::Value> = parts
        .health
        .upstreams()
        .into_iter()
        .map(|(upstream, serves)| (upstream.name().to_owned(), json!(word(serves))))
        .collect();
    let status = if serving { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "status": word(serving), "services": services }))).into_response()
}

async fn metrics(State(parts): State<Parts>) -> Response {
    let texts: Vec<(&str, String)> = parts
        .telemetry
        .iter()
        .map(|telemetry| (telemetry.service_name(), telemetry.prometheus()))
        .collect();
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], metrics_page::page(&texts)).into_response()
}

async fn nothing_here(request: Request<axum::body::Body>) -> Response {
    let fault = Fault::new(
        Reason::RouteNotFound,
        "there is nothing at this path; ask the reflection service for the rpcs that are served",
    );
    let grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if !grpc {
        return HttpError::from(fault).into_response();
    }
    // gRPC clients know an rpc that is not there by this code.
    let status = to_status(fault);
    let status = tonic::Status::with_details(
        tonic::Code::Unimplemented,
        status.message(),
        status.details().to_vec().into(),
    );
    status.into_http::<axum::body::Body>()
}
