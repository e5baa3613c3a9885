//! `DesktopService`. All three calls are harmless to repeat, so both tunnels
//! may carry one.

use std::time::Duration;

use tonic::{Request, Response, Status};
use wolfpack_proto::agent::v1 as agent;
use wolfpack_proto::sandbox::v1::desktop_service_server::DesktopService;
use wolfpack_proto::sandbox::v1::{
    GetClipboardRequest, GetClipboardResponse, GetScreenshotRequest, GetScreenshotResponse,
    SetClipboardRequest, SetClipboardResponse,
};
use wolfpack_rpc::{Caller, checked, to_status};
use wolfpack_types::Role;

use super::Api;

/// How long a call may take that has no deadline.
const DEADLINE: Duration = Duration::from_secs(30);

#[tonic::async_trait]
impl DesktopService for Api {
    async fn get_screenshot(
        &self,
        request: Request<GetScreenshotRequest>,
    ) -> Result<Response<GetScreenshotResponse>, Status> {
        let (caller, message) = checked(request)?;
        let (route, left) = self.desktop(&caller, &message.sandbox).await?;
        let (picture, via) = self
            .parts
            .reach
            .call(&route, left, |mut to| async move {
                to.get_screenshot(agent::GetScreenshotRequest {}).await.map(Response::into_inner)
            })
            .await
            .map_err(to_status)?;
        Ok(Response::new(GetScreenshotResponse {
            image: picture.image,
            media_type: "image/png".to_owned(),
            width: picture.width,
            height: picture.height,
            via: via.into(),
        }))
    }

    async fn get_clipboard(
        &self,
        request: Request<GetClipboardRequest>,
    ) -> Result<Response<GetClipboardResponse>, Status> {
        let (caller, message) = checked(request)?;
        let (route, left) = self.desktop(&caller, &message.sandbox).await?;
        let (clipboard, via) = self
            .parts
            .reach
            .call(&route, left, |mut to| async move {
                to.get_clipboard(agent::GetClipboardRequest {}).await.map(Response::into_inner)
            })
            .await
            .map_err(to_status)?;
        Ok(Response::new(GetClipboardResponse { text: clipboard.text, via: via.into() }))
    }

    async fn set_clipboard(
        &self,
        request: Request<SetClipboardRequest>,
    ) -> Result<Response<SetClipboardResponse>, Status> {
        let (caller, message) = checked(request)?;
        let (route, left) = self.desktop(&caller, &message.sandbox).await?;
        let text = message.text;
        let (_, via) = self
            .parts
            .reach
            .call(&route, left, |mut to| {
                let request = agent::SetClipboardRequest { text: text.clone() };
                async move { to.set_clipboard(request).await }
            })
            .await
            .map_err(to_status)?;
        Ok(Response::new(SetClipboardResponse { via: via.into() }))
    }
}

impl Api {
    /// The way to a desktop, and how long the call may take.
    async fn desktop(
        &self,
        caller: &Caller,
        sandbox: &str,
    ) -> Result<(crate::reach::Route, Duration), Status> {
        caller.require(Role::Developer)?;
        let route = self.enter(caller, sandbox).await?;
        Ok((route, caller.remaining(DEADLINE)))
    }
}
