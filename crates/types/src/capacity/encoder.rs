//! Sessions of hardware video encoders: a good of a device, and where the
//! driver counts that way, of the host too.

/// What a hardware encoder writes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum EncoderCodec {
    /// H.264.
    H264,
    /// H.265.
    Hevc,
    /// AV1.
    Av1,
}

/// What a sandbox wants of hardware encoders. Sessions are of its own GPUs, all
/// on one device; of any one GPU of the host when it has none of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderDemand {
    /// How many sessions at a time, at least 1.
    pub sessions: u32,
    /// What it must write; `None` for anything.
    pub codec: Option<EncoderCodec>,
    /// Whether only a host that has them will do; otherwise the sandbox is
    /// granted none where there are none, and encodes on the CPU.
    pub required: bool,
}

impl EncoderDemand {
    /// Sessions of any codec that must be there.
    #[must_use]
    pub fn required(sessions: u32) -> Self {
        Self { sessions, codec: None, required: true }
    }

    /// Sessions of any codec that would be good to have.
    #[must_use]
    pub fn preferred(sessions: u32) -> Self {
        Self { required: false, ..Self::required(sessions) }
    }
}

/// Sessions that a demand was given.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EncoderGrant {
    /// Id of the GPU whose encoder they are of.
    pub device: String,
    /// How many.
    pub sessions: u32,
}
