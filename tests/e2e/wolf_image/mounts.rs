//! Folders of the machine in a sandbox: changes are seen at once, and nothing
//! leads out of what is allowed.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Duration;

use tonic_types::StatusExt as _;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_testkit::client::Client;
use wolfpack_testkit::dev_fleet::DevFleet;
use wolfpack_testkit::process::eventually;

use super::sh;

fn mounting(source: &str) -> pb::SandboxSpec {
    let mount =
        pb::Mount { source: source.to_owned(), target: "/work".to_owned(), read_only: true };
    pb::SandboxSpec { mounts: vec![mount], ..Default::default() }
}

/// Why a sandbox does not come up: the reason and the words, of the call or of
/// the sandbox that failed.
async fn refused(client: &Client, spec: pb::SandboxSpec) -> (String, String) {
    let created = match client.create(spec).await {
        Err(error) => {
            let status = error.downcast_ref::<tonic::Status>().expect("the status of the call");
            let details = status.get_error_details();
            let info = details.error_info().expect("its reason");
            return (info.reason.clone(), status.message().to_owned());
        }
        Ok(created) => created,
    };
    // One that no wolf takes is given up after a minute of asking them.
    let why = eventually("it fails", Duration::from_secs(150), async || {
        let status = client.get(&created.name).await?.status.unwrap_or_default();
        anyhow::ensure!(status.state() == pb::SandboxState::Failed, "{status:?}");
        Ok((status.reason, status.message))
    })
    .await;
    client.delete(&created.name).await.unwrap();
    why
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_seen_live_and_nothing_leads_out_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = tempfile::tempdir().unwrap();
    std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let root_path = root.path().to_str().unwrap();
    std::fs::create_dir(root.path().join("code")).unwrap();
    std::fs::write(root.path().join("code/page"), "one").unwrap();
    symlink("/etc", root.path().join("way-out")).unwrap();
    let fleet =
        DevFleet::start_with_wolf_image_and(folder.path(), &[], &["--mount-root", root_path]).await;
    let client = fleet.client().await;

    let name = client.run(mounting(&format!("{root_path}/code"))).await.unwrap().name;
    assert_eq!(sh(&client, &name, "cat /work/page").await, "one");
    // In place, and by a new file under the old name, as editors do.
    std::fs::write(root.path().join("code/page"), "two").unwrap();
    eventually("the change is seen", Duration::from_secs(10), async || {
        anyhow::ensure!(sh(&client, &name, "cat /work/page").await == "two");
        Ok(())
    })
    .await;
    std::fs::write(root.path().join("code/new"), "three").unwrap();
    std::fs::rename(root.path().join("code/new"), root.path().join("code/page")).unwrap();
    eventually("the new file is seen", Duration::from_secs(10), async || {
        anyhow::ensure!(sh(&client, &name, "cat /work/page").await == "three");
        Ok(())
    })
    .await;
    let write = client.exec(&name, &["sh", "-c", "echo x > /work/page"], vec![]).await.unwrap();
    assert_ne!(write.code, 0, "it is read-only");
    client.delete(&name).await.unwrap();

    for (source, reason, rule) in [
        // The wolf finds it: only there a link is seen.
        (
            format!("{root_path}/way-out"),
            "MOUNT_FORBIDDEN",
            format!("{root_path}/way-out leads through a symbolic link"),
        ),
        (
            format!("{root_path}/code/../../etc"),
            "REQUEST_INVALID",
            "the source must be an absolute path without \"..\"".to_owned(),
        ),
        (
            "/etc".to_owned(),
            "NO_WOLF_FITS",
            "/etc is not below a folder that the wolf lets sandboxes mount".to_owned(),
        ),
    ] {
        let (found, words) = refused(&client, mounting(&source)).await;
        assert_eq!(found, reason, "{source}: {words}");
        assert!(words.contains(&rule), "{source}: {words}");
    }
    fleet.stop().await;
}
