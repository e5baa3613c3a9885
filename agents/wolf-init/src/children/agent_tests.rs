use std::os::unix::fs::PermissionsExt as _;

use super::*;
use wolfpack_dockerd::status::InitStatus;

/// Long enough for anything that works.
const SOON: Duration = Duration::from_secs(30);

/// An init whose agent is a script that counts its starts.
struct Init {
    folder: tempfile::TempDir,
    config: Config,
    record: Record,
}

impl Init {
    fn with(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("agent");
        let starts = folder.path().join("starts");
        let text = format!("#!/bin/sh\necho >>{}\n{script}\n", starts.display());
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut config = Config {
            run_dir: folder.path().join("run"),
            state_dir: folder.path().join("state"),
            ..Config::default()
        };
        config.agent.program = program;
        let record = Record::fresh(&config.run_dir);
        Self { folder, config, record }
    }

    fn starts(&self) -> usize {
        std::fs::read(self.folder.path().join("starts")).map_or(0, |lines| lines.len())
    }

    /// Waits for a status.
    async fn says(&self, holds: impl Fn(&InitStatus) -> bool) -> InitStatus {
        let wait = async {
            loop {
                match InitStatus::read(&self.config.run_dir) {
                    Ok(status) if holds(&status) => return status,
                    _ => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let Ok(status) = tokio::time::timeout(SOON, wait).await else {
            panic!("it says {:?}", InitStatus::read(&self.config.run_dir));
        };
        status
    }
}

#[tokio::test]
async fn one_that_was_superseded_stays_away_until_somebody_asks_for_it() {
    let init = Init::with("exit 66");
    let (stop, (replace, replaces)) = (CancellationToken::new(), mpsc::channel(1));
    let agent = Agent::new(&init.config, &init.record, OsString::from("/usr/bin:/bin"));
    let operator = async {
        let status = init.says(|status| status.agent.state == ChildState::Stopped).await;
        assert!(status.agent.trouble.unwrap().contains("took over"), "it says what to do");
        assert_eq!((status.agent.restarts, status.agent.pid), (0, None));
        assert!(status.failed.is_none(), "the engine and the sandboxes go on");
        // Ten times the first pause of one that is started again.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(init.starts(), 1);
        replace.send(()).await.unwrap();
        let again = |status: &InitStatus| {
            status.agent.replaced == 1 && status.agent.state == ChildState::Stopped
        };
        init.says(|status| init.starts() == 2 && again(status)).await;
        stop.cancel();
    };
    let (end, ()) = tokio::join!(agent.keep(stop.clone(), replaces), operator);
    assert_eq!(end, AgentEnd::Stopped { in_time: true });
    assert_eq!(init.starts(), 2);
}

#[tokio::test]
async fn one_that_ends_otherwise_is_started_again() {
    let init = Init::with("exit 1");
    let (stop, (_replace, replaces)) = (CancellationToken::new(), mpsc::channel(1));
    let agent = Agent::new(&init.config, &init.record, OsString::from("/usr/bin:/bin"));
    let operator = async {
        init.says(|status| status.agent.restarts >= 3).await;
        stop.cancel();
    };
    let (end, ()) = tokio::join!(agent.keep(stop.clone(), replaces), operator);
    assert_eq!(end, AgentEnd::Stopped { in_time: true });
    assert!(init.starts() >= 3);
}
