//! The real desktop.

use std::time::{Duration, Instant};

use wolfpack_proto::agent::v1::{
    GetClipboardRequest, GetScreenshotRequest, GetScreenshotResponse, SetClipboardRequest,
};
use wolfpack_rpc::from_status;
use wolfpack_types::Reason;

use super::engine::{Container, Plan, engine};
use super::harness::{PATIENCE, shell};

async fn screenshot(container: &Container) -> GetScreenshotResponse {
    container.client.clone().get_screenshot(GetScreenshotRequest {}).await.unwrap().into_inner()
}

async fn clipboard(container: &Container) -> String {
    container.client.clone().get_clipboard(GetClipboardRequest {}).await.unwrap().into_inner().text
}

async fn copy(container: &Container, text: &str) {
    let request = SetClipboardRequest { text: text.to_owned() };
    container.client.clone().set_clipboard(request).await.unwrap();
}

/// Once two pictures in a row are the same: what was drawn is all there.
async fn unchanging(container: &Container) -> GetScreenshotResponse {
    let began = Instant::now();
    let mut last = screenshot(container).await;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = screenshot(container).await;
        // A cursor that blinks never ends.
        if now.image == last.image || began.elapsed() > PATIENCE {
            return now;
        }
        last = now;
    }
}

/// What the desktop of a container says that does not come up, once it says
/// this; until then it is on its way.
async fn says(container: &Container, why: &str) {
    let began = Instant::now();
    loop {
        let request = GetScreenshotRequest {};
        let status = container.client.clone().get_screenshot(request).await.unwrap_err();
        let fault = from_status(&status);
        assert_eq!(fault.reason, Reason::DesktopFailed);
        if fault.message.contains(why) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{}\n{}", fault.message, container.agent_log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How many pixels of two pictures differ.
fn difference(one: &[u8], other: &[u8]) -> usize {
    let pixels = |png| image::load_from_memory(png).unwrap().into_rgb8();
    let (one, other) = (pixels(one), pixels(other));
    assert_eq!(one.dimensions(), other.dimensions());
    one.pixels().zip(other.pixels()).filter(|(a, b)| a != b).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_appears_and_is_seen() {
    if !engine() {
        return;
    }
    let container = Container::start(&Plan::desktop());
    let took = container.ready().await;
    eprintln!("the desktop was ready after {took:?}");
    let empty = screenshot(&container).await;
    assert_eq!((empty.width, empty.height), (1280, 720));
    let decoded = image::load_from_memory(&empty.image).unwrap();
    assert_eq!((decoded.width(), decoded.height()), (1280, 720));
    // By exec, as a caller would; it stays when the exec has ended.
    let opened = container
        .sh("setsid foot sh -c 'echo WOLFPACK; id; sleep 1000' >/dev/null 2>&1 & echo")
        .await;
    assert_eq!(opened.code, 0);
    let began = Instant::now();
    let window = loop {
        let window = screenshot(&container).await;
        if difference(&empty.image, &window.image) > 100_000 {
            break window;
        }
        assert!(began.elapsed() < PATIENCE, "no window\n{}", container.agent_log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    if let Some(folder) = std::env::var_os("WOLFPACK_TEST_OUT") {
        let later = unchanging(&container).await;
        std::fs::write(std::path::Path::new(&folder).join("screenshot.png"), &later.image).unwrap();
    }
    assert_eq!((window.width, window.height), (1280, 720));
    let zombies = container.processes().iter().filter(|process| process.starts_with('Z')).count();
    assert_eq!(zombies, 0, "{:?}", container.processes());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clipboard_goes_both_ways() {
    if !engine() {
        return;
    }
    let container = Container::start(&Plan::desktop());
    container.ready().await;
    assert_eq!(clipboard(&container).await, "", "an empty one is empty text");
    for text in ["hello", "two\nlines\n", "wölf 🐺\t'\"$(id)", "-n", "", &"x".repeat(1 << 20)] {
        copy(&container, text).await;
        assert_eq!(clipboard(&container).await.len(), text.len());
        assert_eq!(clipboard(&container).await, text);
    }
    let inside =
        container.sh("wl-paste --no-newline | wc -c; printf 'from inside' | wl-copy").await;
    assert_eq!(inside.out(), "1048576\n", "{}", inside.err());
    assert_eq!(clipboard(&container).await, "from inside");
    let picture = container.sh("printf x | wl-copy --type image/png; sleep 0.2").await;
    assert_eq!(picture.code, 0);
    assert_eq!(clipboard(&container).await, "", "a picture is no text");
    let much = container
        .sh("head -c 1048577 /dev/zero | tr '\\0' y | wl-copy --type text/plain; sleep 0.2")
        .await;
    assert_eq!(much.code, 0);
    let status = container.client.clone().get_clipboard(GetClipboardRequest {}).await.unwrap_err();
    assert_eq!(from_status(&status).reason, Reason::DesktopFailed);
    let long = SetClipboardRequest { text: "x".repeat((1 << 20) + 1) };
    let status = container.client.clone().set_clipboard(long).await.unwrap_err();
    assert_eq!(from_status(&status).reason, Reason::RequestInvalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_comes_back_when_it_is_killed() {
    if !engine() {
        return;
    }
    let container = Container::start(&Plan::desktop());
    container.ready().await;
    for _ in 0..2 {
        let killed = container.sh("pkill -KILL -x sway").await;
        assert_eq!(killed.code, 0);
        // Until it is noticed the status may still be the old one.
        tokio::time::sleep(Duration::from_millis(30)).await;
        container.ready().await;
        let picture = screenshot(&container).await;
        assert_eq!((picture.width, picture.height), (1280, 720));
        copy(&container, "again").await;
        assert_eq!(clipboard(&container).await, "again");
    }
    assert!(container.running(), "the desktop's end is not the sandbox's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_desktop_that_cannot_start_says_why() {
    if !engine() {
        return;
    }
    let container = Container::start(&Plan { desktop: true, ..Plan::base(&["sleep", "infinity"]) });
    container.answers().await;
    assert_eq!(container.sh("echo works").await.out(), "works\n");
    says(&container, "no program \"sway\"").await;
    let root = Container::start(&Plan { user: "", ..Plan::desktop() });
    root.answers().await;
    says(&root, "root").await;
    let shell = root.run(shell("id -u")).await;
    assert_eq!(shell.out(), "0\n");
}
