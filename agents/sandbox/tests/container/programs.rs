//! Programs of callers in a hardened container.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use wolfpack_proto::sandbox::v1::ExecStart;

use super::engine::{Container, Plan, docker, engine, text};
use super::harness::shell;

#[tokio::test(flavor = "multi_thread")]
async fn users_capabilities_and_secrets() {
    if !engine() {
        return;
    }
    let container = Container::start(&Plan::base(&["sleep", "infinity"]));
    container.ready().await;
    let status =
        "id -u; id -G; grep -E 'Cap(Bnd|Eff)|NoNewPrivs|Seccomp:' /proc/self/status | tr -d '\\t'";
    let user = container.sh(status).await;
    let none = "0000000000000000";
    assert_eq!(
        user.out(),
        format!("1000\n1000\nCapEff:{none}\nCapBnd:{none}\nNoNewPrivs:1\nSeccomp:2\n")
    );
    let root = container.run(ExecStart { user: "root".into(), ..shell(status) }).await;
    // The seven, and no more.
    let seven =
        format!("{:016x}", [0_u32, 1, 3, 5, 6, 7, 8].iter().fold(0_u64, |set, bit| set | 1 << bit));
    assert_eq!(
        root.out(),
        format!("0\n0\nCapEff:{seven}\nCapBnd:{seven}\nNoNewPrivs:1\nSeccomp:2\n")
    );
    // The user gets at neither the socket nor what the agent knows.
    std::fs::write(container.dir.path().join("token"), "a.b.c").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(container.dir.path().join("token"), mode).unwrap();
    let prying = "cat /run/wolfpack/token; cat /proc/1/environ; cat /run/wolfpack/agent.log; \
                  ls /proc/1/fd; touch /run/wolfpack/x; kill -9 1; echo end";
    let outcome = container.sh(prying).await;
    assert_eq!(outcome.out(), "end\n", "{}", outcome.err());
    let socket = std::fs::metadata(container.dir.path().join("agent.sock")).unwrap();
    assert_eq!((socket.mode() & 0o777, socket.uid()), (0o600, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn stdin_output_and_terminals_work_there_too() {
    if !engine() {
        return;
    }
    let container = Container::start(&Plan::base(&["sleep", "infinity"]));
    container.ready().await;
    let number = |i: u32| i.wrapping_mul(2_654_435_761).to_be_bytes()[0];
    let bytes: Vec<u8> = (0..1_000_003).map(number).collect();
    let run = container.start(shell("cat | sha256sum")).await.unwrap();
    for chunk in bytes.chunks(32 * 1024) {
        run.stdin(chunk.to_vec()).await;
    }
    run.close_stdin().await;
    let file = container.dir.path().join("bytes");
    std::fs::write(&file, &bytes).unwrap();
    let expected = text(&Command::new("sha256sum").arg(&file).output().unwrap());
    let outcome = run.finish().await;
    assert_eq!(outcome.out().split(' ').next(), expected.split(' ').next());
    let big = container.sh("head -c 10485760 /dev/zero").await;
    assert_eq!((big.stdout.len(), big.code), (10 << 20, 0));
    let tty = ExecStart { tty: true, ..shell("tty; stty size; stat -c %U $(tty)") };
    assert_eq!(container.run(tty).await.out(), "/dev/pts/0\r\n24 80\r\nwolf\r\n");
}

/// An image without a single file: only the agent is there to be run.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_from_scratch_is_a_sandbox_too() {
    if !engine() {
        return;
    }
    const SCRATCH: &str = "wolfpack-test-scratch:agent";
    let empty = tempfile::tempdir().unwrap();
    std::fs::write(empty.path().join("Dockerfile"), "FROM scratch\nENV A=1\n").unwrap();
    let built = docker(&["build", "--quiet", "--tag", SCRATCH, empty.path().to_str().unwrap()]);
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let plan = Plan { image: SCRATCH, argv: vec![], user: "", cwd: "/", desktop: false };
    let container = Container::start(&plan);
    container.ready().await;
    let version = ExecStart {
        argv: vec!["/run/wolfpack/bin/wolfpack-sandbox-agent".into(), "--version".into()],
        user: "1234:5678".into(),
        ..ExecStart::default()
    };
    let outcome = container.run(version).await;
    assert_eq!(outcome.out(), concat!("wolfpack-sandbox-agent ", env!("CARGO_PKG_VERSION"), "\n"));
    drop(container);
    docker(&["rmi", "--force", SCRATCH]);
}
