//! A database of its own for each test, on either engine.

use std::path::Path;

/// The server that PostgreSQL tests use, from `WOLFPACK_TEST_POSTGRES`.
/// Without it the test is not run, says so, and fails under `CI=true`.
///
/// # Panics
/// Under `CI=true` when the variable is not set.
#[must_use]
pub fn postgres_server() -> Option<String> {
    let server = std::env::var("WOLFPACK_TEST_POSTGRES").ok();
    if server.is_none() {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "WOLFPACK_TEST_POSTGRES is not set; scripts/test starts a server and sets it"
        );
        eprintln!(
            "not run: set WOLFPACK_TEST_POSTGRES, or run scripts/test, which starts PostgreSQL"
        );
    }
    server
}

/// The URL of a fresh SQLite file in `folder`.
#[must_use]
pub fn sqlite(folder: &Path, name: &str) -> String {
    format!("sqlite://{}?mode=rwc", folder.join(format!("{name}.db")).display())
}
