//! Who may do what, from the outside: every rpc with no key, a wrong key,
//! another project's key on a live resource, and the owner's key.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must stop")]

mod dynamic_call;
mod matrix;
mod project_wolf;
mod rows;
mod sandbox_secrets;
mod shown;
