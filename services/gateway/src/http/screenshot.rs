//! `GET /v1/sandboxes/{id}/screenshot`, for curl.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use tonic::Request;
use wolfpack_proto::sandbox::v1::desktop_service_client::DesktopServiceClient;
use wolfpack_proto::sandbox::v1::{GetScreenshotRequest, TunnelPath};
use wolfpack_rpc::error::from_status;
use wolfpack_types::{Fault, Reason, SandboxId};

use super::Parts;
use super::error::HttpError;
use crate::proxy::credential_missing;

/// An uncompressed 8K screen and something.
const LARGEST: usize = 160 * 1024 * 1024;
/// Which tunnel the picture came through.
const VIA: HeaderName = HeaderName::from_static("wolfpack-via");

/// The picture, asked for with the caller's own bearer.
pub(super) async fn get(
    State(parts): State<Parts>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let bearer = headers.get(header::AUTHORIZATION).ok_or_else(credential_missing)?;
    let bearer = bearer.to_str().ok().and_then(|value| value.parse().ok()).ok_or_else(|| {
        Fault::new(
            Reason::ApiKeyInvalid,
            "the authorization header cannot be read; check how the key was copied",
        )
    })?;
    let id = SandboxId::parse(&id).map_err(Fault::from)?;
    let mut request = Request::new(GetScreenshotRequest { sandbox: id.name() });
    request.metadata_mut().insert("authorization", bearer);
    let mut client =
        DesktopServiceClient::new(parts.sandbox_manager).max_decoding_message_size(LARGEST);
    let shot =
        client.get_screenshot(request).await.map_err(|status| from_status(&status))?.into_inner();
    let via = match shot.via() {
        TunnelPath::Sandbox => "sandbox",
        TunnelPath::Wolf => "wolf",
        TunnelPath::Unspecified => "unknown",
    };
    // Only pictures: whatever a sandbox calls its bytes, a browser must not
    // take them for a page of this origin.
    let kind = HeaderValue::from_static("image/png");
    let headers = [(header::CONTENT_TYPE, kind), (VIA, HeaderValue::from_static(via))];
    Ok((headers, shot.image).into_response())
}
