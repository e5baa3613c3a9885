//! What a caller sends arrives as it was sent, and ends where it ends.

use std::time::{Duration, Instant};

use super::harness::shell;
use super::sandbox;

/// Bytes without a pattern that a lost or doubled chunk would keep.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> =
        std::iter::repeat_with(&mut next).take(length.div_ceil(8)).flatten().collect();
    bytes.truncate(length);
    bytes
}

/// By another program than the one under test.
fn sha256(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let output = std::process::Command::new("sha256sum").arg(file.path()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn half_closed_stdin_is_exact() {
    let sandbox = sandbox().await;
    for length in [0, 1, 65_537, 3 << 20] {
        let bytes = noise(length);
        let run = sandbox.start(shell("cat | sha256sum")).await.unwrap();
        for chunk in bytes.chunks(30_000) {
            run.stdin(chunk.to_vec()).await;
        }
        // In band: the call itself stays open.
        run.close_stdin().await;
        let outcome = run.finish().await;
        assert_eq!(outcome.out(), format!("{}  -\n", sha256(&bytes)), "{length}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_requests_is_the_end_of_stdin() {
    let sandbox = sandbox().await;
    let mut run = sandbox.start(shell("wc -c")).await.unwrap();
    run.stdin(vec![b'x'; 100_000]).await;
    run.end_requests();
    assert_eq!(run.finish().await.out().trim(), "100000");
}

/// A program that reads slowly makes its caller wait instead of filling memory.
#[tokio::test(flavor = "multi_thread")]
async fn stdin_pushes_back() {
    let sandbox = sandbox().await;
    let run = sandbox.start(shell("sleep 1.5; wc -c")).await.unwrap();
    let began = Instant::now();
    for _ in 0..64 {
        run.stdin(vec![b'x'; 128 * 1024]).await;
    }
    run.close_stdin().await;
    assert!(
        began.elapsed() > Duration::from_secs(1),
        "8 MiB went somewhere in {:?}",
        began.elapsed()
    );
    assert_eq!(run.finish().await.out().trim(), (64 * 128 * 1024).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_read_ends_all_the_same() {
    let sandbox = sandbox().await;
    let run = sandbox.start(shell("exec <&-; sleep 0.3; echo done")).await.unwrap();
    let feeding = async {
        for _ in 0..64 {
            run.stdin(vec![b'x'; 32 * 1024]).await;
        }
    };
    let fed = tokio::time::timeout(Duration::from_secs(5), feeding).await;
    assert!(fed.is_ok(), "what nobody reads is thrown away");
    assert_eq!(run.finish().await.out(), "done\n");
    // One that never closes it either, and ends.
    let run = sandbox.start(shell("sleep 0.3; exit 4")).await.unwrap();
    run.stdin(vec![b'x'; 1 << 20]).await;
    assert_eq!(run.finish().await.code, 4);
}
