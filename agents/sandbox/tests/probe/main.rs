//! The escape probe in real containers: in one hardened as a sandbox is it
//! finds nothing, and each of its checks reports in a container that was
//! deliberately weakened for it. A check that cannot fail shows nothing.
//!
//! It needs a Docker engine and the image `wolfpack/sandbox-docker`, which
//! `scripts/setup engine images` makes. Nothing is written to or loaded into
//! the machine: the probe asks and opens.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../machine/mod.rs"]
mod machine;

mod controls;
mod probed;
mod sandboxes;
mod unshown;
