//! Hosts of a simulation, and what is told of them.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use turmoil::net::{TcpListener, TcpStream};
use wolfpack_rpc::{Authority, ByteBudget, Peer, Profile, RpcChannel, Server};
use wolfpack_runtime::random::Jitter;
use wolfpack_runtime::{Context, Supervisor};
use wolfpack_tunnel::grpc::{ATTACH_PATH, CARRY_PATH, DIAL_PATH};
use wolfpack_tunnel::{AgentTunnel, AgentTunnelConfig, Dialer};
use wolfpack_tunnel_broker::POLICY;
use wolfpack_tunnel_broker::metrics::Metrics;
use wolfpack_tunnel_broker::service::{AttachMethod, CarryMethod, DialMethod, Raw};
use wolfpack_tunnel_broker::state::{Broker, Limits};
use wolfpack_types::{Endpoint, Fault, Principal, Reason, Target, WolfId};

/// The host of the broker, and its only port.
pub(crate) const BROKER: &str = "broker";
const PORT: u16 = 8444;
/// Who a connection of the manager says it is.
const MANAGER: &str = "sandbox-manager";
/// As the connector of real sockets gives up.
const CONNECT: Duration = Duration::from_secs(5);

/// What happened, each with its time since the simulation began.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trace(Arc<Mutex<Vec<(Duration, String)>>>);

impl Trace {
    pub(crate) fn tell(&self, what: impl Into<String>) {
        let now = turmoil::sim_elapsed().expect("in a simulation");
        self.0.lock().push((now, what.into()));
    }

    /// The times of what was told in these words.
    pub(crate) fn times(&self, what: &str) -> Vec<Duration> {
        let told = self.0.lock();
        told.iter().filter(|(_, told)| told == what).map(|(at, _)| *at).collect()
    }

    /// All of it. Hosts take their turns within a tick: what they tell of one
    /// moment has no order.
    pub(crate) fn story(&self) -> Vec<(Duration, String)> {
        let mut story = self.0.lock().clone();
        story.sort();
        story
    }
}

/// Wolves by name, so that two runs with other ids tell the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wolves(Arc<BTreeMap<String, WolfId>>);

impl Wolves {
    pub(crate) fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(Arc::new(names.into_iter().map(|name| (name, WolfId::new())).collect()))
    }

    pub(crate) fn endpoint(&self, name: &str) -> Endpoint {
        Endpoint::Wolf(self.0[name].clone())
    }

    fn name(&self, endpoint: &str) -> &str {
        let found = self.0.iter().find(|(_, wolf)| wolf.name() == endpoint);
        found.map_or("nobody", |(name, _)| name)
    }
}

/// What all hosts know.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) trace: Trace,
    pub(crate) wolves: Wolves,
}

/// A network whose times come from `seed`, a message taking up to `latency`.
pub(crate) fn network<'a>(seed: u64, latency: RangeInclusive<u64>) -> turmoil::Sim<'a> {
    turmoil::Builder::new()
        .rng_seed(seed)
        .simulation_duration(Duration::from_secs(3600))
        .tick_duration(Duration::from_millis(10))
        .min_message_latency(Duration::from_millis(*latency.start()))
        .max_message_latency(Duration::from_millis(*latency.end()))
        .tcp_capacity(1 << 16)
        .build()
}

/// Steps until the simulated time is there.
pub(crate) fn until(sim: &mut turmoil::Sim<'_>, seconds: u64) {
    while sim.elapsed() < Duration::from_secs(seconds) {
        sim.step().unwrap();
    }
}

/// Nobody shows a bearer here.
struct NoBearers;

#[async_trait]
impl Authority for NoBearers {
    async fn api_key(&self, _: &str) -> Result<Principal, Fault> {
        Err(Fault::new(Reason::ApiKeyInvalid, "there are none"))
    }

    async fn sandbox_token(&self, _: &str) -> Result<Principal, Fault> {
        Err(Fault::new(Reason::SandboxTokenInvalid, "there are none"))
    }
}

