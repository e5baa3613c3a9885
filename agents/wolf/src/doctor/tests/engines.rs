//! What is looked for at an engine.

use super::*;

#[tokio::test]
async fn engines_and_their_holes() {
    let with = |parts: &[(&str, &str)]| Tree::new().engine(engine(parts));
    let id = "engine.version";
    assert_eq!(Tree::new().outcome(id).await, Outcome::Fail);
    for (version, outcome) in [
        ("29.3.1", Outcome::Pass),
        ("20.10.24+dfsg1", Outcome::Pass),
        ("20.10.24", Outcome::Warn),
        ("19.03.15", Outcome::Fail),
        ("dev", Outcome::Warn),
    ] {
        assert_eq!(with(&[("Engine", version)]).outcome(id).await, outcome, "{version}");
    }

    let id = "engine.vulnerabilities";
    assert_eq!(Tree::new().outcome(id).await, Outcome::Skip);
    assert_eq!(with(&[("Engine", "dev")]).outcome(id).await, Outcome::Skip);
    let sound = with(&[("Engine", "29.3.1"), ("containerd", "v2.2.1"), ("runc", "1.4.0")]);
    assert_eq!(sound.outcome(id).await, Outcome::Pass);
    let open = with(&[("Engine", "29.3.1"), ("containerd", "v2.2.1"), ("runc", "1.1.11")]);
    let check = open.check(id).await;
    assert_eq!(check.outcome, Outcome::Fail);
    assert!(check.facts["CVE-2024-21626"].contains("GHSA-xr7r-f8xq-vfvv"), "{check:?}");
    let debian =
        [("Engine", "20.10.24+dfsg1"), ("containerd", "1.6.20~ds1"), ("runc", "1.1.5+ds1")];
    let check = with(&debian).check(id).await;
    assert_eq!(check.outcome, Outcome::Warn, "its distribution may have mended it");
    for hole in ["CVE-2024-21626", "CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"] {
        assert!(check.message.contains(hole), "{hole}: {}", check.message);
    }
    // Only where an authorization plugin is used.
    let plugin = with(&[("Engine", "27.1.0"), ("runc", "1.3.3")]);
    assert_eq!(plugin.outcome(id).await, Outcome::Warn);

    let id = "engine.user-remap";
    assert_eq!(Tree::new().outcome(id).await, Outcome::Skip);
    assert_eq!(sound.outcome(id).await, Outcome::Warn);
    let options = vec!["name=seccomp,profile=default".to_owned(), "name=userns".to_owned()];
    let remapped = EngineLook { options, ..EngineLook::default() };
    assert_eq!(Tree::new().engine(remapped).outcome(id).await, Outcome::Pass);
}

#[tokio::test]
async fn an_engine_is_asked_over_its_socket() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    let why = engine::look(&socket).await.unwrap_err();
    assert!(why.contains("docker.sock"), "{why}");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = Vec::new();
                while let Ok(byte) = stream.read_u8().await {
                    request.push(byte);
                    if !request.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let line = String::from_utf8_lossy(&request).into_owned();
                    request.clear();
                    let body = if line.contains("/info") {
                        r#"{"Driver":"overlay2","DockerRootDir":"/var/lib/docker/100000.100000",
                            "SecurityOptions":["name=userns"]}"#
                    } else {
                        r#"{"Version":"20.10.24+dfsg1","ApiVersion":"1.41","MinAPIVersion":"1.12",
                            "Components":[{"Name":"Engine","Version":"20.10.24+dfsg1"},
                            {"Name":"runc","Version":"1.1.5+ds1"}]}"#
                    };
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    let look = engine::look(&socket).await.unwrap();
    assert_eq!(look.driver, "overlay2");
    assert_eq!(look.data_root, Some(PathBuf::from("/var/lib/docker/100000.100000")));
    let parts = [("Engine", "20.10.24+dfsg1"), ("runc", "1.1.5+ds1")];
    let parts: BTreeMap<String, String> =
        parts.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    assert_eq!(look.parts, parts);
    serving.abort();
}
