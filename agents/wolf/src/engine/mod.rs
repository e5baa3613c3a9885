//! The container engine as this agent sees it. Everything above speaks to the
//! [`Engine`] trait; only `docker` below knows the client library.
//!
//! Every call has a deadline of its own inside the implementation, so a caller
//! never waits on an engine that hangs. Streams are read to their end, errors
//! that travel inside them included.

mod docker;
mod error;
#[cfg(feature = "testing")]
pub mod fake;
pub mod hardening;
pub mod image;
pub mod images;
pub mod quota;
mod written;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::sync::mpsc;

pub use docker::DockerEngine;
pub use error::EngineError;
pub use written::{EngineUsage, Written, WrittenVolume};

use crate::sandbox::ContainerSpec;

/// What the engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// Version, such as `20.10.24`.
    pub version: String,
    /// Storage driver, such as `overlay2`.
    pub storage_driver: String,
    /// 1 or 2; 0 when it does not say.
    pub cgroup_version: u32,
    /// Logical processors it may use; absent when it does not say.
    pub cpus: Option<u32>,
    /// Where it keeps images and containers.
    pub data_root: Option<PathBuf>,
    /// The uid and gid on the host of root inside containers, when the engine
    /// remaps users.
    pub remapped_root: Option<(u32, u32)>,
    /// The file system below its data, such as `xfs`; absent when it does not
    /// say.
    pub backing_filesystem: Option<String>,
    /// Its folders of CDI specifications; empty when it injects no devices that
    /// way.
    pub cdi_folders: Vec<PathBuf>,
}

/// A volume or a network of the engine, with its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labelled {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A container that a sandbox started beside itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sibling {
    /// The engine's id.
    pub id: String,
    /// Its names, without a slash before them.
    pub names: Vec<String>,
    /// Its image.
    pub image: String,
    /// Its state in the engine's word.
    pub state: String,
    /// When it was made.
    pub create_time: Option<SystemTime>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// The bridge that sandboxes are on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// The host's address on it.
    pub gateway: Ipv4Addr,
    /// Its interface on the engine's host.
    pub bridge: String,
}

/// What an image says about how to run it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// The engine's id of it.
    pub id: String,
    /// Entrypoint.
    pub entrypoint: Vec<String>,
    /// Command, appended to the entrypoint.
    pub command: Vec<String>,
    /// Environment, in the image's order.
    pub env: Vec<(String, String)>,
    /// User; empty for root.
    pub user: String,
    /// Working directory; empty for `/`.
    pub working_dir: String,
}

/// How far a pull is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// In the engine's words.
    pub message: String,
    /// Bytes that are there, over all layers.
    pub current_bytes: u64,
    /// Bytes in all, as far as is known.
    pub total_bytes: u64,
    /// Bytes a second over the last seconds.
    pub bytes_per_second: u64,
    /// Its layers, in the image's order; at most 128.
    pub layers: Vec<LayerProgress>,
}

/// How far one layer of a pull is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerProgress {
    /// The engine's id of it.
    pub id: String,
    /// In the engine's words.
    pub state: String,
    /// Bytes that are there.
    pub current_bytes: u64,
    /// Bytes in all; zero while unknown.
    pub total_bytes: u64,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Its main process runs.
    Running,
    /// Its main process ended.
    Exited,
}

/// A container with our labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The engine's id.
    pub id: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Where it is.
    pub state: ContainerState,
    /// How its main process ended; present once it exited and was inspected.
    pub exit_code: Option<i32>,
    /// Whether the kernel ended it for memory; only known by `inspect`.
    pub out_of_memory: bool,
    /// When it was started; only known by `inspect`.
    pub start_time: Option<SystemTime>,
    /// When its main process ended; only known by `inspect`.
    pub finish_time: Option<SystemTime>,
}

/// Something happened to the container with this id: look at it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineEvent {
    /// The engine's id of the container.
    pub container: String,
}

/// A piece of a container's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// Whether it is of stderr.
    pub stderr: bool,
    /// The bytes.
    pub data: Bytes,
}

/// A container engine.
#[async_trait]
pub trait Engine: images::ImageStore {
    /// Asks the engine about itself; also the probe of whether it works.
    ///
    /// # Errors
    /// When it does not answer, or is older than what is needed.
    async fn info(&self) -> Result<EngineInfo, EngineError>;

