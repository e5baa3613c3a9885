//! The one table of error reasons. Each has a page under `docs/errors/` and one
//! canonical code; `crates/rpc` alone turns them into a gRPC status.

/// The canonical codes of gRPC that our reasons use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are those of the gRPC specification")]
pub enum Code {
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Internal,
    Unavailable,
    Unauthenticated,
    Unimplemented,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident, $name:literal, $code:ident, $retryable:literal;)*) => {
        /// Why a request failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)*
        }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Its canonical code.
            #[must_use]
            pub fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code,)* }
            }

            /// Whether the same call may succeed later without any change.
            #[must_use]
            pub fn retryable(self) -> bool {
                match self { $(Self::$variant => $retryable,)* }
            }

            /// What it means, one line.
            #[must_use]
            pub fn summary(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)* }
            }

            /// The reason of a name on the wire.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

reasons! {
    /// A field of the request breaks a rule; the details name it.
    RequestInvalid, "REQUEST_INVALID", InvalidArgument, false;
    /// The first message of the stream is missing, late or of another kind.
    FirstMessageMissing, "FIRST_MESSAGE_MISSING", InvalidArgument, false;
    /// The page token is damaged or belongs to another query.
    PageTokenInvalid, "PAGE_TOKEN_INVALID", InvalidArgument, false;
    /// The request id was used before with another body.
    RequestIdReused, "REQUEST_ID_REUSED", InvalidArgument, false;
    /// The shape asks for what no wolf could ever give.
    ShapeInvalid, "SHAPE_INVALID", InvalidArgument, false;
    /// The certificate request is not a valid PKCS#10 request.
    CertificateRequestInvalid, "CERTIFICATE_REQUEST_INVALID", InvalidArgument, false;
    /// The archive is not what its digest says.
    ImageDigestMismatch, "IMAGE_DIGEST_MISMATCH", InvalidArgument, false;
    /// The archive is cut off, is no image archive, or holds a path that leaves it.
    ImageArchiveInvalid, "IMAGE_ARCHIVE_INVALID", InvalidArgument, false;

    /// The call carries no credential.
    CredentialMissing, "CREDENTIAL_MISSING", Unauthenticated, false;
    /// The API key is unknown, expired or revoked.
    ApiKeyInvalid, "API_KEY_INVALID", Unauthenticated, false;
    /// The sandbox token is not valid.
    SandboxTokenInvalid, "SANDBOX_TOKEN_INVALID", Unauthenticated, false;
    /// The sandbox token was revoked: its sandbox or boot has ended.
    SandboxTokenRevoked, "SANDBOX_TOKEN_REVOKED", Unauthenticated, false;
    /// The link is damaged, has ended, or is for something else.
    LinkInvalid, "LINK_INVALID", Unauthenticated, false;
    /// The client certificate is not of this fleet.
    CertificateInvalid, "CERTIFICATE_INVALID", Unauthenticated, false;
    /// The join token is unknown, expired or used.
    JoinTokenInvalid, "JOIN_TOKEN_INVALID", Unauthenticated, false;

    /// This kind of caller may not call this rpc.
    CallerForbidden, "CALLER_FORBIDDEN", PermissionDenied, false;
    /// The caller's role in the project is too low.
    RoleTooLow, "ROLE_TOO_LOW", PermissionDenied, false;
    /// The agent may not attach as this endpoint.
    EndpointForbidden, "ENDPOINT_FORBIDDEN", PermissionDenied, false;
    /// The caller may not dial this target, or the agent does not offer it.
    TargetForbidden, "TARGET_FORBIDDEN", PermissionDenied, false;
    /// The wolf does not let sandboxes mount this path.
    MountForbidden, "MOUNT_FORBIDDEN", PermissionDenied, false;

    /// There is no such wolf, or it is not the caller's to see.
    WolfNotFound, "WOLF_NOT_FOUND", NotFound, false;
    /// There is no such sandbox in the caller's project.
    SandboxNotFound, "SANDBOX_NOT_FOUND", NotFound, false;
    /// There is no such project, or the caller is not a member.
    ProjectNotFound, "PROJECT_NOT_FOUND", NotFound, false;
    /// There is no such user.
    UserNotFound, "USER_NOT_FOUND", NotFound, false;
    /// There is no such API key, or it is not the caller's to manage.
    ApiKeyNotFound, "API_KEY_NOT_FOUND", NotFound, false;
    /// There is no such reservation.
    ReservationNotFound, "RESERVATION_NOT_FOUND", NotFound, false;
    /// No such endpoint is attached, or it is not the caller's to reach.
    EndpointNotFound, "ENDPOINT_NOT_FOUND", NotFound, true;
    /// There is no such exposure, or it is not the caller's to see.
    ExposureNotFound, "EXPOSURE_NOT_FOUND", NotFound, false;
    /// The agent does not know this session; attach again.
    SessionUnknown, "SESSION_UNKNOWN", NotFound, false;
    /// The dial is unknown, used or over.
    DialUnknown, "DIAL_UNKNOWN", NotFound, false;
    /// There is no such image.
    ImageNotFound, "IMAGE_NOT_FOUND", NotFound, false;
    /// The path is not served here.
    RouteNotFound, "ROUTE_NOT_FOUND", NotFound, false;

    /// Another live sandbox of the project has this display name.
    DisplayNameTaken, "DISPLAY_NAME_TAKEN", AlreadyExists, false;

    /// The resource changed since it was read.
    EtagMismatch, "ETAG_MISMATCH", Aborted, false;
    /// A newer instance of the same agent took over.
    Superseded, "SUPERSEDED", Aborted, false;
    /// A newer owner of the same work took over.
    OwnerFenced, "OWNER_FENCED", Aborted, false;

    /// This broker gives out no exposures.
    ExposuresDisabled, "EXPOSURES_DISABLED", FailedPrecondition, false;
    /// The reservation has ended.
    ReservationNotLive, "RESERVATION_NOT_LIVE", FailedPrecondition, false;
    /// The wolf refused the reservation: epoch, expiry or goods.
    ReservationRefused, "RESERVATION_REFUSED", FailedPrecondition, false;
    /// The sandbox is not in a state that allows this.
    SandboxNotRunning, "SANDBOX_NOT_RUNNING", FailedPrecondition, false;
    /// The sandbox has no desktop.
    DesktopAbsent, "DESKTOP_ABSENT", FailedPrecondition, false;
    /// The program could not be started.
    ExecFailed, "EXEC_FAILED", FailedPrecondition, false;
    /// The image could not be fetched.
    ImagePullFailed, "IMAGE_PULL_FAILED", FailedPrecondition, true;
    /// The main process of the sandbox ended.
    SandboxExited, "SANDBOX_EXITED", FailedPrecondition, false;
    /// The kernel ended the sandbox for lack of memory.
    SandboxOutOfMemory, "SANDBOX_OUT_OF_MEMORY", FailedPrecondition, false;
    /// The sandbox was ended for what it wrote to its wolf's disk.
    SandboxDiskExceeded, "SANDBOX_DISK_EXCEEDED", FailedPrecondition, false;
    /// The container of the sandbox is gone.
    ContainerGone, "CONTAINER_GONE", FailedPrecondition, false;
    /// The sandbox did not become ready in time.
    StartTimeout, "START_TIMEOUT", FailedPrecondition, false;
    /// The sandbox has no Docker, or its image has no engine.
    DockerAbsent, "DOCKER_ABSENT", FailedPrecondition, false;
    /// The wolf cannot give this kind of Docker.
    DockerModeUnsupported, "DOCKER_MODE_UNSUPPORTED", FailedPrecondition, false;
    /// Containers stand on the image.
    ImageInUse, "IMAGE_IN_USE", FailedPrecondition, false;

    /// No wolf has room for this shape now.
    NoWolfFits, "NO_WOLF_FITS", ResourceExhausted, true;
    /// Too many requests; slow down.
    RateLimited, "RATE_LIMITED", ResourceExhausted, true;
    /// The server is too busy to take the request.
    Overloaded, "OVERLOADED", ResourceExhausted, true;
    /// Too many agents attach at once.
    HandshakesLimited, "HANDSHAKES_LIMITED", ResourceExhausted, true;
    /// Too many dials to this agent are pending.
    DialsLimited, "DIALS_LIMITED", ResourceExhausted, true;
    /// The broker gives out no more exposures, or no port of them is free.
    ExposuresLimited, "EXPOSURES_LIMITED", ResourceExhausted, true;
    /// The user has as many API keys in the project as one may have.
    ApiKeysLimited, "API_KEYS_LIMITED", ResourceExhausted, false;
    /// The watcher does not keep up; watch again.
    WatcherTooSlow, "WATCHER_TOO_SLOW", ResourceExhausted, true;
    /// The message is larger than the server takes.
    MessageTooLarge, "MESSAGE_TOO_LARGE", ResourceExhausted, false;
    /// The wolf's disk has no room for it.
    DiskFull, "DISK_FULL", ResourceExhausted, true;

    /// The revision to resume from is gone; watch from zero.
    RevisionCompacted, "REVISION_COMPACTED", OutOfRange, false;

    /// The deadline passed.
    DeadlineExceeded, "DEADLINE_EXCEEDED", DeadlineExceeded, true;
    /// The agent did not answer the dial in time.
    DialTimeout, "DIAL_TIMEOUT", DeadlineExceeded, true;
    /// The caller went away.
    Cancelled, "CANCELLED", Cancelled, false;

    /// The target refused the connection or is not there.
    TargetUnreachable, "TARGET_UNREACHABLE", Unavailable, true;
    /// The target broke the connection.
    ConnectionReset, "CONNECTION_RESET", Unavailable, true;
    /// The tunnel that carried the connection is gone.
    TunnelLost, "TUNNEL_LOST", Unavailable, true;
    /// An operator closed the tunnel; its agent attaches again.
    TunnelClosed, "TUNNEL_CLOSED", Unavailable, true;
    /// The broker is leaving.
    BrokerDraining, "BROKER_DRAINING", Unavailable, true;
    /// Neither tunnel of the sandbox answers.
    SandboxUnreachable, "SANDBOX_UNREACHABLE", Unavailable, true;
    /// The wolf of the sandbox is away.
    WolfAway, "WOLF_AWAY", Unavailable, true;
    /// This scheduler does not lead; try again.
    SchedulerNotLeader, "SCHEDULER_NOT_LEADER", Unavailable, true;
    /// A service that is needed does not answer.
    DependencyUnavailable, "DEPENDENCY_UNAVAILABLE", Unavailable, true;
    /// The server is stopping.
    ServerStopping, "SERVER_STOPPING", Unavailable, true;
    /// The engine of the wolf failed.
    EngineFailed, "ENGINE_FAILED", Unavailable, true;
    /// The desktop of the sandbox does not work.
    DesktopFailed, "DESKTOP_FAILED", Unavailable, true;

    /// A fault of ours; the log has the cause.
    Internal, "INTERNAL", Internal, false;
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_upper_snake_and_round_trip() {
        let mut seen = std::collections::HashSet::new();
        for reason in Reason::ALL {
            let name = reason.as_str();
            assert!(seen.insert(name), "{name} twice");
            assert!(name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{name}");
            assert_eq!(Reason::parse(name), Some(*reason));
            assert!(!reason.summary().is_empty());
        }
    }
}
