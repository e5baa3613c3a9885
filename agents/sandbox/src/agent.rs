//! The agent as PID 1: its parts in order, from start to exit code.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tracing::instrument::WithSubscriber as _;
use tracing::{error, info, warn};
use wolfpack_rpc::ClientTls;
use wolfpack_runtime::{
    BoxError, Context, LogFormat, Supervisor, TelemetryConfig, init_process,
    install_crypto_provider,
};
use wolfpack_types::sandbox_boot::SandboxBoot;

use crate::boot::{BootDir, Log};
use crate::desktop::{DesktopBackend, Sway};
use crate::docker::Docker;
use crate::exec::Execs;
use crate::init::entrypoint::Entrypoint;
use crate::init::finish::{MAIN_GRACE, end_others};
use crate::init::signals::{Signals, asks_to_stop};
use crate::init::{Adopts, Exit, Reaper};
use crate::process::environment::Environment;
use crate::process::{Console, Launcher};
use crate::resolve::Resolver;
use crate::service::{SandboxAgent, bind_socket, serve_socket};
use crate::tunnel::{Registry, Uplink, keep_attached, keep_fresh};
use crate::users::{self, User};

/// What the container exits with when the agent itself cannot do its work, as
/// engines do for failures of their own.
pub const EXIT_AGENT: u8 = 125;

/// The name under which it logs and traces.
pub const SERVICE_NAME: &str = "sandbox-agent";

/// Calls that run at the end get this long to say so.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// The sandbox's engine gets this long to put its data in order. The rest of
/// what engines wait for a container belongs to the main process.
const ENGINE_PATIENCE: Duration = Duration::from_millis(1200);
const FLUSH: Duration = Duration::from_secs(1);

/// Runs as PID 1 of a container until its main process ends or the container is
/// stopped; the exit code of the container. What it says on stderr is fatal;
/// the rest is in `agent.log` in the directory of the boot.
#[must_use]
pub fn run(dir: &BootDir) -> ExitCode {
    // Whatever the agent writes is its own; programs get the usual one back.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let console = match Console::keep() {
        Ok(console) => Arc::new(console),
        Err(_no_stdio) => return ExitCode::from(EXIT_AGENT),
    };
    match start(dir, &console) {
        Ok((runtime, boot)) => {
            let code = runtime.block_on(life(dir.clone(), boot, Arc::clone(&console)));
            runtime.shutdown_background();
            let code = code.unwrap_or_else(|error| {
                console.say(&error.to_string());
                EXIT_AGENT
            });
            ExitCode::from(code)
        }
        Err(error) => {
            console.say(&error.to_string());
            ExitCode::from(EXIT_AGENT)
        }
    }
}

fn start(dir: &BootDir, console: &Console) -> Result<(Runtime, SandboxBoot), BoxError> {
    let boot = dir.config()?;
    if let Err(error) = Log::take_stderr(dir.path()) {
        console.say(&format!("its log cannot be written and is on stderr: {error}"));
    }
    install_crypto_provider();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    Ok((runtime, boot))
}

async fn life(dir: BootDir, boot: SandboxBoot, console: Arc<Console>) -> Result<u8, BoxError> {
    let telemetry = TelemetryConfig {
        log: LogFormat::Json,
        otlp_endpoint: collector(&boot).await,
        ..TelemetryConfig::default()
    };
    init_process(&telemetry)?;
    let context = Context::new(SERVICE_NAME, &telemetry)?;
    let dispatch = context.telemetry.dispatch();
    let code =
        serve(dir, boot, console, context.supervisor.clone()).with_subscriber(dispatch).await;
    if telemetry.otlp_endpoint.is_some() {
        context.telemetry.flush(FLUSH).await;
    }
    code
}

/// The collector by address: its exporter would ask the C library for a name.
async fn collector(boot: &SandboxBoot) -> Option<String> {
    let url = boot.otlp_endpoint.as_ref()?;
    let uri: tonic::codegen::http::Uri = url.parse().ok()?;
    let addresses = Resolver::default().resolve(uri.host()?, uri.port_u16()?).await.ok()?;
    let address = addresses.first()?;
    Some(format!("{}://{address}", uri.scheme_str()?))
}

