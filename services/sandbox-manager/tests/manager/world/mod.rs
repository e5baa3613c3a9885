//! A small fleet in this process: registry, scheduler, broker, wolves and the
//! agents in sandboxes, all over real gRPC, with faults on demand.

mod agent;
mod broker;
mod registry;
mod scheduler;
mod wolf;
mod wolf_side;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::TcpListenerStream;
use wolfpack_proto::agent::v1::{ContainerState, ContainerStatus};
use wolfpack_proto::registry::v1::identity_service_server::IdentityServiceServer;
use wolfpack_proto::registry::v1::wolf_service_server::WolfServiceServer;
use wolfpack_proto::registry::v1::{Wolf, WolfState};
use wolfpack_proto::scheduler::v1::scheduler_service_server::SchedulerServiceServer;
use wolfpack_proto::scheduler::v1::{PlaceRequest, Reservation};
use wolfpack_proto::tunnel::v1::Tunnel;
use wolfpack_proto::tunnel::v1::dial_service_server::DialServiceServer;
use wolfpack_proto::tunnel::v1::tunnel_service_server::TunnelServiceServer;
use wolfpack_types::{SessionId, WolfId};

/// What goes wrong with one CreateSandbox on a wolf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CreateFault {
    Refuse,
    ImageNotFound,
    /// Never takes such a sandbox.
    Never(wolfpack_types::Reason),
    EngineFails,
    /// Admitted, and then the image never comes.
    HangInPull,
    /// Starts and ends at once.
    Exits {
        code: i32,
        out_of_memory: bool,
    },
}

/// An effect of the fleet, after which it can be stopped dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    Place,
    Mint,
    Admit,
    Confirm,
    Start,
    Status,
    Remove,
    Release,
    Revoke,
}

pub(crate) struct Held {
    pub(crate) reservation: Reservation,
    pub(crate) request: PlaceRequest,
    made: Instant,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) wolves: BTreeMap<WolfId, Wolf>,
    pub(crate) revision: i64,
    /// Projects that own a wolf.
    pub(crate) owners: BTreeMap<WolfId, String>,
    /// Room in sandboxes per wolf.
    pub(crate) room: BTreeMap<WolfId, usize>,
    pub(crate) reservations: Vec<Held>,
    pub(crate) containers: BTreeMap<(WolfId, String), ContainerStatus>,
    pub(crate) tunnels: BTreeMap<String, Tunnel>,
    pub(crate) minted: HashSet<(String, String)>,
    pub(crate) revoked: HashSet<(String, String)>,
    /// One per coming CreateSandbox; then none.
    pub(crate) create_faults: VecDeque<CreateFault>,
    /// Endpoints whose connections carry nothing.
    pub(crate) black_holes: HashSet<String>,
    /// Whether sandboxes attach a tunnel of their own.
    pub(crate) own_tunnels: bool,
    pub(crate) agents_ready: bool,
    /// Whether wolves do not come to the end of a removal.
    pub(crate) removals_hang: bool,
    /// Whether the scheduler binds no reservation.
    pub(crate) binds_nothing: bool,
    pub(crate) clipboard: String,
    /// Names of images that every wolf has.
    pub(crate) images: Vec<String>,
    /// What came of uploads, by digest.
    pub(crate) uploads: BTreeMap<String, Vec<u8>>,
    /// Whether wolves read no upload.
    pub(crate) uploads_stall: bool,
    /// Uploads whose caller went away, and those it ended too early.
    pub(crate) uploads_broken: usize,
    pub(crate) uploads_ended: usize,
    pub(crate) counts: BTreeMap<&'static str, usize>,
    /// Rules that the manager broke.
    pub(crate) violations: Vec<String>,
    /// The newest owner epoch that each wolf saw, by sandbox.
    pub(crate) epochs: BTreeMap<String, i64>,
    /// The effect that is not answered, and so is the last of its caller.
    pub(crate) stop_after: Option<Effect>,
}

