//! What the code promises about itself: its shape, its API, its error pages.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must stop")]

mod arrows;
mod error_pages;
