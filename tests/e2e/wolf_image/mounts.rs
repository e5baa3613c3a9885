//! Folders of the machine in a sandbox: changes are seen at once, and nothing
//! leads out of what is allowed.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Duration;

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

/// The reason for which a sandbox does not come up.
async fn refused(client: &Client, spec: pb::SandboxSpec) -> String {
    match client.create(spec).await {
        Err(error) => format!("{error:#}"),
        Ok(created) => {
            let outcome = client.wait(&created.name, pb::SandboxState::Running).await;
            let why = format!("{:#}", outcome.expect_err("it must not run"));
            client.delete(&created.name).await.unwrap();
            why
        }
    }
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

    for source in
        [format!("{root_path}/way-out"), format!("{root_path}/code/../../etc"), "/etc".into()]
    {
        let why = refused(&client, mounting(&source)).await;
        assert!(
            [
                "MOUNT_FORBIDDEN",
                "NO_WOLF_FITS",
                "REQUEST_INVALID",
                "SHAPE_INVALID",
                "must be an absolute path",
                "lets sandboxes mount"
            ]
            .iter()
            .any(|reason| why.contains(reason)),
            "{source}: {why}"
        );
    }
    fleet.stop().await;
}
