//! A client that times what a user waits for.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use uuid::Uuid;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_proto::sandbox::v1::sandbox_io_service_client::SandboxIoServiceClient;
use wolfpack_proto::sandbox::v1::sandbox_service_client::SandboxServiceClient;
use wolfpack_proto::sandbox::v1::watch_sandboxes_response::Event;

/// A caller at the gateway that the environment names.
pub(crate) struct TimedClient {
    bearer: MetadataValue<Ascii>,
    rpc: SandboxServiceClient<Channel>,
    io: SandboxIoServiceClient<Channel>,
}

impl TimedClient {
    pub(crate) async fn connect() -> anyhow::Result<Self> {
        let server = std::env::var("WOLFPACK_SERVER").context("WOLFPACK_SERVER is not set")?;
        let key = std::env::var("WOLFPACK_API_KEY").context("WOLFPACK_API_KEY is not set")?;
        let channel = Channel::from_shared(server)?.connect().await?;
        Ok(Self {
            bearer: format!("Bearer {key}").parse()?,
            rpc: SandboxServiceClient::new(channel.clone()),
            io: SandboxIoServiceClient::new(channel),
        })
    }

    fn request<T>(&self, message: T, deadline: Duration) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.bearer.clone());
        request.set_timeout(deadline);
        request
    }

    /// Creates a sandbox and waits until it is RUNNING: milliseconds, and what it became.
    pub(crate) async fn create(&self, spec: pb::SandboxSpec) -> anyhow::Result<(f64, pb::Sandbox)> {
        let mut rpc = self.rpc.clone();
        let begun = Instant::now();
        let message = pb::CreateSandboxRequest {
            request_id: Uuid::new_v4().to_string(),
            sandbox: Some(pb::Sandbox { spec: Some(spec), ..Default::default() }),
        };
        let created = rpc.create_sandbox(self.request(message, Duration::from_secs(10))).await?;
        let name = created.into_inner().sandbox.context("no sandbox in the answer")?.name;
        let running = self.wait(&name, pb::SandboxState::Running).await?;
        Ok((millis(begun.elapsed()), running))
    }

    /// Deletes a sandbox and waits until it is gone.
    pub(crate) async fn delete(&self, name: &str) -> anyhow::Result<()> {
        let delete = pb::DeleteSandboxRequest { name: name.to_owned(), ..Default::default() };
        self.rpc.clone().delete_sandbox(self.request(delete, Duration::from_secs(10))).await?;
        self.wait(name, pb::SandboxState::Deleted).await?;
        Ok(())
    }

    /// Runs a shell line in a sandbox as root; it must succeed. Gives its output.
    pub(crate) async fn shell(&self, sandbox: &str, line: &str) -> anyhow::Result<String> {
        use pb::exec_output::Output;
        let start = pb::ExecStart {
            argv: ["bash", "-c", line].map(str::to_owned).to_vec(),
            user: "root".to_owned(),
            ..Default::default()
        };
        let start = pb::SandboxExecStart { sandbox: sandbox.to_owned(), exec: Some(start) };
        let frame = pb::ExecRequest { frame: Some(pb::exec_request::Frame::Start(start)) };
        let request = self.request(tokio_stream::iter([frame]), Duration::from_secs(120));
        let mut responses = self.io.clone().exec(request).await?.into_inner();
        let (mut out, mut error, mut code) = (Vec::new(), Vec::new(), None);
        while let Some(response) = responses.message().await? {
            let Some(pb::exec_response::Frame::Output(output)) = response.frame else { continue };
            match output.output {
                Some(Output::Stdout(chunk)) => out.extend_from_slice(&chunk.data),
                Some(Output::Stderr(chunk)) => error.extend_from_slice(&chunk.data),
                Some(Output::Exit(exit)) => code = Some(exit.code),
                None => {}
            }
        }
        ensure!(code == Some(0), "{line}: {code:?}\n{}", String::from_utf8_lossy(&error));
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    async fn wait(&self, name: &str, state: pb::SandboxState) -> anyhow::Result<pb::Sandbox> {
        let watch = pb::WatchSandboxesRequest { name: name.to_owned(), ..Default::default() };
        let mut events = self
            .rpc
            .clone()
            .watch_sandboxes(self.request(watch, Duration::from_secs(60)))
            .await?
            .into_inner();
        while let Some(event) = events.message().await? {
            let Some(Event::Upserted(sandbox)) = event.event else { continue };
            let status = sandbox.status.clone().unwrap_or_default();
            if status.state() == state {
                return Ok(sandbox);
            }
            if status.state() == pb::SandboxState::Failed {
                bail!("{name} failed: {} {}", status.reason, status.message);
            }
        }
        bail!("the watch of {name} ended")
    }
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
