//! The image under test, built once.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;
use tokio::sync::OnceCell;

/// What containers of the wolf's own engine are made from.
pub(crate) const INNER: &str = "debian:bookworm-slim";

static IMAGE: OnceCell<Option<String>> = OnceCell::const_new();

/// The image's name, or `None` where there is no engine.
pub(crate) async fn image() -> Option<&'static str> {
    IMAGE.get_or_init(find).await.as_deref()
}

async fn find() -> Option<String> {
    let answers = Command::new("docker").args(["image", "inspect", INNER]).output().await;
    if !answers.is_ok_and(|output| output.status.success()) {
        let ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!ci, "docker has no engine with the image {INNER}; run scripts/setup");
        eprintln!("not run: docker has no engine with the image {INNER}; run scripts/setup");
        return None;
    }
    if let Ok(named) = std::env::var("WOLFPACK_WOLF_IMAGE") {
        return Some(named);
    }
    let repo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let built = Command::new(repo.join("scripts/build-images"))
        .arg("--binaries")
        .arg(binaries())
        .arg("wolf")
        .stdin(Stdio::null())
        .status()
        .await
        .unwrap();
    assert!(built.success(), "scripts/build-images does not build the wolf image");
    Some("wolfpack/wolf:latest".to_owned())
}

/// Where the binaries are: `WOLFPACK_TEST_BINARIES`, or where the test itself
/// was built.
fn binaries() -> PathBuf {
    let test = || std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
    let folder = std::env::var_os("WOLFPACK_TEST_BINARIES").map_or_else(test, PathBuf::from);
    for name in ["wolfpack-wolf-init", "wolfpack-wolf-agent"] {
        let binary = folder.join(name);
        let shown = binary.display();
        assert!(binary.exists(), "{shown} is missing; run: cargo build --workspace --bins");
    }
    folder
}
