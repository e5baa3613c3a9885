//! Peers on raw sockets that do what no client does.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wolfpack_proto::registry::v1::WatchWolvesRequest;
use wolfpack_rpc::ListenConfig;
use wolfpack_types::Reason;

use crate::certificates::Ca;
use crate::crowd::connect;
use crate::world::{ANY, Wolves, World, eventually, get};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const GOAWAY: u8 = 7;
/// Well before the keepalive would end a peer that answers no ping.
const CUT_OFF: Duration = Duration::from_secs(9);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Reads frames until the connection ends; the code of a GOAWAY, if one came.
async fn until_closed(socket: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<u32> {
    let mut goaway = None;
    loop {
        let mut head = [0; 9];
        if socket.read_exact(&mut head).await.is_err() {
            return goaway;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        if socket.read_exact(&mut payload).await.is_err() {
            return goaway;
        }
        if head[3] == GOAWAY {
            goaway = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
    }
}

async fn closes_within(mut socket: TcpStream, limit: Duration) -> Duration {
    let begun = Instant::now();
    let mut rest = Vec::new();
    let read = timeout(limit, socket.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "still open after {limit:?}");
    begun.elapsed()
}

#[tokio::test]
async fn who_does_not_begin_is_closed_and_others_are_served() {
    let world =
        World::plain(|profile| profile.first_byte_deadline = Duration::from_millis(400)).await;
    let begun = Instant::now();
    let silent = TcpStream::connect(world.address).await.unwrap();
    let mut half = TcpStream::connect(world.address).await.unwrap();
    half.write_all(&PREFACE[..10]).await.unwrap();
    let mut other = TcpStream::connect(world.address).await.unwrap();
    other.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(world.client().get_wolf(get("wolves/ok")).await.is_ok());
    let limit = Duration::from_secs(5);
    closes_within(silent, limit).await;
    assert!(begun.elapsed() >= Duration::from_millis(400), "not before its time");
    closes_within(half, limit).await;
    closes_within(other, limit).await;
    assert_eq!(world.metric("rpc_server_connections_refused_total", &["preface"]), 3.0);
    assert!(world.client().get_wolf(get("wolves/ok")).await.is_ok());
    world.stop().await;
}

#[tokio::test]
async fn a_peer_that_falls_silent_after_the_preface_is_found_by_keepalive() {
    let world = World::plain(|profile| {
        profile.keepalive_interval = Duration::from_millis(200);
        profile.keepalive_timeout = Duration::from_millis(200);
    })
    .await;
    let mut socket = TcpStream::connect(world.address).await.unwrap();
    socket.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
    closes_within(socket, Duration::from_secs(5)).await;
    world.stop().await;
}

#[tokio::test]
async fn a_stranger_does_not_stay_at_the_data_plane_and_who_has_called_does() {
    if !crate::data_plane::is_meant() {
        return;
    }
    let time = Duration::from_secs(1);
    let world = World::plain(|profile| profile.stranger_deadline = time).await;
    let mut known = world.client();
    let watch = known.watch_wolves(WatchWolvesRequest::default()).await;
    let mut watch = watch.unwrap().into_inner();
    let address = world.address;
    let trickle = tokio::spawn(async move {
        let mut socket = TcpStream::connect(address).await.unwrap();
        // A call without a credential, and the head of a frame of 10,000 bytes; then one
        // of them now and then.
        let call = frame(1, 0x5, 1, &[0x82, 0x86, 0x84]);
        let head = frame(0, 0, 3, &[0; 10_000])[..9].to_vec();
        socket.write_all(&[PREFACE, SETTINGS, &call, &head].concat()).await.unwrap();
        let (mut reader, mut writer) = socket.into_split();
        let begun = Instant::now();
        let drip = async {
            while writer.write_all(&[0]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let read = async { reader.read_to_end(&mut Vec::new()).await.is_ok() };
        tokio::select! {
            () = drip => {}
            _ = read => {}
        }
        begun.elapsed()
    });
    let stayed = timeout(CUT_OFF, trickle).await.expect("it is ended").unwrap();
    assert!(stayed >= time, "not before its time: {stayed:?}");
    // Its stream goes on, and so its connection.
    for _ in 0..3 {
        assert!(timeout(CUT_OFF, watch.message()).await.unwrap().unwrap().is_some());
    }
    drop((watch, known));
    world.stop().await;
}

#[tokio::test]
async fn half_a_tls_hello_is_closed_and_takes_nobodys_turn() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let listen = ListenConfig::mutual(ANY, ca.service(folder.path(), "registry"));
    let world = World::start(
        &listen,
        |profile| {
            profile.handshake_deadline = Duration::from_secs(2);
            profile.concurrent_handshakes = 1;
        },
        Wolves::default(),
    )
    .await;
    let mut trickle = Vec::new();
    for _ in 0..20 {
        let mut socket = TcpStream::connect(world.address).await.unwrap();
        // The head of a handshake record that promises 512 bytes, and a few of them.
        socket.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.unwrap();
        trickle.push(socket);
    }
    let tls = wolfpack_rpc::ClientTls::load(&ca.service(folder.path(), "scheduler")).unwrap();
    // Were they served in turn, this one would come after forty seconds.
    let answer = crate::tls::client(&world, &tls).get_wolf(get("wolves/ok")).await;
    assert!(answer.is_ok(), "{answer:?}");
    for socket in trickle {
        closes_within(socket, Duration::from_secs(5)).await;
    }
    assert_eq!(world.metric("rpc_server_connections_refused_total", &["handshake_timeout"]), 20.0);
    world.stop().await;
}

#[tokio::test]
async fn connections_over_the_cap_are_refused_at_once() {
    let world = World::plain(|profile| {
        profile.max_connections = 3;
        profile.first_byte_deadline = Duration::from_secs(3);
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(TcpStream::connect(world.address).await.unwrap());
    }
    eventually(|| world.metric("rpc_server_connections", &[]), |open| *open >= 3.0).await;
    let over = TcpStream::connect(world.address).await.unwrap();
    assert!(closes_within(over, Duration::from_secs(5)).await < Duration::from_secs(2));
    assert!(world.metric("rpc_server_connections_refused_total", &["connection_limit"]) >= 1.0);
    for socket in held {
        closes_within(socket, Duration::from_secs(5)).await;
    }
    assert!(world.client().get_wolf(get("wolves/ok")).await.is_ok(), "places come free again");
    world.stop().await;
}

/// One address may have its share of the connections, not all of them.
#[tokio::test]
async fn one_address_does_not_lock_out_the_others() {
    let world = World::plain(|profile| {
        profile.max_connections = 8;
        profile.connections_per_address = Some(3);
        profile.first_byte_deadline = Duration::from_secs(3600);
        profile.drain = Duration::from_secs(1);
    })
    .await;
    let (one, two) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2));
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(connect(world.address, one).await);
    }
    eventually(|| world.metric("rpc_server_connections ", &[]), |open| *open >= 3.0).await;
    for _ in 0..20 {
        closes_within(connect(world.address, one).await, Duration::from_secs(30)).await;
    }
    let refused = world.metric("rpc_server_connections_refused_total", &["address_limit"]);
    assert_eq!(refused, 20.0);
    let (status, _held) = crate::crowd::ask(world.address, two, true).await;
    assert_eq!(status.await, None, "another address is served");
    // What it gives back it may take again.
    idle.pop();
    eventually(|| world.metric("rpc_server_connections ", &[]), |open| *open <= 3.0).await;
    let (status, _held) = crate::crowd::ask(world.address, one, true).await;
    assert_eq!(status.await, None);
    drop(idle);
    world.stop().await;
}

/// Each request breaks a rule of HTTP/2 in a way that makes the server reset
/// its stream; the count of such resets is what bounds it.
#[tokio::test]
async fn twenty_thousand_forced_resets_are_cut_off() {
    let world = World::plain(|profile| profile.local_reset_streams = 1024).await;
    let socket = TcpStream::connect(world.address).await.unwrap();
    let (mut read, mut write) = socket.into_split();
    write.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
    let reader = tokio::spawn(async move { until_closed(&mut read).await });
    let mut sent = 0u32;
    for index in 0..20_000u32 {
        let stream = 1 + 2 * index;
        // A POST that promises a body of 0 bytes and sends some: a stream error.
        let headers =
            [0x83, 0x86, 0x44, 0x02, b'/', b'x', 0x41, 0x01, b'h', 0x0f, 0x0d, 0x01, b'0'];
        let mut bytes = frame(1, 0x4, stream, &headers);
        bytes.extend(frame(0, 0x1, stream, b"too much"));
        if write.write_all(&bytes).await.is_err() {
            break;
        }
        sent += 1;
        if index % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let goaway = timeout(CUT_OFF, reader).await.expect("never cut off").unwrap();
    assert!(sent < 20_000 || goaway.is_some(), "sent {sent}, goaway {goaway:?}");
    assert!(goaway.is_none_or(|code| code == 11), "ENHANCE_YOUR_CALM, not {goaway:?}");
    assert!(world.client().get_wolf(get("wolves/ok")).await.is_ok(), "others are served");
    world.stop().await;
}

/// Headers without end, in pieces.
#[tokio::test]
async fn a_flood_of_continuations_is_cut_off() {
    let world = World::plain(|_| {}).await;
    let socket = TcpStream::connect(world.address).await.unwrap();
    let (mut read, mut write) = socket.into_split();
    let mut bytes = [PREFACE, SETTINGS].concat();
    bytes.extend(frame(1, 0, 1, &[0x83, 0x86, 0x44, 0x02, b'/', b'x']));
    for _ in 0..20_000 {
        // One literal header of no use each.
        bytes.extend(frame(9, 0, 1, &[0x40, 0x01, b'a', 0x01, b'b']));
    }
    let reader = tokio::spawn(async move { until_closed(&mut read).await });
    let _ = write.write_all(&bytes).await;
    timeout(CUT_OFF, reader).await.expect("never cut off").unwrap();
    assert!(world.client().get_wolf(get("wolves/ok")).await.is_ok(), "others are served");
    world.stop().await;
}

/// Rapid reset: open and cancel at once, without end.
#[tokio::test]
async fn rapid_resets_by_the_client_are_cut_off() {
    let world = World::plain(|profile| profile.pending_reset_streams = 20).await;
    let socket = TcpStream::connect(world.address).await.unwrap();
    let (mut read, mut write) = socket.into_split();
    write.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
    let reader = tokio::spawn(async move { until_closed(&mut read).await });
    let headers = [0x83, 0x86, 0x44, 0x02, b'/', b'x', 0x41, 0x01, b'h'];
    let mut bytes = Vec::new();
    for index in 0..20_000u32 {
        let stream = 1 + 2 * index;
        bytes.extend(frame(1, 0x4, stream, &headers));
        bytes.extend(frame(3, 0, stream, &8u32.to_be_bytes()));
    }
    let _ = write.write_all(&bytes).await;
    let goaway = timeout(CUT_OFF, reader).await.expect("never cut off").unwrap();
    assert!(goaway.is_none_or(|code| code == 11), "{goaway:?}");
    assert!(world.client().get_wolf(get("wolves/ok")).await.is_ok(), "others are served");
    world.stop().await;
}

/// HTTP/2 polls a response only when its peer has room for more: the deadline
/// must not depend on it.
#[tokio::test]
async fn a_peer_that_does_not_read_keeps_no_handler_beyond_the_deadline() {
    let world = World::plain(|_| {}).await;
    let socket = TcpStream::connect(world.address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    let (sender, connection) =
        builder.initial_window_size(0).handshake::<_, bytes::Bytes>(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::post("http://h/wolfpack.registry.v1.WolfService/WatchWolves")
        .header("content-type", "application/grpc")
        .header("authorization", "Bearer wp_developer")
        .header("grpc-timeout", "500m")
        .body(())
        .unwrap();
    let mut sender = sender.ready().await.unwrap();
    let (response, mut body) = sender.send_request(request, false).unwrap();
    body.send_data(bytes::Bytes::from_static(&[0; 5]), true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(world.probe.running(), 1);
    eventually(|| world.probe.running(), |running| *running == 0).await;
    drop((response, sender));
    connection.abort();
    world.stop().await;
}

/// Half an upload must not pass for a whole one: tonic takes a stream that is
/// cancelled for one that has ended.
#[tokio::test]
async fn a_request_that_is_cancelled_is_no_end_and_one_that_ends_is() {
    let (ends, mut ended) = tokio::sync::mpsc::channel(8);
    let wolves = Wolves { ends: Some(ends), ..Wolves::default() };
    let world = World::start(&ListenConfig::plain(ANY), |_| {}, wolves).await;
    for (reset, end) in [(true, Some(Reason::Cancelled)), (false, None)] {
        let socket = TcpStream::connect(world.address).await.unwrap();
        let (sender, connection) = h2::client::handshake(socket).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = http::Request::post("http://h/wolfpack.registry.v1.WolfService/Heartbeat")
            .header("content-type", "application/grpc")
            .header("authorization", "Bearer wp_developer")
            .body(())
            .unwrap();
        let mut sender = sender.ready().await.unwrap();
        let (response, mut body) = sender.send_request(request, false).unwrap();
        body.send_data(bytes::Bytes::from_static(&[0; 5]), false).unwrap();
        let response = response.await.unwrap();
        if reset {
            body.send_reset(h2::Reason::CANCEL);
        } else {
            body.send_data(bytes::Bytes::new(), true).unwrap();
        }
        let heard = timeout(CUT_OFF, ended.recv()).await.expect("never heard of");
        assert_eq!(heard, Some(end), "reset: {reset}");
        drop((response, sender));
        connection.abort();
    }
    world.stop().await;
}

#[tokio::test]
async fn the_limits_are_said_in_the_settings() {
    let world = World::plain(|profile| profile.max_concurrent_streams = 123).await;
    let mut socket = TcpStream::connect(world.address).await.unwrap();
    socket.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
    let mut head = [0; 9];
    timeout(Duration::from_secs(5), socket.read_exact(&mut head)).await.unwrap().unwrap();
    assert_eq!(head[3], 4, "the first frame is SETTINGS");
    let mut payload = vec![0; usize::from(head[2])];
    socket.read_exact(&mut payload).await.unwrap();
    let setting = |id: u16| {
        payload
            .chunks(6)
            .find(|entry| u16::from_be_bytes([entry[0], entry[1]]) == id)
            .map(|entry| u32::from_be_bytes(entry[2..].try_into().unwrap()))
    };
    assert_eq!(setting(3), Some(123), "MAX_CONCURRENT_STREAMS");
    assert_eq!(setting(4), Some(1 << 20), "INITIAL_WINDOW_SIZE");
    assert_eq!(setting(5), Some(64 * 1024), "MAX_FRAME_SIZE");
    assert_eq!(setting(6), Some(16 * 1024), "MAX_HEADER_LIST_SIZE");
    drop(socket);
    world.stop().await;
}
