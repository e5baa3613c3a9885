//! A sandbox on this wolf: its labels, its hardened container, its directory,
//! and the way to its agent's socket.

pub mod agent_socket;
pub mod directory;
mod docker_modes;
pub mod labels;
mod spec;

pub use docker_modes::docker_modes;
pub use labels::{Goods, Identity};
pub use spec::{
    ContainerSpec, DockerAccess, GpuAccess, HostMount, Limits, Mounted, MountedKind,
    NVIDIA_VISIBLE, Parts, is_loader_variable, visible_devices,
};
