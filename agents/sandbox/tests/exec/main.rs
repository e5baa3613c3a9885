//! Exec through the whole of `SandboxAgentService` on a real socket, in this
//! process instead of PID 1: real programs, real pipes, real terminals.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod ends;
mod identity;
mod output;
mod refusals;
mod stdin;
mod terminal;

use std::collections::BTreeMap;
use std::sync::Arc;

use harness::Caller;
use wolfpack_runtime::{Context, Supervisor};
use wolfpack_sandbox_agent::docker::Docker;
use wolfpack_sandbox_agent::exec::Execs;
use wolfpack_sandbox_agent::init::{Adopts, Reaper};
use wolfpack_sandbox_agent::process::{Console, Launcher};
use wolfpack_sandbox_agent::service::{SandboxAgent, bind_socket, serve_socket};
use wolfpack_types::sandbox_boot::SandboxBoot;
use wolfpack_types::{ExecutionId, ProjectId, SandboxId};

/// An agent without PID 1 and without a container around it.
struct Sandbox {
    caller: Caller,
    folder: tempfile::TempDir,
    supervisor: Supervisor,
}

impl std::ops::Deref for Sandbox {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.supervisor.token().cancel();
    }
}

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwolf:x:4100:4100::/home/wolf:/bin/sh\n";
const GROUP: &str = "root:x:0:\nwolf:x:4100:\nvideo:x:4144:wolf\n";

async fn sandbox() -> Sandbox {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("etc")).unwrap();
    std::fs::write(folder.path().join("etc/passwd"), PASSWD).unwrap();
    std::fs::write(folder.path().join("etc/group"), GROUP).unwrap();
    let own = rustix::process::geteuid().as_raw();
    let boot = Arc::new(SandboxBoot {
        sandbox: SandboxId::new(),
        project: ProjectId::new(),
        execution: ExecutionId::new(),
        argv: Vec::new(),
        // Whoever runs the tests: only the superuser can become somebody else.
        user: own.to_string(),
        env: BTreeMap::from([("FROM_BOOT".to_owned(), "boot".to_owned())]),
        cwd: "/".to_owned(),
        desktop: false,
        broker: String::new(),
        gateway: String::new(),
        socket_uid: own,
        docker: wolfpack_types::DockerMode::None,
        nested: None,
        otlp_endpoint: None,
        tcp_ports: wolfpack_types::PortSet::all(),
    });
    let supervisor = Context::quiet("sandbox-agent").supervisor;
    let reaper = Reaper::new(Adopts::Nothing);
    let reaping = reaper.clone();
    supervisor.spawn_essential("reaper", async move { Ok(reaping.run().await?) });
    let helper = env!("CARGO_BIN_EXE_wolfpack-sandbox-agent").into();
    let launcher = Launcher::new(reaper, helper, Arc::new(Console::keep().unwrap()));
    let execs = Execs::new(launcher, Arc::clone(&boot), BTreeMap::new(), folder.path().into());
    let agent = SandboxAgent::new(boot, execs, None, Docker::None, supervisor.clone());
    let socket = folder.path().join("agent.sock");
    let listener = bind_socket(&socket, own).unwrap();
    let stop = supervisor.token();
    supervisor
        .spawn_essential("socket", async move { Ok(serve_socket(agent, listener, stop).await?) });
    Sandbox { caller: Caller::at(socket), folder, supervisor }
}
