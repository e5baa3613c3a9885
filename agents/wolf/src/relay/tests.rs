use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wolfpack_runtime::Context;

use super::*;

const FREE: RelayPorts = RelayPorts { gateway: 0, broker: 0 };

fn target(name: &'static str, port: u16) -> Target {
    let address = HostPort { host: "127.0.0.1".into(), port };
    Target { name, address: Arc::new(ArcSwap::from_pointee(address)) }
}

async fn relay(context: &Context, wanted: RelayPorts, gateway: Target, broker: Target) -> Relay {
    let metrics = Metrics::new(&context.telemetry.meter());
    let bounds = Arc::new(Bounds::default());
    let targets = (gateway, broker);
    Relay::listen(Ipv4Addr::LOCALHOST, wanted, targets, bounds, &context.supervisor, &metrics)
        .await
        .unwrap()
}

async fn server(greeting: &'static [u8]) -> (u16, tokio::task::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        socket.read_to_end(&mut read).await.unwrap();
        // Only after the other side has finished: half-close must pass through.
        socket.write_all(greeting).await.unwrap();
        read
    });
    (port, task)
}

async fn exchange(port: u16, send: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket.write_all(send).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut read = Vec::new();
    socket.read_to_end(&mut read).await.unwrap();
    read
}

#[tokio::test]
async fn each_port_leads_to_its_target_and_half_close_passes() {
    let context = Context::quiet("test");
    let (gateway_port, gateway) = server(b"from the gateway").await;
    let (broker_port, broker) = server(b"from the broker").await;
    let relay =
        relay(&context, FREE, target("gateway", gateway_port), target("broker", broker_port)).await;
    assert_eq!(exchange(relay.ports().gateway, b"to the gateway").await, b"from the gateway");
    let large = vec![7u8; 3 << 20];
    assert_eq!(exchange(relay.ports().broker, &large).await, b"from the broker");
    assert_eq!(gateway.await.unwrap(), b"to the gateway");
    assert_eq!(broker.await.unwrap(), large);
}

#[tokio::test]
async fn a_target_that_moves_is_found_again() {
    let context = Context::quiet("test");
    let moving = target("gateway", 1);
    let relay = relay(&context, FREE, moving.clone(), target("broker", 1)).await;
    assert_eq!(exchange(relay.ports().gateway, b"").await, b"", "nobody is there");
    let (port, _server) = server(b"here now").await;
    moving.address.store(Arc::new(HostPort { host: "localhost".into(), port }));
    assert_eq!(exchange(relay.ports().gateway, b"x").await, b"here now");
}

#[tokio::test]
async fn a_port_that_is_taken_is_replaced_and_a_kept_one_is_used_again() {
    let context = Context::quiet("test");
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let wanted = RelayPorts { gateway: taken.local_addr().unwrap().port(), broker: 0 };
    let first = relay(&context, wanted, target("gateway", 1), target("broker", 1)).await;
    let ports = first.ports();
    assert_ne!(ports.gateway, wanted.gateway);
    let dir = tempfile::tempdir().unwrap();
    let file = PortsFile::in_dir(dir.path());
    assert_eq!(file.read(), None);
    file.write(ports).unwrap();
    drop(first);
    context.supervisor.shutdown(Duration::from_secs(10)).await;
    let context = Context::quiet("test");
    let again = file.read().unwrap();
    let second = relay(&context, again, target("gateway", 1), target("broker", 1)).await;
    assert_eq!(second.ports(), ports);
}

#[tokio::test]
async fn one_sandbox_cannot_take_all_connections() {
    let all = Arc::new(Semaphore::new(200));
    let bounds = Arc::new(Bounds { all, ..Bounds::default() });
    let (greedy, other) = (IpAddr::from([172, 20, 0, 2]), IpAddr::from([172, 20, 0, 3]));
    let held: Vec<Share> =
        (0..CONNECTIONS_EACH).map(|_| bounds.take(greedy).ok().unwrap()).collect();
    assert_eq!(bounds.take(greedy).err(), Some("sandbox_full"));
    let rest: Vec<Share> =
        (0..200 - CONNECTIONS_EACH).map(|_| bounds.take(other).ok().unwrap()).collect();
    assert_eq!(bounds.take(other).err(), Some("full"));
    drop(rest);
    // On a bridge of its own all its addresses are one sandbox.
    let own = Arc::new(bounds.of_one());
    let taken: Vec<Share> = (0..200 - CONNECTIONS_EACH)
        .map(|n| own.take(IpAddr::from([172, 20, 1, u8::try_from(n).unwrap()])).ok().unwrap())
        .collect();
    assert_eq!(own.take(greedy).err(), Some("full"), "within the whole");
    assert_eq!(own.each.lock().len(), 1);
    drop((held, taken));
    assert!(bounds.each.lock().is_empty() && own.each.lock().is_empty());
    assert_eq!(bounds.all.available_permits(), 200);
}
