//! The words of Wolfpack as types: ids and resource names, principals, states
//! with their legal transitions, page tokens, and the one table of error
//! reasons. No IO, no async, no gRPC.

pub mod capacity;
pub mod docker_mode;
pub mod endpoint;
pub mod fault;
pub mod id;
pub mod mount_path;
pub mod page;
pub mod port_set;
pub mod principal;
pub mod reason;
pub mod reservation_state;
pub mod sandbox_boot;
pub mod sandbox_state;
pub mod spiffe;

pub use docker_mode::DockerMode;
pub use endpoint::{Endpoint, Target};
pub use fault::{Fault, FieldViolation};
pub use id::{
    ApiKeyId, ExecutionId, ExposureId, InstanceId, JoinTokenId, ParseIdError, ProjectId,
    ReservationId, SandboxId, SessionId, UserId, WolfId,
};
pub use port_set::{PortRange, PortSet};
pub use principal::{Principal, Role};
pub use reason::{Code, Reason};
pub use reservation_state::ReservationState;
pub use sandbox_boot::SandboxBoot;
pub use sandbox_state::SandboxState;