/// Runs a broker for good. The first line of a connection says whose it is, as
/// a certificate would.
pub(crate) async fn broker(world: World, limits: Limits) -> turmoil::Result {
    let context = Context::quiet("tunnel-broker");
    let broker = Arc::new(Broker::new(limits));
    let metrics = Arc::new(Metrics::new(&context.telemetry, &broker));
    let (accepted, connections) = mpsc::channel(1024);
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let wolves = world.wolves.clone();
    tokio::spawn(async move {
        while let Ok((mut io, _)) = listener.accept().await {
            let (accepted, wolves) = (accepted.clone(), wolves.clone());
            tokio::spawn(async move {
                let length = usize::from(io.read_u8().await?);
                let mut name = vec![0; length];
                io.read_exact(&mut name).await?;
                let name = String::from_utf8(name).unwrap();
                let principal = match name.as_str() {
                    MANAGER => Principal::Service(name),
                    wolf => Principal::Wolf(wolves.0[wolf].clone()),
                };
                let _ = accepted.send(Ok((io, Peer::authenticated(principal)))).await;
                io::Result::Ok(())
            });
        }
    });
    let mut watch = broker.watch();
    let (trace, wolves) = (world.trace.clone(), world.wolves.clone());
    tokio::spawn(async move {
        while let Ok(event) = watch.events.recv().await {
            let name = wolves.name(&event.tunnel.endpoint);
            trace.tell(format!("broker: {:?} {name}", event.change));
        }
    });
    let swept = broker.clone();
    tokio::spawn(async move { swept.keep_swept().await });
    world.trace.tell("broker: up");
    // The HTTP/2 of the data plane, as in production.
    let budget = broker.budget.clone();
    let attach = AttachMethod::new(broker.clone(), context.supervisor.clone());
    Server::builder(&context, POLICY, Arc::new(NoBearers))
        .add_raw(ATTACH_PATH, Raw::new(attach))
        .add_raw(CARRY_PATH, Raw::new(CarryMethod::new(broker.clone())))
        .add_raw(DIAL_PATH, Raw::new(DialMethod::new(broker, metrics)))
        // Its rates go by the real clock.
        .incoming(
            ReceiverStream::new(connections),
            Profile { rate_limit: None, budget: Some(budget), ..Profile::agent() },
        )
        .build()
        .serve()
        .await
        .map_err(|error| -> Box<dyn std::error::Error> { error })?;
    Ok(())
}

/// A channel of `who` to the broker; `attempt` is told each time it connects.
fn channel(who: &str, attempt: impl Fn() + Send + Sync + 'static) -> RpcChannel {
    let who = who.to_owned();
    RpcChannel::for_tunnel_over(BROKER, &ByteBudget::default(), move || {
        attempt();
        let who = who.clone();
        async move {
            let connect = async {
                let mut io = TcpStream::connect((BROKER, PORT)).await?;
                io.write_u8(u8::try_from(who.len()).unwrap()).await?;
                io.write_all(who.as_bytes()).await?;
                io::Result::Ok(io)
            };
            tokio::time::timeout(CONNECT, connect).await.map_err(io::Error::other)?
        }
    })
}

/// An agent of the wolf `name` that echoes on `port`; `label` is what it is
/// called in the trace, and `age` how long ago its process started.
pub(crate) fn agent(
    world: &World,
    label: &str,
    name: &str,
    age: Duration,
    seed: u64,
    supervisor: &Supervisor,
) -> AgentTunnel {
    let mut config = AgentTunnelConfig::new(world.wolves.endpoint(name), "sim");
    config.started = SystemTime::now() - age;
    config.jitter = Jitter::seeded(seed);
    let (trace, what) = (world.trace.clone(), format!("{label}: connects"));
    let channel = channel(name, move || trace.tell(what.clone()));
    let mut builder = AgentTunnel::builder(config, channel);
    let mut listener = builder.listen("port");
    tokio::spawn(async move {
        while let Some(io) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = tokio::io::split(io);
                tokio::io::copy(&mut reader, &mut writer).await?;
                writer.shutdown().await
            });
        }
    });
    let tunnel = builder.start(supervisor);
    let (mut attached, mut ended) = (tunnel.attached(), tunnel.ended());
    let (trace, label) = (world.trace.clone(), label.to_owned());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                biased;
                Some(fault) = final_fault(&mut ended) => {
                    trace.tell(format!("{label}: ended {}", fault.reason));
                    return;
                }
                changed = attached.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let there = *attached.borrow_and_update();
                    trace.tell(format!("{label}: {}", if there { "attached" } else { "away" }));
                }
            }
        }
    });
    tunnel
}

async fn final_fault(ended: &mut watch::Receiver<Option<Fault>>) -> Option<Fault> {
    ended.wait_for(Option::is_some).await.ok()?.clone()
}

/// How long messages take between ordinary places, in milliseconds.
pub(crate) const ANYTHING: RangeInclusive<u64> = 1..=40;

/// Dials `port` of the wolf `name`, sends some bytes through it, and tells what
/// came of it.
pub(crate) async fn dial(world: World, name: &'static str, within: Duration) {
    let dialer = Dialer::new(channel(MANAGER, || {}));
    let target = Target::parse("port").unwrap();
    let opened = dialer.dial(&world.wolves.endpoint(name), &target, within).await;
    let outcome = match opened {
        Err(fault) => fault.reason.to_string(),
        Ok(mut stream) => {
            stream.write_all(b"ping").await.unwrap();
            let mut back = [0; 4];
            stream.read_exact(&mut back).await.unwrap();
            "served".to_owned()
        }
    };
    world.trace.tell(format!("dial of {within:?}: {outcome}"));
}

/// Runs a simulation twice: both runs must tell the same.
pub(crate) fn same_story(simulate: impl Fn() -> World) -> World {
    let (one, other) = (simulate(), simulate());
    let (first, second) = (one.trace.story(), other.trace.story());
    let rest = |story: &[(Duration, String)], other: &[(Duration, String)]| -> Vec<_> {
        story.iter().filter(|event| !other.contains(event)).take(5).cloned().collect()
    };
    assert!(
        first == second,
        "one seed, two stories: only one has {:?}, only the other {:?}",
        rest(&first, &second),
        rest(&second, &first)
    );
    one
}
