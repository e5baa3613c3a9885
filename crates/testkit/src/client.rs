//! A user of the API as tests need one: plain generated clients with a key.

use std::time::Duration;

use prost::bytes::Bytes;
use tonic::codegen::InterceptedService;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::Channel;
use tonic::{Request, Status};
use uuid::Uuid;
use wolfpack_proto::registry::v1::identity_service_client::IdentityServiceClient;
use wolfpack_proto::registry::v1::wolf_service_client::WolfServiceClient;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_proto::sandbox::v1::desktop_service_client::DesktopServiceClient;
use wolfpack_proto::sandbox::v1::sandbox_io_service_client::SandboxIoServiceClient;
use wolfpack_proto::sandbox::v1::sandbox_service_client::SandboxServiceClient;
use wolfpack_proto::sandbox::v1::watch_sandboxes_response::Event;
use wolfpack_proto::scheduler::v1::scheduler_service_client::SchedulerServiceClient;
use wolfpack_proto::tunnel::v1::exposure_service_client::ExposureServiceClient;

/// Puts a key on every call; none for an anonymous caller.
#[derive(Debug, Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(bearer) = &self.0 {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        Ok(request)
    }
}

type Keyed = InterceptedService<Channel, Bearer>;

/// What a program wrote and how it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutcome {
    /// Exit code.
    pub code: i32,
    /// All of its stdout.
    pub stdout: Vec<u8>,
    /// All of its stderr.
    pub stderr: Vec<u8>,
    /// The tunnel: a `TunnelPath`.
    pub via: i32,
}

/// A caller with a key, at a gateway.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    bearer: Bearer,
}

impl Client {
    /// Connects to a gateway at `url`, plain or with TLS as the channel is.
    ///
    /// # Panics
    /// When the key is no header value.
    #[must_use]
    pub fn new(channel: Channel, key: Option<&str>) -> Self {
        let bearer = key.map(|key| format!("Bearer {key}").parse().unwrap());
        Self { channel, bearer: Bearer(bearer) }
    }

    /// Connects without TLS, as `wolfpack dev` offers on loopback.
    ///
    /// # Errors
    /// When nothing answers there.
    pub async fn plain(url: &str, key: Option<&str>) -> anyhow::Result<Self> {
        let channel = Channel::from_shared(url.to_owned())?
            .connect_timeout(Duration::from_secs(5))
            .connect()
            .await?;
        Ok(Self::new(channel, key))
    }

    /// The same gateway with another key.
    ///
    /// # Panics
    /// When the key is no header value.
    #[must_use]
    pub fn with_key(&self, key: Option<&str>) -> Self {
        Self::new(self.channel.clone(), key)
    }

    /// The channel, for calls that are not wrapped here.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The credential, for clients that are not wrapped here.
    #[must_use]
    pub fn bearer(&self) -> Bearer {
        self.bearer.clone()
    }