pub(crate) struct Inner {
    pub(crate) state: Mutex<State>,
    pub(crate) wolf_events: broadcast::Sender<(i64, Result<Wolf, String>)>,
    pub(crate) tunnel_events: broadcast::Sender<(bool, Tunnel)>,
    pub(crate) container_events: broadcast::Sender<(WolfId, ContainerStatus)>,
    /// Steps when an effect was not answered.
    pub(crate) stopped: watch::Sender<u32>,
    /// Execs that ended because their caller went away.
    pub(crate) cancelled_execs: watch::Sender<u32>,
    pub(crate) reservation_ttl: Duration,
}

/// The fleet; clones share it.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) inner: Arc<Inner>,
    pub(crate) address: SocketAddr,
}

impl World {
    /// A fleet with this many wolves online, each with room for 8 sandboxes.
    pub(crate) async fn start(wolves: usize) -> Self {
        let inner = Inner {
            state: Mutex::new(State { own_tunnels: true, agents_ready: true, ..State::default() }),
            wolf_events: broadcast::channel(1024).0,
            tunnel_events: broadcast::channel(1024).0,
            container_events: broadcast::channel(1024).0,
            stopped: watch::Sender::new(0),
            cancelled_execs: watch::Sender::new(0),
            reservation_ttl: Duration::from_secs(3),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = Self { address: listener.local_addr().unwrap(), inner: Arc::new(inner) };
        for _ in 0..wolves {
            world.add_wolf(8);
        }
        let server = tonic::transport::Server::builder()
            .add_service(IdentityServiceServer::new(world.clone()))
            .add_service(WolfServiceServer::new(world.clone()))
            .add_service(SchedulerServiceServer::new(world.clone()))
            .add_service(TunnelServiceServer::new(world.clone()))
            .add_service(DialServiceServer::new(world.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener).inspect_ok(|io| {
                // As our own servers: or each answer waits 40 ms for an ACK.
                io.set_nodelay(true).unwrap();
            }));
        tokio::spawn(server);
        world
    }

    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.inner.state.lock())
    }

    pub(crate) fn count(&self, what: &'static str) -> usize {
        self.with(|state| state.counts.get(what).copied().unwrap_or_default())
    }

    pub(crate) fn add_wolf(&self, room: usize) -> WolfId {
        let id = WolfId::new();
        self.with(|state| state.room.insert(id.clone(), room));
        self.set_wolf(&id, WolfState::Online);
        self.attach(&id.name(), "", "");
        id
    }

    /// The wolf is one project's own.
    pub(crate) fn give_wolf(&self, id: &WolfId, project: &str) {
        self.with(|state| state.owners.insert(id.clone(), project.to_owned()));
        self.set_wolf(id, WolfState::Online);
    }

    pub(crate) fn set_wolf(&self, id: &WolfId, wolf_state: WolfState) {
        let project = self.with(|state| state.owners.get(id).cloned()).unwrap_or_default();
        let mut wolf = Wolf { name: id.name(), project, ..Wolf::default() };
        wolf.set_state(wolf_state);
        self.with(|state| {
            state.revision += 1;
            state.wolves.insert(id.clone(), wolf.clone());
            let _ = self.inner.wolf_events.send((state.revision, Ok(wolf)));
        });
    }

    /// The wolf stops: heartbeats, tunnel, and its sandboxes' tunnels.
    pub(crate) fn take_away(&self, id: &WolfId) {
        self.detach(&id.name());
        let sandboxes: Vec<String> = self.with(|state| {
            state
                .containers
                .iter()
                .filter(|((w, _), _)| w == id)
                .map(|(_, c)| c.sandbox.clone())
                .collect()
        });
        sandboxes.iter().for_each(|name| self.detach(name));
        self.set_wolf(id, WolfState::Offline);
    }

    pub(crate) fn bring_back(&self, id: &WolfId) {
        self.attach(&id.name(), "", "");
        let running: Vec<ContainerStatus> = self.with(|state| {
            state
                .containers
                .iter()
                .filter(|((w, _), c)| w == id && c.state() == ContainerState::Running)
                .map(|(_, c)| c.clone())
                .collect()
        });
        for container in running {
            self.attach(&container.sandbox, &container.project, &container.execution_id);
        }
        self.set_wolf(id, WolfState::Online);
    }

    /// The wolf leaves the fleet for good.
    pub(crate) fn remove_wolf(&self, id: &WolfId) {
        self.detach(&id.name());
        self.with(|state| {
            state.wolves.remove(id);
            state.containers.retain(|(wolf, _), _| wolf != id);
            state.revision += 1;
            let _ = self.inner.wolf_events.send((state.revision, Err(id.name())));
        });
    }

    pub(crate) fn attach(&self, endpoint: &str, project: &str, execution: &str) {
        let tunnel = Tunnel {
            endpoint: endpoint.to_owned(),
            session_id: SessionId::new().to_string(),
            project: project.to_owned(),
            execution_id: execution.to_owned(),
            ..Tunnel::default()
        };
        self.with(|state| {
            state.tunnels.insert(endpoint.to_owned(), tunnel.clone());
            let _ = self.inner.tunnel_events.send((true, tunnel));
        });
    }

    pub(crate) fn detach(&self, endpoint: &str) {
        self.with(|state| {
            if let Some(tunnel) = state.tunnels.remove(endpoint) {
                let _ = self.inner.tunnel_events.send((false, tunnel));
            }
        });
    }

    /// The wolf ends the container of a sandbox, for this reason.
    pub(crate) fn end_container_for(&self, sandbox: &str, reason: &str) {
        self.with(|state| {
            for ((_, name), container) in &mut state.containers {
                if name == sandbox {
                    container.reason = reason.to_owned();
                    container.message = "the wolf's words".to_owned();
                }
            }
        });
        self.end_container(sandbox, 137, false);
    }

    /// The container of a sandbox ends by itself.
    pub(crate) fn end_container(&self, sandbox: &str, code: i32, out_of_memory: bool) {
        self.detach(sandbox);
        self.with(|state| {
            for ((wolf, name), container) in &mut state.containers {
                if name == sandbox {
                    container.set_state(ContainerState::Exited);
                    container.exit_code = Some(code);
                    container.out_of_memory = out_of_memory;
                    let _ = self.inner.container_events.send((wolf.clone(), container.clone()));
                }
            }
        });
    }

    /// After an effect happened: answers whether its caller is to hear of it.
    /// When not, this never returns.
    pub(crate) async fn after(&self, effect: Effect) {
        let stops = self.with(|state| state.stop_after == Some(effect));
        if stops {
            self.inner.stopped.send_modify(|count| *count += 1);
            std::future::pending::<()>().await;
        }
    }

    /// What is left in the fleet although no sandbox should be.
    pub(crate) fn leaks(&self) -> Vec<String> {
        let ttl = self.inner.reservation_ttl;
        self.with(|state| {
            let mut leaks = state.violations.clone();
            leaks.extend(state.containers.keys().map(|(_, name)| format!("container of {name}")));
            for held in &state.reservations {
                if scheduler::is_live(held, ttl) {
                    leaks.push(format!("{} {:?}", held.reservation.name, held.reservation.state()));
                }
            }
            for (sandbox, execution) in &state.minted {
                let all = (sandbox.clone(), String::new());
                let this = (sandbox.clone(), execution.clone());
                if !state.revoked.contains(&all) && !state.revoked.contains(&this) {
                    leaks.push(format!("token of {sandbox}"));
                }
            }
            leaks
        })
    }
}

/// A failure as our services say it.
pub(crate) fn fault(reason: wolfpack_types::Reason, message: &str) -> tonic::Status {
    wolfpack_rpc::to_status(wolfpack_types::Fault::new(reason, message))
}

pub(crate) fn not_served() -> tonic::Status {
    fault(wolfpack_types::Reason::RouteNotFound, "this fleet has no such thing")
}