async fn serve(
    dir: BootDir,
    boot: SandboxBoot,
    console: Arc<Console>,
    supervisor: Supervisor,
) -> Result<u8, BoxError> {
    info!(sandbox = %boot.sandbox, execution = %boot.execution, desktop = boot.desktop, "the sandbox agent starts");
    // Listened for before anything runs: a stop that comes at once is not lost.
    let signals = Signals::listen()?;
    let reaper = Reaper::new(Adopts::Orphans);
    let (reaping, stop) = (reaper.clone(), supervisor.token());
    supervisor.spawn_essential("reaper", async move {
        tokio::select! {
            reaped = reaping.run() => Ok(reaped?),
            () = stop.cancelled() => Ok(()),
        }
    });
    let launcher = Launcher::new(reaper, Launcher::OWN_BINARY.into(), Arc::clone(&console));
    let user = match users::resolve("/".as_ref(), &boot.user) {
        Ok(user) => user,
        Err(error) => {
            console.say(&error.to_string());
            return Ok(126);
        }
    };
    let boot = Arc::new(boot);
    let desktop = boot.desktop.then(|| start_desktop(&launcher, &user, &boot.env, &supervisor));
    let extra = desktop.as_ref().map(|desktop| desktop.environment()).unwrap_or_default();
    let execs = Execs::new(launcher.clone(), Arc::clone(&boot), extra.clone(), "/".into());
    let docker = Docker::start(&boot, dir.path(), &launcher, &supervisor);
    let agent =
        SandboxAgent::new(Arc::clone(&boot), execs, desktop, docker.clone(), supervisor.clone());
    let socket = bind_socket(&dir.socket(), boot.socket_uid)?;
    let (local, stop) = (agent.clone(), supervisor.token());
    supervisor
        .spawn_essential("socket", async move { Ok(serve_socket(local, socket, stop).await?) });
    if let Err(error) = uplink(&dir, &boot, agent, &supervisor) {
        // The way through the wolf still works.
        warn!(error, "the sandbox has no tunnel of its own");
    }
    let code = match Entrypoint::start(&launcher, &boot, &user, &extra).await {
        Ok(main) => attend(main, signals, &launcher, &supervisor).await,
        Err(error) => {
            error!(%error, "the main process was not started");
            console.say(&error.to_string());
            error.exit_code()
        }
    };
    docker.stop(ENGINE_PATIENCE).await;
    let killed = end_others().await;
    info!(code, killed, "the sandbox ends");
    supervisor.shutdown(LAST_WORDS).await;
    Ok(code)
}

fn start_desktop(
    launcher: &Launcher,
    user: &User,
    image: &Environment,
    supervisor: &Supervisor,
) -> Arc<dyn DesktopBackend> {
    let desktop: Arc<dyn DesktopBackend> =
        Arc::new(Sway::new(launcher.clone(), user.clone(), image));
    let (running, stop) = (Arc::clone(&desktop), supervisor.token());
    supervisor.spawn("desktop", async move {
        tokio::select! {
            () = running.run() => {}
            () = stop.cancelled() => {}
        }
    });
    desktop
}

fn uplink(
    dir: &BootDir,
    boot: &SandboxBoot,
    agent: SandboxAgent,
    supervisor: &Supervisor,
) -> Result<(), String> {
    let words = |error: &dyn std::error::Error| error.to_string();
    let roots = dir.roots().map_err(|error| words(&error))?;
    let tls = ClientTls::roots_only(&roots).map_err(|error| words(&error))?;
    let token = dir.token().map_err(|error| words(&error))?;
    let uplink = Uplink::new(Resolver::default(), tls, dir.clone(), &token);
    let attached = keep_attached(
        uplink.clone(),
        boot.broker.clone(),
        boot.sandbox.clone(),
        agent,
        supervisor.clone(),
    );
    supervisor.spawn("tunnel", attached);
    let issuer = Registry::new(uplink.clone(), boot.gateway.clone());
    let stop = supervisor.token();
    supervisor.spawn("token", async move {
        tokio::select! {
            () = keep_fresh(uplink, issuer, token) => {}
            () = stop.cancelled() => {}
        }
    });
    Ok(())
}

/// Waits for the end of the main process, passing signals on. After one that
/// asks to stop it is waited for only so long; without a main process such a
/// signal is the end.
async fn attend(
    mut main: Option<Entrypoint>,
    mut signals: Signals,
    launcher: &Launcher,
    supervisor: &Supervisor,
) -> u8 {
    let mut patience = std::pin::pin!(tokio::time::sleep(Duration::MAX));
    let mut stopping = false;
    loop {
        let ended = async {
            match &mut main {
                Some(main) => main.ended().await,
                None => std::future::pending().await,
            }
        };
        let signal = tokio::select! {
            exit = ended => return code_of(exit),
            signal = signals.next() => signal,
            () = &mut patience, if stopping => {
                warn!("the main process did not end in time and is killed");
                return code_of(Exit::Signal(rustix::process::Signal::KILL.as_raw()));
            }
            why = supervisor.failed() => {
                error!(why, "the agent failed; the sandbox ends");
                return EXIT_AGENT;
            }
        };
        info!(signal = signal.as_raw(), "a signal for the main process");
        match &main {
            Some(main) => main.signal(launcher.reaper(), signal),
            None if asks_to_stop(signal) => return code_of(Exit::Signal(signal.as_raw())),
            None => {}
        }
        if asks_to_stop(signal) && !stopping {
            stopping = true;
            patience.set(tokio::time::sleep(MAIN_GRACE));
        }
    }
}

fn code_of(exit: Exit) -> u8 {
    // An exit code is a byte to the kernel too.
    u8::try_from(exit.code() & 0xff).unwrap_or(u8::MAX)
}