    /// `SandboxService`.
    #[must_use]
    pub fn sandboxes(&self) -> SandboxServiceClient<Keyed> {
        SandboxServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    /// `SandboxIoService`.
    #[must_use]
    pub fn io(&self) -> SandboxIoServiceClient<Keyed> {
        SandboxIoServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    /// `DesktopService`.
    #[must_use]
    pub fn desktop(&self) -> DesktopServiceClient<Keyed> {
        DesktopServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    /// `WolfService`.
    #[must_use]
    pub fn wolves(&self) -> WolfServiceClient<Keyed> {
        WolfServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    /// `IdentityService`.
    #[must_use]
    pub fn identity(&self) -> IdentityServiceClient<Keyed> {
        IdentityServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    /// `ExposureService`.
    #[must_use]
    pub fn exposures(&self) -> ExposureServiceClient<Keyed> {
        ExposureServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    /// `SchedulerService`.
    #[must_use]
    pub fn scheduler(&self) -> SchedulerServiceClient<Keyed> {
        SchedulerServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    /// Creates a sandbox and waits until it is RUNNING.
    ///
    /// # Errors
    /// When it fails, or does not run within 60 s.
    pub async fn run(&self, spec: pb::SandboxSpec) -> anyhow::Result<pb::Sandbox> {
        let created = self.create(spec).await?;
        self.wait(&created.name, pb::SandboxState::Running).await
    }

    /// Creates a sandbox; does not wait.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn create(&self, spec: pb::SandboxSpec) -> anyhow::Result<pb::Sandbox> {
        let request = pb::CreateSandboxRequest {
            request_id: Uuid::new_v4().to_string(),
            sandbox: Some(pb::Sandbox { spec: Some(spec), ..Default::default() }),
        };
        let created = self.sandboxes().create_sandbox(timed(request, 10)).await?.into_inner();
        created.sandbox.ok_or_else(|| anyhow::anyhow!("the answer has no sandbox"))
    }

    /// The sandbox as it is.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn get(&self, name: &str) -> anyhow::Result<pb::Sandbox> {
        let request = pb::GetSandboxRequest { name: name.to_owned() };
        let got = self.sandboxes().get_sandbox(timed(request, 10)).await?.into_inner();
        got.sandbox.ok_or_else(|| anyhow::anyhow!("the answer has no sandbox"))
    }

    /// Watches a sandbox until it is in `state`, for at most 60 s.
    ///
    /// # Errors
    /// When it fails instead, or the time is over.
    pub async fn wait(&self, name: &str, state: pb::SandboxState) -> anyhow::Result<pb::Sandbox> {
        let watch = pb::WatchSandboxesRequest { name: name.to_owned(), ..Default::default() };
        let mut events = self.sandboxes().watch_sandboxes(timed(watch, 60)).await?.into_inner();
        let mut last = String::new();
        loop {
            let event = match events.message().await {
                Ok(Some(event)) => event,
                Ok(None) => anyhow::bail!("the watch of {name} ended; last seen: {last}"),
                Err(status) => anyhow::bail!("waiting for {state:?}: {status}; last seen: {last}"),
            };
            let Some(Event::Upserted(sandbox)) = event.event else { continue };
            let status = sandbox.status.clone().unwrap_or_default();
            last = format!("{:?} {} {}", status.state(), status.reason, status.message);
            if status.state() == state {
                return Ok(sandbox);
            }
            if status.state() == pb::SandboxState::Failed {
                anyhow::bail!("{name}: {last}\n{}", status.last_logs);
            }
        }
    }

    /// Deletes a sandbox and waits until it is DELETED.
    ///
    /// # Errors
    /// The status of the call, or when it is not DELETED within 60 s.
    pub async fn delete(&self, name: &str) -> anyhow::Result<()> {
        let request = pb::DeleteSandboxRequest { name: name.to_owned(), ..Default::default() };
        self.sandboxes().delete_sandbox(timed(request, 10)).await?;
        self.wait(name, pb::SandboxState::Deleted).await?;
        Ok(())
    }

    /// Runs a program to its end, with `stdin` as its whole input.
    ///
    /// # Errors
    /// The status of the call, or when output has a gap or no exit came.
    pub async fn exec(
        &self,
        sandbox: &str,
        argv: &[&str],
        stdin: Vec<u8>,
    ) -> anyhow::Result<ExecOutcome> {
        let start = pb::ExecStart {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            ..Default::default()
        };
        self.exec_start(sandbox, start, stdin).await
    }

    /// As `exec`, with everything about the start to choose.
    ///
    /// # Errors
    /// As `exec`.
    pub async fn exec_start(
        &self,
        sandbox: &str,
        start: pb::ExecStart,
        stdin: Vec<u8>,
    ) -> anyhow::Result<ExecOutcome> {
        use pb::exec_input::Input;
        use pb::exec_output::Output;
        use pb::exec_request::Frame as Ask;
        use pb::exec_response::Frame as Answer;
        let start =
            Ask::Start(pb::SandboxExecStart { sandbox: sandbox.to_owned(), exec: Some(start) });
        let stdin = Bytes::from(stdin);
        let pieces: Vec<Bytes> = (0..stdin.len())
            .step_by(32 * 1024)
            .map(|at| stdin.slice(at..stdin.len().min(at + 32 * 1024)))
            .collect();
        let input = |input| Ask::Input(pb::ExecInput { input: Some(input) });
        let frames = std::iter::once(start)
            .chain(pieces.into_iter().map(move |piece| input(Input::Stdin(piece))))
            .chain(std::iter::once(input(Input::CloseStdin(pb::CloseStdin {}))))
            .map(|frame| pb::ExecRequest { frame: Some(frame) });
        let request = timed(tokio_stream::iter(frames.collect::<Vec<_>>()), 120);
        let mut responses = self.io().exec(request).await?.into_inner();
        let mut outcome = ExecOutcome::default();
        let mut exited = false;
        while let Some(response) = responses.message().await? {
            let output = match response.frame {
                Some(Answer::Started(started)) => {
                    outcome.via = started.via;
                    continue;
                }
                Some(Answer::Output(output)) => output.output,
                None => None,
            };
            anyhow::ensure!(!exited, "output after the exit");
            match output {
                Some(Output::Stdout(chunk)) => append(&mut outcome.stdout, &chunk)?,
                Some(Output::Stderr(chunk)) => append(&mut outcome.stderr, &chunk)?,
                Some(Output::Exit(exit)) => {
                    outcome.code = exit.code;
                    exited = true;
                }
                None => anyhow::bail!("an empty output"),
            }
        }
        anyhow::ensure!(exited, "the call ended without an exit");
        Ok(outcome)
    }
}

fn append(all: &mut Vec<u8>, chunk: &pb::ExecChunk) -> anyhow::Result<()> {
    anyhow::ensure!(
        chunk.offset == all.len() as u64,
        "a gap: {} after {}",
        chunk.offset,
        all.len()
    );
    all.extend_from_slice(&chunk.data);
    Ok(())
}

/// A request with a deadline in seconds.
pub fn timed<T>(message: T, seconds: u64) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(seconds));
    request
}
