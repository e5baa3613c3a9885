//! The flags that say what a sandbox needs; the same for create and explain.

use clap::{Args, ValueEnum};
use wolfpack_proto::sandbox::v1 as sandbox;
use wolfpack_proto::scheduler::v1 as scheduler;
use wolfpack_proto::types::v1 as types;

use super::encoder::EncoderArg;
use super::mount::MountArg;
use super::values::{self, Pair};

/// What a sandbox needs of its wolf.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What it needs")]
pub struct ShapeArgs {
    /// Cores, such as 2, 0.5 or 500m
    #[arg(long, value_name = "CORES", allow_hyphen_values = true, value_parser = values::cpu_milli)]
    pub cpu: Option<u32>,
    /// Memory, such as 512M or 4G
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = values::memory)]
    pub memory: Option<u64>,
    /// Disk, such as 20G
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = values::bytes)]
    pub disk: Option<u64>,
    /// Processes and threads at a time
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub pids: Option<u32>,
    /// A Linux desktop
    #[arg(long)]
    pub desktop: bool,
    /// How many GPUs
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub gpu: Option<u32>,
    /// A model the GPUs may be of; any of those given
    #[arg(long, value_name = "MODEL", requires = "gpu")]
    pub gpu_model: Vec<String>,
    /// The least memory of each GPU
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = values::bytes, requires = "gpu")]
    pub gpu_memory: Option<u64>,
    /// Hardware video encoder sessions, such as 1 or 2:hevc:preferred
    #[arg(long, value_name = "N[:CODEC][:NEED]", allow_hyphen_values = true)]
    pub encoder: Option<EncoderArg>,
    /// What it has of Docker
    #[arg(long, value_enum, value_name = "MODE")]
    pub docker: Option<DockerArg>,
    /// A folder of the wolf that it sees, below what the wolf allows
    #[arg(long, value_name = "SRC:DST[:ro]")]
    pub mount: Vec<MountArg>,
    /// A label the wolf must have
    #[arg(long, value_name = "KEY=VALUE")]
    pub wolf_label: Vec<Pair>,
    /// How to choose among wolves that fit
    #[arg(long, value_enum)]
    pub strategy: Option<StrategyArg>,
}

/// What a sandbox has of Docker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DockerArg {
    /// No engine and no socket
    None,
    /// An engine of its own inside it, which nobody else sees
    Nested,
    /// The wolf's own engine: whoever is in the sandbox owns the wolf
    Shared,
}

/// How to choose a wolf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StrategyArg {
    /// Fill wolves up
    Pack,
    /// Even the load out
    Spread,
}

impl ShapeArgs {
    /// Divisible goods; what was not given takes the server's default.
    #[must_use]
    pub fn resources(&self) -> types::Resources {
        types::Resources {
            cpu_milli: self.cpu,
            memory_bytes: self.memory,
            disk_bytes: self.disk,
            pids: self.pids,
        }
    }

    /// GPUs, if any.
    #[must_use]
    pub fn gpus(&self) -> Option<types::GpuRequest> {
        self.gpu.map(|count| types::GpuRequest {
            count,
            models: self.gpu_model.clone(),
            min_memory_bytes: self.gpu_memory.unwrap_or_default(),
            ..types::GpuRequest::default()
        })
    }

    /// What it has of Docker.
    #[must_use]
    pub fn docker(&self) -> types::DockerMode {
        match self.docker {
            None => types::DockerMode::Unspecified,
            Some(DockerArg::None) => types::DockerMode::None,
            Some(DockerArg::Nested) => types::DockerMode::Nested,
            Some(DockerArg::Shared) => types::DockerMode::Shared,
        }
    }

    /// Hardware encoders, if any.
    #[must_use]
    pub fn encoders(&self) -> Option<types::EncoderRequest> {
        self.encoder.map(Into::into)
    }

    /// Folders of the wolf.
    #[must_use]
    pub fn mounts(&self) -> Vec<sandbox::Mount> {
        self.mount.iter().map(Into::into).collect()
    }

    /// How to choose.
    #[must_use]
    pub fn strategy(&self) -> scheduler::Strategy {
        match self.strategy {
            None => scheduler::Strategy::Unspecified,
            Some(StrategyArg::Pack) => scheduler::Strategy::Pack,
            Some(StrategyArg::Spread) => scheduler::Strategy::Spread,
        }
    }

    /// All of it, as the scheduler takes it; `image` may be empty.
    #[must_use]
    pub fn shape(&self, image: &str) -> scheduler::Shape {
        scheduler::Shape {
            resources: Some(self.resources()),
            gpu: self.gpus(),
            desktop: self.desktop,
            wolf_selector: values::map(&self.wolf_label),
            strategy: self.strategy().into(),
            docker: self.docker().into(),
            encoder: self.encoders(),
            mount_sources: self.mount.iter().map(|mount| mount.source.clone()).collect(),
            image: image.to_owned(),
        }
    }
}
