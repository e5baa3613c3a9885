//! `PortService`: links to ports.

use tonic::{Request, Response, Status};
use wolfpack_proto::registry::v1::MintLinkRequest;
use wolfpack_proto::sandbox::v1::port_service_server::PortService;
use wolfpack_proto::sandbox::v1::{CreateLinkRequest, CreateLinkResponse};
use wolfpack_rpc::{checked, from_status, to_status};
use wolfpack_types::{Fault, Principal, Reason, Role, SandboxId, SandboxState};

use super::{Api, role_inside};
use crate::domain::docker_of;
use crate::store::Sandbox;

/// How long a link lives that was asked for without a time, seconds.
const LIFE: i64 = 3600;

#[tonic::async_trait]
impl PortService for Api {
    async fn create_link(
        &self,
        request: Request<CreateLinkRequest>,
    ) -> Result<Response<CreateLinkResponse>, Status> {
        let (caller, message) = checked(request)?;
        caller.require(Role::Developer)?;
        let sandbox = self.sandbox(&caller, &message.sandbox).await?;
        // A port is a way in, like any other.
        caller.require(role_inside(docker_of(&sandbox.asked.spec)))?;
        may_run(&sandbox)?;
        let Principal::User { user, .. } = &caller.principal else {
            return Err(to_status(Fault::new(
                Reason::CallerForbidden,
                "links are made by users; call with an api key",
            )));
        };
        let life = message.life.unwrap_or(prost_types::Duration { seconds: LIFE, nanos: 0 });
        let minting = MintLinkRequest {
            sandbox: sandbox.id.name(),
            port: message.port,
            project: sandbox.project.name(),
            creator: user.name(),
            life: Some(life),
        };
        let minted = self.parts.peers.identity().mint_link(minting).await;
        let minted = minted.map_err(|status| to_status(from_status(&status)))?.into_inner();
        let url = self.parts.ingress_url.get();
        Ok(Response::new(CreateLinkResponse {
            url: url
                .map(|url| link_url(url, &sandbox.id, message.port, &minted.token))
                .unwrap_or_default(),
            token: minted.token,
            expire_time: minted.expire_time,
        }))
    }
}

/// A link to what is over for good would open nothing, ever.
fn may_run(sandbox: &Sandbox) -> Result<(), Status> {
    match sandbox.record.state {
        state @ (SandboxState::Failed | SandboxState::Deleting | SandboxState::Deleted) => {
            Err(to_status(
                Fault::new(
                    Reason::SandboxNotRunning,
                    format!("the sandbox is {state} and will not run again; make a new one"),
                )
                .about(sandbox.id.name())
                .with("state", state.as_str()),
            ))
        }
        _ => Ok(()),
    }
}

/// What a browser opens; the star of `ingress` stands for the port and the
/// sandbox.
fn link_url(ingress: &str, sandbox: &SandboxId, port: u32, token: &str) -> String {
    let host = ingress.trim_end_matches('/').replacen('*', &format!("{port}--{sandbox}"), 1);
    format!("{host}/?wp_link={token}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_star_is_the_port_and_the_sandbox() {
        let sandbox = SandboxId::parse("a-1").unwrap();
        for ingress in ["https://*.box.example:8443", "https://*.box.example:8443/"] {
            assert_eq!(
                link_url(ingress, &sandbox, 80, "wpl_x"),
                "https://80--a-1.box.example:8443/?wp_link=wpl_x"
            );
        }
    }
}
