//! The sandbox's own tunnel first, its wolf's second.

use std::time::Duration;

use tokio::time::Instant;
use wolfpack_proto::sandbox::v1::*;
use wolfpack_store::testing::TestDatabase;
use wolfpack_types::Reason;

use crate::harness::*;
use crate::on_each_engine;
use crate::world::World;

async fn screenshot(
    client: &mut Client,
    name: &str,
) -> Result<GetScreenshotResponse, tonic::Status> {
    let request = GetScreenshotRequest { sandbox: name.to_owned() };
    Ok(client.desktop.get_screenshot(request).await?.into_inner())
}

/// The value of a counter's line with these labels.
fn metric(text: &str, labels: [&str; 2]) -> f64 {
    text.lines()
        .filter(|line| line.starts_with("wolfpack_sandbox_reach_total"))
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// How often the sandboxes' own tunnels were tried by calls.
async fn own_tries(manager: &Manager) -> f64 {
    metric(&manager.scrape().await, ["via=\"sandbox\"", "result="])
}

/// Takes a screenshot; answers the way it came, and whether the sandbox's own
/// tunnel was tried for it.
async fn way(manager: &Manager, client: &mut Client, name: &str) -> (TunnelPath, bool) {
    let before = own_tries(manager).await;
    let via = screenshot(client, name).await.unwrap().via();
    (via, own_tries(manager).await > before + 0.5)
}

/// Long enough for two calls on a busy machine.
const BAD_PATH: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_way_is_taken_when_it_should_be_and_said() {
    for database in TestDatabase::all() {
        let world = World::start(1).await;
        let mut config = config(&world, &database.config);
        config.reach.bad_path = BAD_PATH;
        let manager = Manager::start(config).await;
        let mut owner = manager.owner();
        let name = owner.running("").await.name;
        let direct = screenshot(&mut owner, &name).await.unwrap();
        assert_eq!(direct.via(), TunnelPath::Sandbox);
        assert_eq!(&direct.image[..], b"a picture that came through sandbox");
        assert_eq!(
            (direct.width, direct.height, direct.media_type.as_str()),
            (640, 480, "image/png")
        );

        // The own tunnel is attached, but its packets are lost.
        world.with(|state| state.black_holes.insert(name.clone()));
        let begin = Instant::now();
        let around = screenshot(&mut owner, &name).await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        assert_eq!(around.via(), TunnelPath::Wolf);
        assert_eq!(&around.image[..], b"a picture that came through wolf");
        // The bad way is remembered: the next call does not wait for it.
        let again = way(&manager, &mut owner, &name).await;
        assert_eq!(again, (TunnelPath::Wolf, false));

        // It works again, and after a while it is the first way again.
        world.with(|state| state.black_holes.clear());
        let begin = Instant::now();
        while screenshot(&mut owner, &name).await.unwrap().via() != TunnelPath::Sandbox {
            assert!(begin.elapsed() < SOON, "its own tunnel is never tried again");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }

        // Detached: the broker says so, nobody tries it. A call that came before
        // the broker's word finds it bad, which must be forgotten first.
        world.detach(&name);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let begin = Instant::now();
        loop {
            let (via, tried) = way(&manager, &mut owner, &name).await;
            assert_eq!(via, TunnelPath::Wolf);
            if !tried {
                break;
            }
            assert!(begin.elapsed() < SOON, "a tunnel that is detached is tried");
            tokio::time::sleep(BAD_PATH + Duration::from_millis(300)).await;
        }

        let text = manager.scrape().await;
        assert!(metric(&text, ["via=\"sandbox\"", "result=\"answered\""]) >= 2.0, "{text}");
        assert!(metric(&text, ["via=\"sandbox\"", "result=\"overtaken\""]) >= 1.0, "{text}");
        assert!(metric(&text, ["via=\"wolf\"", "result=\"answered\""]) >= 3.0, "{text}");
        database.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exec_goes_around_a_dead_tunnel_and_runs_once() {
    on_each_engine(1, |world, manager| async move {
        let mut owner = manager.owner();
        let name = owner.running("").await.name;
        world.with(|state| state.black_holes.insert(name.clone()));
        let begin = Instant::now();
        let exec = ExecStart { argv: vec!["exit".into(), "5".into()], ..ExecStart::default() };
        let start = SandboxExecStart { sandbox: name.clone(), exec: Some(exec) };
        let first = ExecRequest { frame: Some(exec_request::Frame::Start(start)) };
        let mut output = owner.io.exec(futures::stream::iter([first])).await.unwrap().into_inner();
        let started = output.message().await.unwrap().unwrap().frame.unwrap();
        let exec_response::Frame::Started(started) = started else { panic!("{started:?}") };
        assert_eq!(started.via(), TunnelPath::Wolf);
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_way_it_is_unreachable_and_says_how() {
    on_each_engine(1, |world, manager| async move {
        let mut owner = manager.owner();
        let sandbox = owner.running("").await;
        let wolf = sandbox.status.unwrap().wolf;
        world.with(|state| state.black_holes.extend([sandbox.name.clone(), wolf]));
        let mut request =
            tonic::Request::new(GetScreenshotRequest { sandbox: sandbox.name.clone() });
        request.set_timeout(Duration::from_secs(30));
        let exec = ExecStart { argv: vec!["cat".into()], ..ExecStart::default() };
        let start = SandboxExecStart { sandbox: sandbox.name.clone(), exec: Some(exec) };
        let first = ExecRequest { frame: Some(exec_request::Frame::Start(start)) };
        let refused = owner.io.exec(futures::stream::iter([first])).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::SandboxUnreachable);
        let fault = wolfpack_rpc::from_status(&refused);
        assert!(
            fault.metadata.contains_key("sandbox") && fault.metadata.contains_key("wolf"),
            "{fault:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clipboard_goes_both_ways_and_an_agents_no_is_not_tried_elsewhere() {
    on_each_engine(1, |_, manager| async move {
        let mut owner = manager.owner();
        let name = owner.running("").await.name;
        let set = |text: &str| SetClipboardRequest { sandbox: name.clone(), text: text.to_owned() };
        let answer = owner.desktop.set_clipboard(set("grüße")).await.unwrap().into_inner();
        assert_eq!(answer.via(), TunnelPath::Sandbox);
        let get = GetClipboardRequest { sandbox: name.clone() };
        let answer = owner.desktop.get_clipboard(get).await.unwrap().into_inner();
        assert_eq!((answer.text.as_str(), answer.via()), ("grüße", TunnelPath::Sandbox));
        let refused = owner.desktop.set_clipboard(set("broken")).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::DesktopAbsent);
        let text = manager.scrape().await;
        assert!(metric(&text, ["via=\"wolf\"", "result="]) < 0.5, "{text}");
    })
    .await;
}
