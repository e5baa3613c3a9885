//! Generated messages, clients, servers and the descriptor set of every
//! Wolfpack API; nothing else. The comments in `proto/` are the reference.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::restriction)]

pub mod wolfpack_api {
    include!(concat!(env!("OUT_DIR"), "/wolfpack.rs"));
}
pub use wolfpack_api::wolfpack::{agent, registry, sandbox, scheduler, tunnel, types};

mod validate {
    #![allow(unused)]
    use super::wolfpack_api::*;
    include!(concat!(env!("OUT_DIR"), "/validate_impl.rs"));
}

/// Every file of the API with its imports and custom options, encoded as a
/// `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor_set.bin"));
