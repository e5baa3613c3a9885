//! The wolf image on a real engine, without `--privileged`.
//!
//! Runs where `docker` finds an engine. Without one it says so and passes,
//! except under `CI=true`, where the engine must be there. The image is
//! `WOLFPACK_WOLF_IMAGE`; without that variable `scripts/build-images` builds
//! it from the binaries that the tests are built with.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails the test")]

mod failures;
mod image;
mod life;
mod upgrade;
mod wolf;
