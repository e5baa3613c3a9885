//! A broker and an agent with a round trip of 40 ms between them: a relay holds
//! every byte for 20 ms each way, and bounds nothing else.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use secrecy::SecretString;
use serde_json::json;
use wolfpack_runtime::{Supervisor, Telemetry};
use wolfpack_tunnel::{AgentTunnel, AgentTunnelConfig};
use wolfpack_types::{Endpoint, SandboxId};

use super::clients;
use super::peers::{Addresses, Peer};
use crate::identity::Mint;
use crate::parts::agent::{self, Agent, Port};
use crate::parts::broker::{Broker, Exposed};
use crate::parts::delay::Delay;
use crate::processes::{free, reachable, start_part};
use crate::quantiles::quantile;

const ONE_WAY_MS: u64 = 20;
/// What one connection may have under way: the setting for agents that are far,
/// which the broker passes on to its agents.
const FAR_WINDOW: Option<u32> = Some(16 * 1024 * 1024);
/// Streams that an agent has parked at rest, by the broker's default.
const PARKED: u8 = 2;
const WARM_SAMPLES: usize = 15;
const COLD_SAMPLES: usize = 5;
/// A pool that was used has its streams again after a round trip.
const REFILL: Duration = Duration::from_millis(4 * 2 * ONE_WAY_MS);
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) const MEASURES: [&str; 4] =
    ["rtt40_first_byte_warm", "rtt40_first_byte_cold", "rtt40_stream_up", "rtt40_stream_down"];

/// What first bytes are measured with.
#[derive(Clone)]
pub(super) struct Far(Arc<Inner>);

struct Inner {
    /// A port that leads to the target by an agent that has streams parked.
    warm: SocketAddr,
    /// One that leads there by an agent that is started for it.
    cold: SocketAddr,
    /// How that agent reaches the broker.
    relay: SocketAddr,
    sandbox: SandboxId,
    token: String,
    target: SocketAddr,
    arrivals: Mutex<Receiver<(u8, Instant)>>,
    /// Of the relay, as it was measured.
    round_trip: Duration,
}

impl Far {
    /// Starts broker, relay and agent.
    pub(super) async fn start(
        name: &'static str,
        folder: &Path,
        targets: &Addresses,
    ) -> anyhow::Result<Peer> {
        let folder = folder.join(name);
        let round_trip = measure_relay(&folder.join("alone"), targets["echo"]).await?;
        let (target, arrivals) = arrivals()?;
        let (mint, near, cold) = (Mint::new()?, SandboxId::new(), SandboxId::new());
        let exposed = |endpoint: &SandboxId, target: &str| Exposed {
            listen: free(),
            endpoint: endpoint.name(),
            target: target.to_owned(),
        };
        let exposures =
            vec![exposed(&near, "first"), exposed(&near, "iperf"), exposed(&cold, "first")];
        let front: Vec<SocketAddr> = exposures.iter().map(|one| one.listen).collect();
        let broker_part = Broker {
            agents: free(),
            internal: free(),
            metrics: free(),
            tls: None,
            known: mint.known()?,
            exposures,
            data_threads: 1,
            attaches_per_second: 500,
            stream_window: FAR_WINDOW,
        };
        let broker = start_part("broker", &folder, &broker_part)?;
        reachable(broker_part.agents).await?;
        let path = Delay { listen: free(), to: broker_part.agents, one_way_ms: ONE_WAY_MS };
        let relay = start_part("delay", &folder, &path)?;
        reachable(path.listen).await?;
        let agent_part = Agent {
            broker: path.listen,
            roots: None,
            endpoint: near.name(),
            token: mint.token(&near)?,
            targets: [("first".to_owned(), target), ("iperf".to_owned(), targets["iperf"])].into(),
            grpc: None,
            data_thread: true,
        };
        let agent = start_part("agent", &folder, &agent_part)?;
        let far = Self(Arc::new(Inner {
            warm: front[0],
            cold: front[2],
            relay: path.listen,
            token: mint.token(&cold)?,
            sandbox: cold,
            target,
            arrivals: Mutex::new(arrivals),
            round_trip,
        }));
        far.answers().await.context("the agent behind the relay does not answer")?;
        let configuration = json!({
            "one_way_ms": ONE_WAY_MS,
            "measured_round_trip_ms": round_trip.as_secs_f64() * 1000.0,
            "stream_window": FAR_WINDOW,
            "cold": format!("the last of {} connections at once to an agent with {PARKED} streams parked", PARKED + 1),
        });
        Ok(Peer {
            front: [("iperf".to_owned(), front[1])].into(),
            far: Some(far),
            processes: vec![broker, relay, agent],
            ..Peer::empty(name, &MEASURES, configuration)
        })
    }

