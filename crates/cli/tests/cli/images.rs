//! `wolfpack image …` as a process.

use super::fake_gateway::FakeGateway;
use super::fake_images::BREAKS_AFTER;
use super::{text, wolfpack};

#[test]
fn a_push_that_breaks_is_gone_on_with_and_every_byte_arrives_once() {
    let gateway = FakeGateway::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made.tar");
    let archive: Vec<u8> = (0..1_300_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&path, &archive).unwrap();
    let file = path.to_str().unwrap();
    let output = wolfpack(&gateway, &["image", "push", file, "--all"], b"");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        text(&output.stdout),
        "made:latest is on wolves/one\nmade:latest is on wolves/two\n",
        "the wolf that is offline is left out"
    );
    let came = gateway.images.0.lock().unwrap();
    assert_eq!(came.len(), 2);
    for came in came.values() {
        assert!(came.bytes == archive, "{} of {} bytes", came.bytes.len(), archive.len());
        assert_eq!(came.offsets.len(), 2, "{:?}", came.offsets);
        assert!(came.offsets[1] >= BREAKS_AFTER as u64, "{:?}", came.offsets);
    }
}

#[test]
fn what_is_no_image_is_told_before_anything_is_sent() {
    let gateway = FakeGateway::start();
    let push = |image: &str| wolfpack(&gateway, &["image", "push", image, "--wolf", "one"], b"");
    let output = push("./absent.tar");
    assert_eq!(output.status.code(), Some(74), "{output:?}");
    assert!(text(&output.stderr).contains("absent.tar: No such file"), "{output:?}");
    // Which wolf is meant must be said where there are several.
    let output = wolfpack(&gateway, &["image", "push", "./absent.tar"], b"");
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(
        text(&output.stderr).contains("there are 3 wolves; give one with --wolf"),
        "{output:?}"
    );
    assert!(gateway.images.0.lock().unwrap().is_empty());
}

#[test]
fn images_are_listed_and_removed() {
    let gateway = FakeGateway::start();
    let output = wolfpack(&gateway, &["image", "list", "--wolf", "one"], b"");
    let listed = text(&output.stdout);
    assert!(listed.contains("of-wolves/one:1") && listed.contains("3.00 MiB"), "{listed}");
    let output = wolfpack(&gateway, &["image", "ls", "--wolf", "one", "-o", "json"], b"");
    let listed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(listed["images"][0]["containers"], 2);

    // One that cannot be removed does not spare the others.
    let remove = ["image", "rm", "--wolf", "one", "used:1", "free:1"];
    let output = wolfpack(&gateway, &remove, b"");
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    assert_eq!(text(&output.stdout), "free:1 is removed from wolves/one\n");
    assert!(text(&output.stderr).contains("IMAGE_IN_USE"), "{output:?}");
}
