//! The engine from its start to its end.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tracing::{info, warn};
use wolfpack_dockerd::daemon::{Daemon, EngineOptions};
use wolfpack_dockerd::dns::{Forwarder, ForwarderConfig, Upstreams};
use wolfpack_dockerd::outer::Outer;
use wolfpack_dockerd::place::iptables;
use wolfpack_dockerd::plan::{NetworkPlan, Wanted, plan};
use wolfpack_runtime::{LogFormat, Supervisor, Telemetry, TelemetryConfig, init_process};
use wolfpack_types::sandbox_boot::INTERNAL_HOST;

use super::{checks, containers, tell};
use crate::docker::disk::{TICK, Watch, roomy};
use crate::docker::order::{Cause, DiskUse, Order, Report};

/// dockerd answers by then, also on a slow disk with many containers.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// An engine that is asked to stop has no containers to wait for: they live on
/// without it, or were killed.
const STOP_DEADLINE: Duration = Duration::from_secs(4);
/// One that an earlier keeper left gets so long to end.
const EVICT_DEADLINE: Duration = Duration::from_secs(5);
const EVICT_POLL: Duration = Duration::from_millis(50);
const DNS_PORT: u16 = 53;
/// Where the plan is kept, beside the networks that were made by it.
const PLAN_FILE: &str = "wolfpack-networks.json";
const NAME: &str = "sandbox-engine";

/// The report of a start that failed.
pub(super) fn failed(why: impl Into<String>) -> Report {
    Report::Down { cause: Cause::Failed, why: why.into() }
}

/// Keeps an engine until it ends or is to end; the last report, `None` when
/// there is nothing to tell.
pub(super) async fn keep(order: Order) -> Option<Report> {
    let telemetry = TelemetryConfig { log: LogFormat::Json, ..TelemetryConfig::default() };
    // Without a log it still works.
    let _ = init_process(&telemetry);
    let tasks = Supervisor::new(Telemetry::disabled(NAME));
    let mut stop = std::pin::pin!(asked_to_stop());
    let coming = bring_up(&order, &tasks);
    let daemon = tokio::select! {
        come = coming => match come {
            Ok(daemon) => daemon,
            Err(report) => return Some(report),
        },
        () = &mut stop => {
            evict(&order.runtime.join("docker.pid")).await;
            return None;
        }
    };
    let last = attend(daemon, &order, stop).await;
    tasks.shutdown(Duration::from_secs(1)).await;
    last
}