    async fn answers(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let this = self.clone();
            match super::measures::blocking(move || this.burst(this.0.warm, 1)).await {
                Ok(_) => return Ok(()),
                Err(error) if begun.elapsed() > PATIENCE => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// From the connect to the first byte's arrival at the target, with a stream
    /// parked: the median, in round trips.
    pub(super) async fn warm(&self) -> anyhow::Result<f64> {
        let mut sample = Vec::with_capacity(WARM_SAMPLES);
        for _ in 0..WARM_SAMPLES {
            tokio::time::sleep(REFILL).await;
            let this = self.clone();
            sample.push(super::measures::blocking(move || this.burst(this.0.warm, 1)).await?);
        }
        Ok(quantile(&sample, 0.5))
    }

    /// The same with nothing parked: of connections that are made at once, one more
    /// than a fresh agent has streams parked, the last.
    pub(super) async fn cold(&self) -> anyhow::Result<f64> {
        let mut sample = Vec::with_capacity(COLD_SAMPLES);
        for _ in 0..COLD_SAMPLES {
            let taken = self.cold_once().await?;
            anyhow::ensure!(taken > 1.0, "a stream was still parked: {taken} round trips");
            sample.push(taken);
        }
        Ok(quantile(&sample, 0.5))
    }

    async fn cold_once(&self) -> anyhow::Result<f64> {
        let inner = &self.0;
        let supervisor = Supervisor::new(Telemetry::disabled("bench"));
        let channel =
            agent::channel(inner.relay, None)?.with_bearer(SecretString::from(inner.token.clone()));
        let config = AgentTunnelConfig::new(Endpoint::Sandbox(inner.sandbox.clone()), "bench");
        let mut builder = AgentTunnel::builder(config, channel);
        builder.dial_target("first", Arc::new(Port::of(inner.target)?));
        let mut attached = builder.start(&supervisor).attached();
        let waited = tokio::time::timeout(PATIENCE, attached.wait_for(|there| *there)).await;
        let there = matches!(waited, Ok(Ok(_)));
        let taken = if there {
            tokio::time::sleep(REFILL).await;
            let this = self.clone();
            super::measures::blocking(move || this.burst(this.0.cold, PARKED + 1)).await
        } else {
            Err(anyhow::anyhow!("the agent does not attach"))
        };
        supervisor.shutdown(Duration::from_millis(250)).await;
        taken
    }

    /// Connects so often at once, each time with a byte to send, and gives how long
    /// the byte that took longest was under way, in round trips.
    fn burst(&self, to: SocketAddr, count: u8) -> anyhow::Result<f64> {
        let arrivals = self.0.arrivals.lock().map_err(|_| anyhow::anyhow!("a client panicked"))?;
        // Of a burst that was given up.
        while arrivals.try_recv().is_ok() {}
        let mut sent = Vec::new();
        for number in 0..count {
            let begun = Instant::now();
            let mut socket = clients::open(to)?;
            socket.write_all(&[number])?;
            sent.push((begun, socket));
        }
        let mut longest = Duration::ZERO;
        for _ in 0..count {
            let (number, at) = arrivals.recv_timeout(PATIENCE).context("no byte arrives")?;
            let (begun, _) = sent.get(usize::from(number)).context("another byte arrives")?;
            longest = longest.max(at.saturating_duration_since(*begun));
        }
        Ok(longest.as_secs_f64() / self.0.round_trip.as_secs_f64())
    }
}

/// A target that tells the first byte of each connection and when it came.
fn arrivals() -> anyhow::Result<(SocketAddr, Receiver<(u8, Instant)>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (address, (told, receiver)) = (listener.local_addr()?, channel());
    // Both threads end with the process.
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let told = told.clone();
            std::thread::spawn(move || tell(socket, &told));
        }
    });
    Ok((address, receiver))
}

fn tell(mut socket: TcpStream, told: &Sender<(u8, Instant)>) {
    let mut byte = [0];
    if socket.read_exact(&mut byte).is_ok() {
        let _ = told.send((byte[0], Instant::now()));
    }
    // Until the other side is done.
    let _ = socket.read(&mut byte);
}

/// The median round trip of a byte through a relay and nothing else.
async fn measure_relay(folder: &Path, echo: SocketAddr) -> anyhow::Result<Duration> {
    let path = Delay { listen: free(), to: echo, one_way_ms: ONE_WAY_MS };
    let mut relay = start_part("delay", folder, &path)?;
    reachable(path.listen).await?;
    let sample = super::measures::blocking(move || clients::round_trips(path.listen, 15)).await?;
    relay.kill().await?;
    Ok(Duration::from_secs_f64(quantile(&sample, 0.5)))
}
