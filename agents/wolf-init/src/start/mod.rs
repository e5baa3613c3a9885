//! The steps that make a container fit to hold a wolf. The first that fails
//! ends the start, named; only GPUs, and a state that is not on a volume, may
//! be missing, and then the status says so.

mod engine;
mod network;
mod storage;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Instant;

use wolfpack_dockerd::daemon::{Daemon, EngineOptions};
use wolfpack_dockerd::dns::{Forwarder, ForwarderConfig, Upstreams};
use wolfpack_dockerd::place::iptables::{self, Backend};
use wolfpack_dockerd::place::nvidia::{self, Nvidia};
use wolfpack_dockerd::place::{StepFailed, device_nodes, prepare};
use wolfpack_dockerd::plan::NetworkPlan;
use wolfpack_dockerd::status::Outcome;
use wolfpack_runtime::Supervisor;

use crate::Config;
use crate::record::Record;

pub(crate) use engine::start as start_engine;

/// What containers ask for to reach home.
const HOME: &str = "wolfpack.internal";

/// A container that is fit, with its engine running.
#[derive(Debug)]
pub(crate) struct Started {
    /// The engine that runs.
    pub daemon: Daemon,
    /// What it was told, for the next time.
    pub options: EngineOptions,
    /// The iptables it uses.
    pub backend: Backend,
    /// The `PATH` for whoever calls iptables.
    pub path: OsString,
}

/// What a step achieved: its result, how well, and what to say.
type Achieved<T> = Result<(T, Outcome, String), StepFailed>;

/// Does all steps.
///
/// # Errors
/// The first that fails and cannot be missed.
pub(crate) async fn start(
    config: &Config,
    record: &Record,
    tasks: &Supervisor,
) -> Result<Started, StepFailed> {
    done(record, "unmask", async {
        let gone = prepare::unmask()?;
        Ok(((), Outcome::Done, format!("{} masks taken from /proc and /sys", gone.len())))
    })
    .await?;
    done(record, "sys", async {
        prepare::writable_sys()?;
        Ok(((), Outcome::Done, "/sys is writable".to_owned()))
    })
    .await?;
    done(record, "cgroup", async {
        let note = prepare::cgroups()?;
        Ok(((), Outcome::Done, note))
    })
    .await?;
    done(record, "forwarding", async {
        prepare::forwarding()?;
        Ok(((), Outcome::Done, "the kernel forwards".to_owned()))
    })
    .await?;
    done(record, device_nodes::STEP, async { open_nodes() }).await?;
    done(record, "storage", async { storage::check(config) }).await?;
    let plan = done(record, "network", network::plan(config)).await?;
    record.change(|status| status.plan = Some(plan.clone()));
    let (backend, path) = done(record, iptables::STEP, choose_iptables(config, record)).await?;
    let nvidia = done(record, "nvidia", look_for_gpus(config)).await?;
    record.change(|status| status.nvidia = Some(nvidia.clone()));
    let options = engine::options(config, &plan, &nvidia, &path)?;
    let daemon = done(record, "engine", engine::first(config, &options, backend, record, tasks));
    let daemon = daemon.await?;
    done(record, "dns", answer_names(&plan, record, tasks)).await?;
    done(record, "agent", async { agent_is_there(config) }).await?;
    Ok(Started { daemon, options, backend, path })
}

/// Runs one step and records it.
async fn done<T>(
    record: &Record,
    name: &str,
    step: impl Future<Output = Achieved<T>>,
) -> Result<T, StepFailed> {
    let begun = Instant::now();
    let (result, outcome, note) = step.await?;
    record.step(name, outcome, &note, begun.elapsed());
    Ok(result)
}

/// Nodes that stay closed are not offered; the machine is a wolf without them.
fn open_nodes() -> Achieved<()> {
    let opened = match prepare::device_nodes() {
        Ok(opened) => opened,
        Err(failed) => return Ok(((), Outcome::Degraded, failed.to_string())),
    };
    let (outcome, note) = match (opened.open.len(), opened.foreign.len()) {
        (0, 0) => (Outcome::Done, "no render node here".to_owned()),
        (open, 0) => (Outcome::Done, format!("{open} nodes are open to the users of sandboxes")),
        (_, foreign) => (
            Outcome::Degraded,
            format!(
                "{foreign} nodes are mounted from the machine and stay as they are; give them by --device"
            ),
        ),
    };
    Ok(((), outcome, note))
}

async fn choose_iptables(config: &Config, record: &Record) -> Achieved<(Backend, OsString)> {
    let choice = iptables::choose(&iptables::probe("/".as_ref()).await)?;
    let folder = config.run_dir.join("wolfpack-init/bin");
    iptables::install(&folder, choice.backend)?;
    let note = format!("{}: {}", choice.backend.as_str(), choice.reason);
    let chosen = (choice.backend, iptables::path_with(&folder));
    record.change(|status| status.iptables = Some(choice));
    Ok((chosen, Outcome::Done, note))
}

async fn look_for_gpus(config: &Config) -> Achieved<Nvidia> {
    let nvidia = nvidia::plan(&nvidia::look(&config.nvidia).await);
    let (outcome, note) = match &nvidia {
        Nvidia::None => (Outcome::Done, "no NVIDIA device here".to_owned()),
        Nvidia::Ready { runtime, cdi, version } => {
            let runtime = if runtime.is_some() { "the nvidia runtime" } else { "no runtime" };
            let cdi = if *cdi { "CDI" } else { "no CDI" };
            (Outcome::Done, format!("{runtime} {version}, {cdi}"))
        }
        Nvidia::Refused { why, fix } => (Outcome::Degraded, format!("{why}; {fix}")),
    };
    Ok((nvidia, outcome, note))
}

/// Answers names on the engine's own bridge: the resolver of this container is
/// out of the sandboxes' reach.
async fn answer_names(plan: &NetworkPlan, record: &Record, tasks: &Supervisor) -> Achieved<()> {
    let failed = |why: std::io::Error| {
        StepFailed::new(
            "dns",
            why,
            "free port 53 on the address, or give WOLFPACK_INIT__POOL another range",
        )
    };
    let bridge = plan.bridge.addr();
    let config = ForwarderConfig {
        upstreams: Upstreams::ResolvConf(PathBuf::from("/etc/resolv.conf")),
        names: [(HOME.to_owned(), bridge)].into(),
    };
    let address = SocketAddr::new(IpAddr::V4(bridge), 53);
    let forwarder = Forwarder::bind(&[address], config).await.map_err(failed)?;
    record.change(|status| status.dns = forwarder.local_addrs().to_vec());
    let stop = tasks.token();
    tasks.spawn_essential("dns", async move {
        forwarder.serve(stop.clone()).await;
        if stop.is_cancelled() { Ok(()) } else { Err("names are not answered any more".into()) }
    });
    Ok(((), Outcome::Done, format!("names are answered on {address}")))
}

fn agent_is_there(config: &Config) -> Achieved<()> {
    let program = &config.agent.program;
    if program.is_file() {
        return Ok(((), Outcome::Done, program.display().to_string()));
    }
    Err(StepFailed::new(
        "agent",
        format!("{} is not a file", program.display()),
        "build the image with the agent (scripts/build-images), or set WOLFPACK_INIT__AGENT__PROGRAM",
    ))
}
