//! The agent is replaced while the engine goes on.

use crate::image::image;
use crate::wolf::{Wolf, docker};

const BROUGHT: &str = "/var/lib/wolfpack-wolf/bin/sleep";

#[tokio::test]
async fn a_newer_agent_is_taken_and_one_that_does_not_work_is_not_kept() {
    let Some(image) = image().await else { return };
    let wolf = Wolf::running(image).await;
    let before = wolf.status().await;
    assert_eq!(before.agent.program.to_str(), Some("/usr/bin/sleep"));

    wolf.sh(&format!("mkdir -p $(dirname {BROUGHT}) && cp /usr/bin/sleep {BROUGHT}")).await;
    docker(&["kill", "-s", "HUP", &wolf.name]).await;
    let replaced = wolf.until("replaced", |status| status.agent.replaced == 1 && status.healthy());
    let replaced = replaced.await;
    assert_eq!(replaced.agent.program.to_str(), Some(BROUGHT));
    assert_ne!(replaced.agent.pid, before.agent.pid);
    assert_eq!(replaced.engine.pid, before.engine.pid, "dockerd goes on");
    assert_eq!(replaced.agent.restarts, 0, "that was no failure");

    // Beside it and moved, as one that runs cannot be written.
    let broken = format!(
        "printf '#!/bin/sh\\nexit 3\\n' > {BROUGHT}.new && chmod 755 {BROUGHT}.new \
         && touch -d '+1 minute' {BROUGHT}.new && mv {BROUGHT}.new {BROUGHT}"
    );
    wolf.sh(&broken).await;
    docker(&["kill", "-s", "HUP", &wolf.name]).await;
    let back = wolf
        .until("the image's agent", |status| {
            status.agent.replaced == 2
                && status.healthy()
                && status.agent.program.to_str() == Some("/usr/bin/sleep")
        })
        .await;
    assert!(back.agent.restarts >= 3, "{:?}", back.agent);
    assert_eq!(back.engine.pid, before.engine.pid);
}
