//! What each rpc must answer to whom. A new rpc without a row fails the suite.

use crate::dynamic_call::Answer;

/// What another project's key gets on a resource of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// `NOT_FOUND`, as if it did not exist.
    NotFound,
    /// `PERMISSION_DENIED`: the caller is a member of another project only, and
    /// the call needs a role that nobody has from outside.
    Denied,
    /// An answer about its own project that does not name ours.
    OwnOnly,
}

/// What the owner's key must get: the answer comes to its end, or goes on as a
/// watch does, and a message of it shows this, as
/// [`crate::dynamic_call::shows`] reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Gets(&'static str),
    Watches(&'static str),
}

impl Owner {
    pub(crate) fn answer(self) -> Answer {
        match self {
            Self::Gets(_) => Answer::Ends,
            Self::Watches(_) => Answer::GoesOn,
        }
    }

    pub(crate) fn wanted(self) -> &'static str {
        match self {
            Self::Gets(wanted) | Self::Watches(wanted) => wanted,
        }
    }
}

/// Whom an rpc is for. Where it is not for users, [`crate::shown`] says which
/// test calls it with success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Users: the owner's key succeeds.
    Users(Foreign, Owner),
    /// Anybody with the one-time token that the request carries.
    Token,
    /// Services, wolves or sandboxes: every user's key is refused.
    Machines,
    /// Not served at the users' port at all.
    Internal,
}

/// A row: the rpc, whom it is for, and a request about a live resource, of
/// several messages if need be. In the request `{sandbox}`, `{wolf}`, `{key}`,
/// `{exposure}`, `{project}` and `{user}` stand for the owner's live ones, `{sharing}` for a
/// sandbox that shares the wolf's engine and started a container there,
/// `{image}` for an image of `{archive}`, which has `{size}` bytes and the
/// digest `{sha256}`; `{uuid}` for a fresh one.
pub(crate) type Row = (&'static str, Audience, &'static str);

use Audience::{Internal, Machines, Token, Users};
use Foreign::{Denied, NotFound, OwnOnly};
use Owner::{Gets, Watches};

