use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use wolfpack_runtime::Context;
use wolfpack_types::sandbox_boot::SHARED_DOCKER_SOCKET;

use super::*;

const WAIT: Duration = Duration::from_secs(20);

struct Host {
    context: Context,
    dir: tempfile::TempDir,
    shared: SharedDocker,
    sandbox: SandboxId,
    engine: UnixListener,
}

impl Host {
    async fn new() -> Self {
        let context = Context::quiet("wolf");
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("engine.sock");
        let engine = UnixListener::bind(&socket).unwrap();
        let sandbox = SandboxId::parse("s1").unwrap();
        std::fs::create_dir(dir.path().join("s1")).unwrap();
        let wolf = WolfId::parse("w1").unwrap();
        let shared = SharedDocker::new(socket, wolf, context.supervisor.clone());
        shared.serve(dir.path(), &sandbox, None).await.unwrap();
        Self { context, dir, shared, sandbox, engine }
    }

    async fn client(&self) -> UnixStream {
        UnixStream::connect(self.dir.path().join("s1").join(SHARED_DOCKER_SOCKET)).await.unwrap()
    }

    async fn accept(&self) -> UnixStream {
        tokio::time::timeout(WAIT, self.engine.accept()).await.unwrap().unwrap().0
    }
}

/// Reads until what was read ends so.
async fn until(stream: &mut UnixStream, end: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    let reading = async {
        let mut byte = [0];
        while !read.ends_with(end) {
            stream.read_exact(&mut byte).await.unwrap();
            read.push(byte[0]);
        }
    };
    tokio::time::timeout(WAIT, reading).await.unwrap();
    read
}

#[tokio::test]
async fn what_is_made_is_labelled_and_its_size_is_bounded() {
    let host = Host::new().await;
    let mut client = host.client().await;
    let body = r#"{"Image":"x","Labels":{"dev.wolfpack.sibling-of":"other"}}"#;
    let head = format!(
        "POST /v1.41/containers/create?name=n HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).await.unwrap();
    let mut engine = host.accept().await;
    let head = String::from_utf8(until(&mut engine, b"\r\n\r\n").await).unwrap();
    assert!(head.starts_with("POST /v1.41/containers/create?name=n HTTP/1.1"), "{head}");
    assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
    let lowered = head.to_lowercase();
    let length = lowered.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
    let mut told = vec![0; length.parse().unwrap()];
    engine.read_exact(&mut told).await.unwrap();
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
    assert_eq!(told["Labels"]["dev.wolfpack.sibling-of"], "s1");
    assert_eq!(
        (told["Labels"]["dev.wolfpack.wolf"].as_str(), told["Image"].as_str()),
        (Some("w1"), Some("x"))
    );
    engine.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}").await.unwrap();
    let answer = String::from_utf8(until(&mut client, b"{}").await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");

    let mut client = host.client().await;
    let head = format!(
        "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: {}\r\n\r\n",
        2 << 20
    );
    client.write_all(head.as_bytes()).await.unwrap();
    let filler = vec![b' '; 2 << 20];
    let _ = client.write_all(&filler).await;
    let answer = String::from_utf8(until(&mut client, b"}").await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("wolfpack: "), "{answer}");
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways_and_half_closes() {
    let host = Host::new().await;
    let mut client = host.client().await;
    client
        .write_all(b"POST /v1.41/exec/1/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\n{}")
        .await
        .unwrap();
    let mut engine = host.accept().await;
    let head = String::from_utf8(until(&mut engine, b"{}").await).unwrap().to_lowercase();
    assert!(head.contains("upgrade: tcp") && head.contains("connection: upgrade"), "{head}");
    engine
        .write_all(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nfirst")
        .await
        .unwrap();
    let answer = until(&mut client, b"first").await;
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    client.write_all(b"input").await.unwrap();
    client.shutdown().await.unwrap();
    let mut read = Vec::new();
    tokio::time::timeout(WAIT, engine.read_to_end(&mut read)).await.unwrap().unwrap();
    assert_eq!(read, b"input", "the end of input passes");
    engine.write_all(b"output").await.unwrap();
    drop(engine);
    let mut rest = Vec::new();
    tokio::time::timeout(WAIT, client.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, b"output");
}

#[tokio::test]
async fn with_the_sandbox_all_that_goes_through_ends() {
    let host = Host::new().await;
    let mut client = host.client().await;
    client.write_all(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n").await.unwrap();
    let mut engine = host.accept().await;
    until(&mut engine, b"\r\n\r\n").await;
    engine
        .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")
        .await
        .unwrap();
    until(&mut client, b"{}").await;
    tokio::time::timeout(WAIT, host.shared.stop(&host.sandbox)).await.unwrap();
    host.shared.stop(&host.sandbox).await;
    let mut rest = Vec::new();
    tokio::time::timeout(WAIT, engine.read_to_end(&mut rest)).await.unwrap().unwrap();
    let refused = UnixStream::connect(host.dir.path().join("s1").join(SHARED_DOCKER_SOCKET)).await;
    assert!(refused.is_err(), "nobody listens");
    // Served again, as after a restart of the agent.
    host.shared.serve(host.dir.path(), &host.sandbox, None).await.unwrap();
    host.client().await;
    drop(client);
    let report = host.context.supervisor.shutdown(WAIT).await;
    assert_eq!(report, wolfpack_runtime::ShutdownReport::default());
}

#[tokio::test]
async fn an_engine_that_is_away_is_said_in_its_own_form() {
    let mut host = Host::new().await;
    let away = host.dir.path().join("away.sock");
    let wolf = WolfId::parse("w1").unwrap();
    host.shared.stop(&host.sandbox).await;
    host.shared = SharedDocker::new(away, wolf, host.context.supervisor.clone());
    host.shared.serve(host.dir.path(), &host.sandbox, None).await.unwrap();
    let mut client = host.client().await;
    client.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").await.unwrap();
    let answer = String::from_utf8(until(&mut client, b"}").await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("\"message\""), "{answer}");
}