/// The agent let go of this process, or somebody asked it to end.
async fn asked_to_stop() {
    let mut term = signal(SignalKind::terminate()).ok();
    let leash = async {
        let stdin = rustix::io::dup(rustix::stdio::stdin()).map_err(std::io::Error::from);
        let Ok(mut stdin) = stdin.and_then(pipe::Receiver::from_owned_fd) else {
            return std::future::pending().await;
        };
        let mut byte = [0];
        while let Ok(1..) = stdin.read(&mut byte).await {}
    };
    let term = async {
        match &mut term {
            Some(term) => drop(term.recv().await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = leash => {}
        () = term => {}
    }
}

async fn bring_up(order: &Order, tasks: &Supervisor) -> Result<Daemon, Report> {
    let began = Instant::now();
    let path = std::env::var("PATH").unwrap_or_default();
    let Some(program) = checks::find("dockerd", &path) else {
        return Err(Report::Down {
            cause: Cause::Absent,
            why: "the sandbox's image holds no Docker engine (DOCKER_ABSENT): there is no dockerd in \
                  its PATH; use an image that has one, such as wolfpack/sandbox-docker, or add \
                  docker.io and iptables to yours"
                .to_owned(),
        });
    };
    let mounts = tokio::fs::read_to_string("/proc/self/mountinfo").await;
    let mounts = mounts.map_err(|error| failed(format!("cannot read what is mounted: {error}")))?;
    if let Some(why) = checks::unfit(&order.data, &mounts) {
        return Err(failed(why));
    }
    evict(&order.runtime.join("docker.pid")).await;
    folder(&order.runtime)?;
    let networks = networks(order).await?;
    info!(bridge = %networks.bridge, mtu = networks.mtu, reasons = ?networks.reasons, "networks");
    let tables = iptables::choose(&iptables::probe(Path::new("/")).await)
        .map_err(|error| failed(error.to_string()))?;
    info!(backend = tables.backend.as_str(), reason = tables.reason, "iptables");
    let programs = order.runtime.join("bin");
    iptables::install(&programs, tables.backend).map_err(|error| failed(error.to_string()))?;
    let bridge = networks.bridge.addr();
    let mut options = EngineOptions::new(&program, &order.data, &order.runtime, networks);
    options.dns = vec![bridge];
    options.rootless = true;
    // Whatever kills the engine, memory limits for one, leaves containers be.
    options.live_restore = true;
    options.environment = vec![
        ("XDG_RUNTIME_DIR".into(), order.runtime.clone().into_os_string()),
        ("PATH".into(), iptables::path_with(&programs)),
    ];
    let daemon = Daemon::start(options, START_DEADLINE, tasks)
        .await
        .map_err(|error| failed(format!("the sandbox's engine did not start: {error}")))?;
    if let Err(error) = iptables::accept_forwarded(tables.backend).await {
        // Containers of one network still reach each other.
        warn!(%error, "packets may not leave the sandbox's containers");
    }
    names(bridge, tasks).await;
    let facts = daemon.info();
    tell(&Report::Ready {
        socket: daemon.options().socket.clone(),
        version: facts.version.clone(),
        storage_driver: facts.storage_driver.clone(),
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    });
    Ok(daemon)
}

fn folder(runtime: &Path) -> Result<(), Report> {
    let made = std::fs::create_dir_all(runtime)
        .and_then(|()| Ok(rustix::fs::chmod(runtime, rustix::fs::Mode::from_raw_mode(0o700))?));
    made.map_err(|error| failed(format!("{} cannot be made: {error}", runtime.display())))
}

/// The plan of before while it still fits, else a new one.
async fn networks(order: &Order) -> Result<NetworkPlan, Report> {
    let outer = Outer::read(Path::new("/"))
        .await
        .map_err(|error| failed(format!("the sandbox's routes cannot be read: {error}")))?;
    let file = order.data.join(PLAN_FILE);
    let kept = NetworkPlan::load(&file).ok().flatten();
    let wanted = Wanted { avoid: order.avoid.clone(), ..Wanted::at_depth(order.depth) };
    let planned = plan(&outer, &wanted, kept.as_ref()).map_err(|error| {
        failed(format!("no networks are free for the sandbox's engine: {error}"))
    })?;
    if kept.as_ref() != Some(&planned)
        && let Err(error) = planned.store(&file)
    {
        warn!(%error, "the networks are planned anew at the next start");
    }
    Ok(planned)
}

/// Names for containers, on the bridge's address: the resolver of the sandbox
/// itself may be out of their reach.
async fn names(bridge: Ipv4Addr, tasks: &Supervisor) {
    let hosts = tokio::fs::read_to_string("/etc/hosts").await.unwrap_or_default();
    let config = ForwarderConfig {
        upstreams: Upstreams::ResolvConf("/etc/resolv.conf".into()),
        names: checks::names(&hosts, &[INTERNAL_HOST]),
    };
    match Forwarder::bind(&[SocketAddr::from((bridge, DNS_PORT))], config).await {
        Ok(forwarder) => {
            let stop = tasks.token();
            tasks.spawn("dns", forwarder.serve(stop));
        }
        Err(error) => warn!(%error, %bridge, "containers of the sandbox find no names"),
    }
}

/// Until the engine ends, must end, or has too much data.
async fn attend(
    mut daemon: Daemon,
    order: &Order,
    mut stop: std::pin::Pin<&mut impl Future<Output = ()>>,
) -> Option<Report> {
    let socket = daemon.options().socket.clone();
    let mut watch = order.disk_bytes.map(|limit| Watch::new(order.data.clone(), limit));
    let mut cleaning = order.cleaning;
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            ended = daemon.wait() => {
                let last = daemon.last_lines().pop().unwrap_or_default();
                return Some(failed(format!("the sandbox's engine ended ({ended}): {last}")));
            }
            () = &mut stop => {
                daemon.stop(STOP_DEADLINE).await;
                return None;
            }
            _ = ticks.tick(), if watch.is_some() => {}
        }
        if cleaning {
            // Those with a restart policy come with the engine.
            containers::kill_all(&socket).await;
        }
        let Some(disk) = look(watch.as_mut()).await else { continue };
        if cleaning && disk.used <= roomy(disk.limit) {
            cleaning = false;
            tell(&Report::Roomy(disk));
        } else if !cleaning && disk.used > disk.limit {
            let killed = containers::kill_all(&socket).await;
            info!(killed, used = disk.used, limit = disk.limit, "too much data");
            daemon.stop(STOP_DEADLINE).await;
            return Some(Report::Full(disk));
        }
    }
}

async fn look(watch: Option<&mut Watch>) -> Option<DiskUse> {
    match watch?.tick().await {
        Ok(disk) => disk,
        Err(error) => {
            warn!(%error, "the engine's data cannot be measured");
            None
        }
    }
}

/// Ends a dockerd that a keeper left when it was killed.
async fn evict(pid_file: &Path) {
    let Ok(text) = tokio::fs::read_to_string(pid_file).await else { return };
    let Some(pid) = text.trim().parse().ok().and_then(rustix::process::Pid::from_raw) else {
        return;
    };
    let comm = format!("/proc/{}/comm", pid.as_raw_nonzero());
    let runs = || std::fs::read_to_string(&comm).is_ok_and(|name| name.trim() == "dockerd");
    let until = Instant::now() + EVICT_DEADLINE;
    let mut asked = Signal::TERM;
    while runs() {
        let _ = rustix::process::kill_process(pid, asked);
        if Instant::now() >= until {
            asked = Signal::KILL;
            if Instant::now() >= until + EVICT_DEADLINE {
                return;
            }
        }
        tokio::time::sleep(EVICT_POLL).await;
    }
}