    /// Finds or makes the bridge with this name and these labels: containers
    /// on it cannot reach one another, and have no IPv6.
    ///
    /// # Errors
    /// When it cannot be made, or has no IPv4 gateway; `Unfit` when the one
    /// with this name lacks a label or keeps containers less apart.
    async fn ensure_network(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<Network, EngineError>;

    /// Removes the bridge; one that is not there is removed.
    ///
    /// # Errors
    /// When containers are still on it, or the engine fails.
    async fn remove_network(&self, name: &str) -> Result<(), EngineError>;

    /// Lists the networks that have this label.
    ///
    /// # Errors
    /// When the engine fails.
    async fn networks(&self, label: &str, value: &str) -> Result<Vec<Labelled>, EngineError>;

    /// Finds or makes a volume on the engine's own disk. `size` bounds its
    /// bytes where the engine can keep volumes to a project quota.
    ///
    /// # Errors
    /// `Conflict` when the one with this name lacks a label.
    async fn ensure_volume(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        size: Option<u64>,
    ) -> Result<(), EngineError>;

    /// Removes a volume and what is in it; one that is not there is removed.
    ///
    /// # Errors
    /// `Conflict` while a container has it.
    async fn remove_volume(&self, name: &str) -> Result<(), EngineError>;

    /// Lists the volumes that have this label.
    ///
    /// # Errors
    /// When the engine fails.
    async fn volumes(&self, label: &str, value: &str) -> Result<Vec<Labelled>, EngineError>;

    /// Lists the containers that sandboxes started beside themselves, newest
    /// first: those with this label, of this value where one is given.
    ///
    /// # Errors
    /// When the engine fails.
    async fn siblings(&self, label: &str, value: Option<&str>)
    -> Result<Vec<Sibling>, EngineError>;

    /// Looks for an image on this host; never fetches.
    ///
    /// # Errors
    /// When the engine fails; an image that is not there is `None`.
    async fn image(&self, reference: &str) -> Result<Option<ImageConfig>, EngineError>;

    /// Fetches an image and says how far it is; slow readers of `progress`
    /// miss steps, they never hold the pull up. Dropping the future ends it.
    ///
    /// # Errors
    /// `NotFound` when there is no such image, `Stream` when the pull broke.
    async fn pull(
        &self,
        reference: &str,
        progress: mpsc::Sender<PullProgress>,
    ) -> Result<(), EngineError>;

    /// Makes a container and returns its id.
    ///
    /// # Errors
    /// `Conflict` when the name is taken, `NotFound` when image or network
    /// are not there.
    async fn create(&self, name: &str, spec: &ContainerSpec) -> Result<String, EngineError>;

    /// Starts a container; one that runs is started.
    ///
    /// # Errors
    /// `NotFound` when it is not there; otherwise why it cannot start.
    async fn start(&self, container: &str) -> Result<(), EngineError>;

    /// Kills a container at once, by id or name; one that does not run, or is
    /// not there, is killed.
    ///
    /// # Errors
    /// When the engine fails.
    async fn kill(&self, container: &str) -> Result<(), EngineError>;

    /// Where a container writes, by id or name; `None` for one that is not
    /// there.
    ///
    /// # Errors
    /// When the engine fails.
    async fn written(&self, container: &str) -> Result<Option<Written>, EngineError>;

    /// The engine's own count of what is on its disk. It walks everything for
    /// it: minutes on a full disk.
    ///
    /// # Errors
    /// When the engine fails.
    async fn usage(&self) -> Result<EngineUsage, EngineError>;

    /// Kills and removes a container with its anonymous volumes, by id or
    /// name; one that is not there is removed.
    ///
    /// # Errors
    /// When the engine fails.
    async fn remove(&self, container: &str) -> Result<(), EngineError>;

    /// Lists the containers, in whatever state, that have this label.
    ///
    /// # Errors
    /// When the engine fails.
    async fn list(&self, label: &str, value: &str) -> Result<Vec<Container>, EngineError>;

    /// Looks at one container, by id or name.
    ///
    /// # Errors
    /// When the engine fails; one that is not there is `None`.
    async fn inspect(&self, container: &str) -> Result<Option<Container>, EngineError>;

    /// Streams what happens to containers that have this label, from a few
    /// seconds before now on.
    /// A stream that ends or fails has lost events: list again.
    fn events(
        &self,
        label: &str,
        value: &str,
    ) -> BoxStream<'static, Result<EngineEvent, EngineError>>;

    /// Streams a container's output, stdout and stderr apart. With `follow` it
    /// ends when the container does. `tail` is a number of lines; `None` is all.
    fn logs(
        &self,
        container: &str,
        follow: bool,
        tail: Option<u32>,
    ) -> BoxStream<'static, Result<LogChunk, EngineError>>;
}