pub(crate) const ROWS: &[Row] = &[
    // Registry: wolves.
    (
        "/wolfpack.registry.v1.WolfService/GetWolf",
        Users(NotFound, Gets("wolf.name")),
        r#"{"name":"{wolf}"}"#,
    ),
    ("/wolfpack.registry.v1.WolfService/ListWolves", Users(OwnOnly, Gets("wolves")), "{}"),
    ("/wolfpack.registry.v1.WolfService/WatchWolves", Users(OwnOnly, Watches("upserted")), "{}"),
    (
        "/wolfpack.registry.v1.WolfService/RegisterWolf",
        Machines,
        r#"{"capacity":{},"instanceId":"x"}"#,
    ),
    ("/wolfpack.registry.v1.WolfService/Heartbeat", Machines, r#"{"instanceId":"x"}"#),
    // Registry: identities.
    ("/wolfpack.registry.v1.IdentityService/WhoAmI", Users(OwnOnly, Gets("user")), "{}"),
    (
        "/wolfpack.registry.v1.IdentityService/CreateUser",
        Users(Denied, Gets("user.name")),
        r#"{"requestId":"{uuid}","displayName":"x"}"#,
    ),
    (
        "/wolfpack.registry.v1.IdentityService/CreateProject",
        Users(Denied, Gets("project.name")),
        r#"{"requestId":"{uuid}","displayName":"x"}"#,
    ),
    ("/wolfpack.registry.v1.IdentityService/ListProjects", Users(OwnOnly, Gets("projects")), "{}"),
    (
        "/wolfpack.registry.v1.IdentityService/SetProjectMember",
        Users(NotFound, Gets("")),
        r#"{"project":"{project}","user":"{user}","role":"ROLE_ADMIN"}"#,
    ),
    (
        "/wolfpack.registry.v1.IdentityService/CreateApiKey",
        Users(NotFound, Gets("key")),
        r#"{"project":"{project}","role":"ROLE_VIEWER"}"#,
    ),
    ("/wolfpack.registry.v1.IdentityService/ListApiKeys", Users(OwnOnly, Gets("apiKeys")), "{}"),
    (
        "/wolfpack.registry.v1.IdentityService/RevokeApiKey",
        Users(NotFound, Gets("")),
        r#"{"name":"{key}"}"#,
    ),
    (
        "/wolfpack.registry.v1.IdentityService/CreateJoinToken",
        Users(NotFound, Gets("token")),
        r#"{"project":"{project}"}"#,
    ),
    (
        "/wolfpack.registry.v1.IdentityService/JoinWolf",
        Token,
        r#"{"token":"wpj_no","certificateRequest":"AAAA"}"#,
    ),
    (
        "/wolfpack.registry.v1.IdentityService/RenewWolfCertificate",
        Machines,
        r#"{"certificateRequest":"AAAA"}"#,
    ),
    (
        "/wolfpack.registry.v1.IdentityService/MintSandboxToken",
        Machines,
        r#"{"sandbox":"{sandbox}","project":"{project}","executionId":"x"}"#,
    ),
    (
        "/wolfpack.registry.v1.IdentityService/MintLink",
        Machines,
        r#"{"sandbox":"{sandbox}","port":80,"project":"{project}","creator":"{user}","life":"60s"}"#,
    ),
    ("/wolfpack.registry.v1.IdentityService/RefreshSandboxToken", Machines, "{}"),
    (
        "/wolfpack.registry.v1.IdentityService/RevokeSandboxTokens",
        Machines,
        r#"{"sandbox":"{sandbox}"}"#,
    ),
    ("/wolfpack.registry.v1.IdentityService/GetSigningKeys", Machines, "{}"),
    ("/wolfpack.registry.v1.IdentityService/WatchRevocations", Machines, "{}"),
    ("/wolfpack.registry.v1.IdentityService/Introspect", Machines, r#"{"key":"x"}"#),
    // Scheduler.
    (
        "/wolfpack.scheduler.v1.SchedulerService/Place",
        Machines,
        r#"{"requestId":"{uuid}","sandbox":"{sandbox}","project":"{project}","shape":{}}"#,
    ),
    (
        "/wolfpack.scheduler.v1.SchedulerService/ConfirmReservation",
        Machines,
        r#"{"name":"reservations/x"}"#,
    ),
    (
        "/wolfpack.scheduler.v1.SchedulerService/ReleaseReservation",
        Machines,
        r#"{"name":"reservations/x"}"#,
    ),
    (
        "/wolfpack.scheduler.v1.SchedulerService/Explain",
        Users(OwnOnly, Gets("verdicts")),
        r#"{"shape":{}}"#,
    ),
    // Tunnel broker.
    ("/wolfpack.tunnel.v1.AgentTunnelService/Attach", Internal, r#"{"hello":{}}"#),
    ("/wolfpack.tunnel.v1.AgentTunnelService/Carry", Internal, r#"{"park":{}}"#),
    // What listens beside the wolf sends back what it is sent.
    (
        "/wolfpack.tunnel.v1.DialService/Dial",
        Users(NotFound, Gets(r#"data="aGVsbG8K""#)),
        r#"{"open":{"endpoint":"{wolf}","target":"moonlight-web"}} {"data":"aGVsbG8K"} {"fin":{}}"#,
    ),
    (
        "/wolfpack.tunnel.v1.TunnelService/GetTunnel",
        Users(NotFound, Gets("tunnel.endpoint")),
        r#"{"endpoint":"{wolf}"}"#,
    ),
    // Of a session that is long over: the rows below need the wolf.
    (
        "/wolfpack.tunnel.v1.TunnelService/CloseTunnel",
        Users(NotFound, Gets("")),
        r#"{"endpoint":"{wolf}","sessionId":"over"}"#,
    ),
    ("/wolfpack.tunnel.v1.TunnelService/ListTunnels", Users(OwnOnly, Gets("tunnels")), "{}"),
    ("/wolfpack.tunnel.v1.TunnelService/WatchTunnels", Users(OwnOnly, Watches("attached")), "{}"),
    (
        "/wolfpack.tunnel.v1.ExposureService/CreateExposure",
        Users(NotFound, Gets("exposure.listenAddress")),
        r#"{"endpoint":"{wolf}","target":"moonlight-web"}"#,
    ),
    (
        "/wolfpack.tunnel.v1.ExposureService/GetExposure",
        Users(NotFound, Gets("exposure.listenAddress")),
        r#"{"name":"{exposure}"}"#,
    ),
    ("/wolfpack.tunnel.v1.ExposureService/ListExposures", Users(OwnOnly, Gets("exposures")), "{}"),
    (
        "/wolfpack.tunnel.v1.ExposureService/DeleteExposure",
        Users(NotFound, Gets("={}")),
        r#"{"name":"{exposure}"}"#,
    ),
    // Sandbox manager.
    (
        "/wolfpack.sandbox.v1.SandboxService/CreateSandbox",
        Users(OwnOnly, Gets("sandbox.name")),
        r#"{"requestId":"{uuid}","sandbox":{"spec":{"resources":{"cpuMilli":100}}}}"#,
    ),
    (
        "/wolfpack.sandbox.v1.SandboxService/GetSandbox",
        Users(NotFound, Gets("sandbox.name")),
        r#"{"name":"{sandbox}"}"#,
    ),
    ("/wolfpack.sandbox.v1.SandboxService/ListSandboxes", Users(OwnOnly, Gets("sandboxes")), "{}"),
    (
        "/wolfpack.sandbox.v1.SandboxService/WatchSandboxes",
        Users(NotFound, Watches("upserted")),
        r#"{"name":"{sandbox}"}"#,
    ),
    (
        "/wolfpack.sandbox.v1.SandboxIoService/Exec",
        Users(NotFound, Gets("output.exit={}")),
        r#"{"start":{"sandbox":"{sandbox}","exec":{"argv":["true"]}}}"#,
    ),
    (
        "/wolfpack.sandbox.v1.SandboxIoService/StreamLogs",
        Users(NotFound, Gets("data")),
        r#"{"sandbox":"{sharing}"}"#,
    ),
    (
        "/wolfpack.sandbox.v1.DesktopService/GetScreenshot",
        Users(NotFound, Gets(r#"image="iVBORw0KGgo"#)),
        r#"{"sandbox":"{sandbox}"}"#,
    ),
    (
        "/wolfpack.sandbox.v1.DesktopService/SetClipboard",
        Users(NotFound, Gets("via")),
        r#"{"sandbox":"{sandbox}","text":"x"}"#,
    ),
    (
        "/wolfpack.sandbox.v1.DesktopService/GetClipboard",
        Users(NotFound, Gets(r#"text="x""#)),
        r#"{"sandbox":"{sandbox}"}"#,
    ),
    (
        "/wolfpack.sandbox.v1.ContainerService/ListContainers",
        Users(NotFound, Gets("containers")),
        r#"{"sandbox":"{sharing}"}"#,
    ),
    (
        "/wolfpack.sandbox.v1.PortService/CreateLink",
        Users(NotFound, Gets("token")),
        r#"{"sandbox":"{sandbox}","port":8080}"#,
    ),
    // An image is loaded, listed and removed again.
    (
        "/wolfpack.sandbox.v1.ImageService/LoadImage",
        Users(NotFound, Gets("done.images")),
        r#"{"start":{"wolf":"{wolf}","load":{"sha256":"{sha256}","sizeBytes":"{size}"}}} {"chunk":{"data":"{archive}"}}"#,
    ),
    (
        "/wolfpack.sandbox.v1.ImageService/ListImages",
        Users(NotFound, Gets("images")),
        r#"{"wolf":"{wolf}"}"#,
    ),
    (
        "/wolfpack.sandbox.v1.ImageService/RemoveImage",
        Users(NotFound, Gets("")),
        r#"{"wolf":"{wolf}","reference":"{image}"}"#,
    ),
    (
        "/wolfpack.sandbox.v1.DoctorService/CheckWolf",
        Users(NotFound, Gets("check.message")),
        r#"{"wolf":"{wolf}"}"#,
    ),
    // Last, since the owner's call ends the sandbox.
    (
        "/wolfpack.sandbox.v1.SandboxService/DeleteSandbox",
        Users(NotFound, Gets("sandbox.name")),
        r#"{"name":"{sandbox}"}"#,
    ),
    // Agents: reached through tunnels only.
    ("/wolfpack.agent.v1.WolfRuntimeService/CreateSandbox", Internal, "{}"),
    ("/wolfpack.agent.v1.WolfRuntimeService/RemoveSandbox", Internal, "{}"),
    ("/wolfpack.agent.v1.WolfRuntimeService/ListSandboxes", Internal, "{}"),
    ("/wolfpack.agent.v1.WolfRuntimeService/WatchSandboxes", Internal, "{}"),
    ("/wolfpack.agent.v1.WolfRuntimeService/StreamLogs", Internal, "{}"),
    ("/wolfpack.agent.v1.WolfImageService/ListImages", Internal, "{}"),
    ("/wolfpack.agent.v1.WolfImageService/LoadImage", Internal, "{}"),
    ("/wolfpack.agent.v1.WolfImageService/RemoveImage", Internal, r#"{"reference":"x"}"#),
    ("/wolfpack.agent.v1.WolfDoctorService/RunChecks", Internal, "{}"),
    ("/wolfpack.agent.v1.WolfDoctorService/Echo", Internal, "{}"),
    ("/wolfpack.agent.v1.ContainerService/ListContainers", Internal, r#"{"sandbox":"{sandbox}"}"#),
    ("/wolfpack.agent.v1.SandboxAgentService/GetStatus", Internal, "{}"),
    ("/wolfpack.agent.v1.SandboxAgentService/Exec", Internal, r#"{"start":{"argv":["true"]}}"#),
    ("/wolfpack.agent.v1.SandboxAgentService/GetScreenshot", Internal, "{}"),
    ("/wolfpack.agent.v1.SandboxAgentService/GetClipboard", Internal, "{}"),
    ("/wolfpack.agent.v1.SandboxAgentService/SetClipboard", Internal, "{}"),
];
