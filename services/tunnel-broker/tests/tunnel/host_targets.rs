//! What runs beside a wolf's agent, reached by its admins through a broker:
//! a stand-in that serves games-on-whales Wolf's published API on a unix socket.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::broadcast;
use wolfpack_proto::registry::v1::Wolf;
use wolfpack_rpc::RpcChannel;
use wolfpack_tunnel::{Dialer, TunnelStream};
use wolfpack_types::{Endpoint, Fault, ProjectId, Reason, WolfId};
use wolfpack_wolf_agent::config::TargetsConfig;
use wolfpack_wolf_agent::targets;

use crate::support::{Fleet, SOON, attached, eventually, target};
use crate::support::{checksum, pattern};

/// Wolf's API as its documentation has it: JSON over HTTP/1.1, and its events
/// as a stream of server-sent events that never ends.
#[derive(Clone)]
struct StandIn {
    events: broadcast::Sender<String>,
    listeners: Arc<AtomicUsize>,
}

impl StandIn {
    fn start(socket: &Path) -> Self {
        let standin = Self { events: broadcast::channel(64).0, listeners: Arc::default() };
        let listener = UnixListener::bind(socket).unwrap();
        let serving = standin.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let standin = serving.clone();
                tokio::spawn(async move { standin.serve(socket).await });
            }
        });
        standin
    }

    async fn serve(self, socket: UnixStream) {
        let mut socket = BufReader::new(socket);
        while let Some((head, body)) = request(&mut socket).await {
            let answer = match head.as_str() {
                "GET /api/v1/apps" => {
                    r#"{"success":true,"apps":[{"title":"Desktop","id":"1"}]}"#.to_owned()
                }
                "GET /api/v1/sessions" => r#"{"success":true,"sessions":[]}"#.to_owned(),
                "POST /api/v1/sessions/add" => {
                    format!(
                        r#"{{"success":true,"length":{},"sum":"{}"}}"#,
                        body.len(),
                        checksum(&body)
                    )
                }
                // As large as a list of icons.
                "GET /api/v1/large" => String::from_utf8(vec![b'x'; 8 << 20]).unwrap(),
                "GET /api/v1/events" => return self.stream(socket).await,
                _ => r#"{"success":false,"error":"not found"}"#.to_owned(),
            };
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                answer.len()
            );
            if socket.write_all((head + &answer).as_bytes()).await.is_err() {
                return;
            }
        }
    }

    async fn stream(self, mut socket: BufReader<UnixStream>) {
        let mut events = self.events.subscribe();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\r\n:keepalive\n\n";
        socket.write_all(head.as_bytes()).await.unwrap();
        self.listeners.fetch_add(1, Ordering::SeqCst);
        let mut byte = [0];
        loop {
            tokio::select! {
                event = events.recv() => {
                    let event = format!("event: PlugDeviceEvent\ndata: {}\n\n", event.unwrap());
                    if socket.write_all(event.as_bytes()).await.is_err() {
                        break;
                    }
                }
                // Whoever listens has gone.
                _ = socket.read(&mut byte) => break,
            }
        }
        self.listeners.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A request's method with its path, and its body; none at the end.
async fn request(socket: &mut BufReader<UnixStream>) -> Option<(String, Vec<u8>)> {
    let mut length = 0;
    let mut first = String::new();
    loop {
        let mut line = String::new();
        if socket.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.is_empty() {
            break;
        }
        if first.is_empty() {
            first = line;
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.ok()?;
    Some((first.rsplit_once(' ')?.0.to_owned(), body))
}

/// A wolf of a project that exports what `config` says.
pub(crate) async fn wolf(
    fleet: &Fleet,
    project: Option<&ProjectId>,
    config: &TargetsConfig,
) -> Endpoint {
    fleet.registry.followed().await;
    let wolf = WolfId::new();
    let mut builder = fleet.wolf(&wolf);
    targets::export(&mut builder, config).unwrap();
    let agent = builder.start(&fleet.context.supervisor);
    attached(&agent).await;
    let owner = project.map(ProjectId::name).unwrap_or_default();
    fleet.registry.upsert(Wolf { name: wolf.name(), project: owner, ..Wolf::default() });
    let endpoint = Endpoint::Wolf(wolf);
    let known = || {
        fleet.running.broker.owner(&endpoint)
            != wolfpack_tunnel_broker::domain::access::Owner::Unknown
    };
    eventually(known, || "the owner is known".into()).await;
    endpoint
}

/// A user's way: the gateway's certificate and the user's key.
pub(crate) fn user(fleet: &Fleet, project: &ProjectId, rank: &str) -> Dialer {
    let key = secrecy::SecretString::from(format!("wp_{project}{rank}"));
    let channel: RpcChannel = fleet.service_channel("gateway").with_bearer(key);
    Dialer::new(channel)
}

async fn get(stream: &mut BufReader<TunnelStream>, path: &str) -> String {
    let head = format!("GET {path} HTTP/1.1\r\nHost: wolf\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    body(stream).await
}

async fn body(stream: &mut BufReader<TunnelStream>) -> String {
    let mut length = 0;
    loop {
        let mut line = String::new();
        assert_ne!(stream.read_line(&mut line).await.unwrap(), 0, "it ended in the head");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    String::from_utf8(body).unwrap()
}

fn only_wolf(socket: &Path) -> TargetsConfig {
    TargetsConfig {
        wolf_api: socket.to_owned(),
        moonlight_web: String::new(),
        ..TargetsConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_of_a_wolf_passes_as_it_is_with_its_event_stream() {
    let fleet = Fleet::start().await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("wolf.sock");
    let standin = StandIn::start(&socket);
    let project = ProjectId::new();
    let endpoint = wolf(&fleet, Some(&project), &only_wolf(&socket)).await;
    let admin = user(&fleet, &project, ".admin");
    let api = target("wolf-api");

    // One connection, several requests, large bodies both ways.
    let mut stream = BufReader::new(admin.dial(&endpoint, &api, SOON).await.unwrap());
    assert!(get(&mut stream, "/api/v1/apps").await.contains("Desktop"));
    assert!(get(&mut stream, "/api/v1/sessions").await.contains(r#""sessions":[]"#));
    assert_eq!(get(&mut stream, "/api/v1/large").await.len(), 8 << 20);
    let upload = pattern(5 << 20);
    let head = format!(
        "POST /api/v1/sessions/add HTTP/1.1\r\nHost: wolf\r\nContent-Length: {}\r\n\r\n",
        upload.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&upload).await.unwrap();
    let answer = body(&mut stream).await;
    assert!(answer.contains(&format!(r#""sum":"{}""#, checksum(&upload))), "{answer}");
    // Half-close: Wolf sees the end, closes, and so ours ends well.
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).await.unwrap(), 0);
    stream.into_inner().close().await.unwrap();

    // Events come when they happen, each by itself, for as long as one listens.
    let mut stream = BufReader::new(admin.dial(&endpoint, &api, SOON).await.unwrap());
    stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: wolf\r\n\r\n").await.unwrap();
    let mut lines = stream.lines();
    while lines.next_line().await.unwrap().expect("a head") != ":keepalive" {}
    for at in 0..20 {
        standin.events.send(format!("{{\"session_id\":{at}}}")).unwrap();
        let arrived = async {
            loop {
                let line = lines.next_line().await.unwrap().expect("it goes on");
                if let Some(data) = line.strip_prefix("data: ") {
                    break data.to_owned();
                }
            }
        };
        let data = tokio::time::timeout(SOON, arrived).await.expect("an event comes at once");
        assert_eq!(data, format!("{{\"session_id\":{at}}}"));
    }
    // Who stops listening is gone at Wolf, too.
    assert_eq!(standin.listeners.load(Ordering::SeqCst), 1);
    drop(lines);
    eventually(|| standin.listeners.load(Ordering::SeqCst) == 0, || "the listener goes".into())
        .await;
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_admins_get_there() {
    let fleet = Fleet::start().await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("wolf.sock");
    let _standin = StandIn::start(&socket);
    let (mine, theirs) = (ProjectId::new(), ProjectId::new());
    let own = wolf(&fleet, Some(&mine), &only_wolf(&socket)).await;
    let shared = wolf(&fleet, None, &only_wolf(&socket)).await;
    let api = target("wolf-api");
    for (who, endpoint, project, rank, expected) in [
        ("an admin of the project", &own, &mine, ".admin", Ok(())),
        ("a developer of it", &own, &mine, "", Err(Reason::TargetForbidden)),
        ("an admin of another", &own, &theirs, ".admin", Err(Reason::EndpointNotFound)),
        ("a platform admin elsewhere", &own, &theirs, ".platform", Err(Reason::EndpointNotFound)),
        ("a platform admin", &shared, &mine, ".platform", Ok(())),
        ("an admin of a project", &shared, &mine, ".admin", Err(Reason::TargetForbidden)),
        ("a developer", &shared, &mine, "", Err(Reason::TargetForbidden)),
    ] {
        let dialer = user(&fleet, project, rank);
        let answer: Result<TunnelStream, Fault> = dialer.dial(endpoint, &api, SOON).await;
        if let (Err(fault), true) = (&answer, endpoint == &shared) {
            assert!(fault.message.contains("ask one of them"), "{fault}");
        }
        assert_eq!(answer.map(drop).map_err(|fault| fault.reason), expected, "{who}");
    }
    // Nothing but what is exported, and nothing else of a wolf at all.
    let admin = user(&fleet, &mine, ".admin");
    for name in ["moonlight-web", "runtime", "tcp:22"] {
        let fault = admin.dial(&own, &target(name), SOON).await.unwrap_err();
        assert_eq!(fault.reason, Reason::TargetForbidden, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_told_in_words_and_found_when_it_comes() {
    let fleet = Fleet::start().await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("wolf.sock");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = TargetsConfig {
        wolf_api: socket.clone(),
        moonlight_web: listener.local_addr().unwrap().to_string(),
        ..TargetsConfig::default()
    };
    let project = ProjectId::new();
    let endpoint = wolf(&fleet, Some(&project), &config).await;
    let admin = user(&fleet, &project, ".admin");
    let fault = admin.dial(&endpoint, &target("wolf-api"), SOON).await.unwrap_err();
    assert_eq!(fault.reason, Reason::TargetUnreachable);
    assert!(fault.message.contains("runs no Wolf"), "{fault}");
    let _standin = StandIn::start(&socket);
    let mut stream =
        BufReader::new(admin.dial(&endpoint, &target("wolf-api"), SOON).await.unwrap());
    assert!(get(&mut stream, "/api/v1/apps").await.contains("Desktop"));

    // moonlight-web by TCP; a caller that gives up in the middle of something
    // is a reset there, not the end of what it sent.
    let mut stream = admin.dial(&endpoint, &target("moonlight-web"), SOON).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    stream.write_all(b"GET / HT").await.unwrap();
    let mut begun = [0; 8];
    far.read_exact(&mut begun).await.unwrap();
    far.write_all(b"HTTP/1.1 101 ").await.unwrap();
    let mut answer = [0; 13];
    stream.read_exact(&mut answer).await.unwrap();
    drop(stream);
    let end = tokio::time::timeout(SOON, far.read(&mut [0; 1])).await.expect("it is told");
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}
