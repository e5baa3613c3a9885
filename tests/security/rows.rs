//! What each rpc must answer to whom. A new rpc without a row fails the suite.

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

/// Whom an rpc is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Users: the owner's key succeeds.
    Users(Foreign),
    /// Users, but the answer to the owner is an error that says so (a code):
    /// the call is allowed and fails for a reason of its own.
    UsersExpect(Foreign, tonic::Code),
    /// Anybody with the one-time token that the request carries.
    Token,
    /// Services, wolves or sandboxes: every user's key is refused.
    Machines,
    /// Not served at the users' port at all.
    Internal,
}

/// A row: the rpc, whom it is for, and a request about a live resource. In the
/// request `{sandbox}`, `{wolf}`, `{key}`, `{project}` and `{user}` stand for
/// the owner's live ones, `{uuid}` for a fresh one.
pub(crate) type Row = (&'static str, Audience, &'static str);

use Audience::{Internal, Machines, Token, Users, UsersExpect};
use Foreign::{Denied, NotFound, OwnOnly};

pub(crate) const ROWS: &[Row] = &[
    // Registry: wolves.
    ("/wolfpack.registry.v1.WolfService/GetWolf", Users(NotFound), r#"{"name":"{wolf}"}"#),
    ("/wolfpack.registry.v1.WolfService/ListWolves", Users(OwnOnly), "{}"),
    ("/wolfpack.registry.v1.WolfService/WatchWolves", Users(OwnOnly), "{}"),
    (
        "/wolfpack.registry.v1.WolfService/RegisterWolf",
        Machines,
        r#"{"capacity":{},"instanceId":"x"}"#,
    ),
    ("/wolfpack.registry.v1.WolfService/Heartbeat", Machines, r#"{"instanceId":"x"}"#),
    // Registry: identities.
    ("/wolfpack.registry.v1.IdentityService/WhoAmI", Users(OwnOnly), "{}"),
    (
        "/wolfpack.registry.v1.IdentityService/CreateUser",
        Users(Denied),
        r#"{"requestId":"{uuid}","displayName":"x"}"#,
    ),
    (
        "/wolfpack.registry.v1.IdentityService/CreateProject",
        Users(Denied),
        r#"{"requestId":"{uuid}","displayName":"x"}"#,
    ),
    ("/wolfpack.registry.v1.IdentityService/ListProjects", Users(OwnOnly), "{}"),
    (
        "/wolfpack.registry.v1.IdentityService/SetProjectMember",
        Users(NotFound),
        r#"{"project":"{project}","user":"{user}","role":"ROLE_ADMIN"}"#,
    ),
    (
        "/wolfpack.registry.v1.IdentityService/CreateApiKey",
        Users(NotFound),
        r#"{"project":"{project}","role":"ROLE_VIEWER"}"#,
    ),
    ("/wolfpack.registry.v1.IdentityService/ListApiKeys", Users(OwnOnly), "{}"),
    ("/wolfpack.registry.v1.IdentityService/RevokeApiKey", Users(NotFound), r#"{"name":"{key}"}"#),
    (
        "/wolfpack.registry.v1.IdentityService/CreateJoinToken",
        Users(NotFound),
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
    ("/wolfpack.scheduler.v1.SchedulerService/Explain", Users(OwnOnly), r#"{"shape":{}}"#),
    // Tunnel broker.
    ("/wolfpack.tunnel.v1.AgentTunnelService/Attach", Internal, r#"{"hello":{}}"#),
    ("/wolfpack.tunnel.v1.AgentTunnelService/Carry", Internal, r#"{"park":{}}"#),
    (
        "/wolfpack.tunnel.v1.DialService/Dial",
        UsersExpect(NotFound, tonic::Code::PermissionDenied),
        r#"{"open":{"endpoint":"{sandbox}","target":"agent"}}"#,
    ),
    ("/wolfpack.tunnel.v1.TunnelService/ListTunnels", Users(OwnOnly), "{}"),
    ("/wolfpack.tunnel.v1.TunnelService/WatchTunnels", Users(OwnOnly), "{}"),
    // Sandbox manager.
    (
        "/wolfpack.sandbox.v1.SandboxService/CreateSandbox",
        Users(OwnOnly),
        r#"{"requestId":"{uuid}","sandbox":{"spec":{"resources":{"cpuMilli":100}}}}"#,
    ),
    ("/wolfpack.sandbox.v1.SandboxService/GetSandbox", Users(NotFound), r#"{"name":"{sandbox}"}"#),
    ("/wolfpack.sandbox.v1.SandboxService/ListSandboxes", Users(OwnOnly), "{}"),
    (
        "/wolfpack.sandbox.v1.SandboxService/WatchSandboxes",
        Users(NotFound),
        r#"{"name":"{sandbox}"}"#,
    ),
    (
        "/wolfpack.sandbox.v1.SandboxIoService/Exec",
        Users(NotFound),
        r#"{"start":{"sandbox":"{sandbox}","exec":{"argv":["true"]}}}"#,
    ),
    (
        "/wolfpack.sandbox.v1.SandboxIoService/StreamLogs",
        Users(NotFound),
        r#"{"sandbox":"{sandbox}"}"#,
    ),
    (
        "/wolfpack.sandbox.v1.DesktopService/GetScreenshot",
        Users(NotFound),
        r#"{"sandbox":"{sandbox}"}"#,
    ),
    (
        "/wolfpack.sandbox.v1.DesktopService/GetClipboard",
        Users(NotFound),
        r#"{"sandbox":"{sandbox}"}"#,
    ),
    (
        "/wolfpack.sandbox.v1.DesktopService/SetClipboard",
        Users(NotFound),
        r#"{"sandbox":"{sandbox}","text":"x"}"#,
    ),
    // That sandbox has no Docker.
    (
        "/wolfpack.sandbox.v1.ContainerService/ListContainers",
        UsersExpect(NotFound, tonic::Code::FailedPrecondition),
        r#"{"sandbox":"{sandbox}"}"#,
    ),
    // No agent runs for that wolf: its owner is told that it is away.
    (
        "/wolfpack.sandbox.v1.ImageService/ListImages",
        UsersExpect(NotFound, tonic::Code::Unavailable),
        r#"{"wolf":"{wolf}"}"#,
    ),
    (
        "/wolfpack.sandbox.v1.ImageService/LoadImage",
        UsersExpect(NotFound, tonic::Code::Unavailable),
        r#"{"start":{"wolf":"{wolf}","load":{"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","sizeBytes":"1"}}}"#,
    ),
    (
        "/wolfpack.sandbox.v1.ImageService/RemoveImage",
        UsersExpect(NotFound, tonic::Code::Unavailable),
        r#"{"wolf":"{wolf}","reference":"debian:latest"}"#,
    ),
    (
        "/wolfpack.sandbox.v1.DoctorService/CheckWolf",
        UsersExpect(NotFound, tonic::Code::Unavailable),
        r#"{"wolf":"{wolf}"}"#,
    ),
    // Last, since the owner's call ends the sandbox.
    (
        "/wolfpack.sandbox.v1.SandboxService/DeleteSandbox",
        Users(NotFound),
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
