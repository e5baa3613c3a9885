//! A sandbox: its agent's tunnel, and a program behind one of its ports.

use std::num::NonZeroU16;
use std::sync::Arc;

use tonic::Request;
use wolfpack_proto::registry::v1::MintSandboxTokenRequest;
use wolfpack_runtime::Supervisor;
use wolfpack_tunnel::tcp::{TcpPolicy, TcpTargets, Words};
use wolfpack_tunnel::{AgentTunnel, AgentTunnelConfig};
use wolfpack_types::{Endpoint, ExecutionId, SandboxId, Target};

use crate::fleet::{DOMAIN, Fleet, SOON};
use crate::program::Program;

pub(crate) struct Sandbox {
    pub(crate) id: SandboxId,
    /// Where its program listens.
    pub(crate) port: u16,
    pub(crate) program: Program,
    tasks: Supervisor,
}

impl Sandbox {
    /// What it is called among hosts.
    pub(crate) fn host(&self) -> String {
        format!("{}--{}.{DOMAIN}", self.port, self.id.as_str())
    }

    /// What a path of its program is called at the gateway itself.
    pub(crate) fn path(&self, path: &str) -> String {
        format!("/v1/sandboxes/{}/ports/{}{path}", self.id.as_str(), self.port)
    }

    /// Its agent leaves; the program stays.
    pub(crate) async fn leave(&self) {
        self.tasks.shutdown(SOON).await;
    }
}

impl Fleet {
    /// A sandbox of the first user's project, attached as its own agent does.
    pub(crate) async fn sandbox(&self) -> Sandbox {
        let program = Program::start().await;
        let port = program.address.port();
        let (id, execution) = (SandboxId::new(), ExecutionId::new());
        let request = MintSandboxTokenRequest {
            sandbox: id.name(),
            project: self.project.name(),
            execution_id: execution.as_str().to_owned(),
        };
        let minted = self.identities().mint_sandbox_token(Request::new(request)).await.unwrap();
        let channel = self.agent_channel(minted.into_inner().token);
        let config = AgentTunnelConfig::new(Endpoint::Sandbox(id.clone()), "test");
        let mut builder = AgentTunnel::builder(config, channel);
        // Beside the program's own port one that nobody listens on.
        let policy = TcpPolicy {
            loopback: [port, NOBODY.get()]
                .iter()
                .map(|port| port.to_string().parse().unwrap())
                .collect(),
            ..TcpPolicy::default()
        };
        let words = Words { of: "sandbox", setting: "the test" };
        builder.dial_family(Target::TCP, Arc::new(TcpTargets::new(policy, words, 1024)));
        let tasks = self.context.supervisor.child();
        let tunnel = builder.start(&tasks);
        let mut attached = tunnel.attached();
        let there = attached.wait_for(|attached| *attached);
        tokio::time::timeout(SOON, there).await.expect("it attaches").unwrap();
        Sandbox { id, port, program, tasks }
    }
}

/// A port that is allowed, and that nobody listens on: what is below 1024 is
/// given to none who asks for any.
pub(crate) const NOBODY: NonZeroU16 = NonZeroU16::new(1).unwrap();
