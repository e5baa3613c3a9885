//! Programs and logs.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use tonic::{Status, Streaming};
use wolfpack_proto::sandbox::v1::*;
use wolfpack_types::Reason;

use crate::harness::*;
use crate::on_each_engine;
use crate::world::World;

fn start(sandbox: &str, argv: &[&str]) -> ExecRequest {
    let exec = ExecStart {
        argv: argv.iter().map(|it| (*it).to_owned()).collect(),
        ..ExecStart::default()
    };
    let start = SandboxExecStart { sandbox: sandbox.to_owned(), exec: Some(exec) };
    ExecRequest { frame: Some(exec_request::Frame::Start(start)) }
}

fn stdin(data: Vec<u8>) -> ExecRequest {
    let input = ExecInput { input: Some(exec_input::Input::Stdin(data.into())) };
    ExecRequest { frame: Some(exec_request::Frame::Input(input)) }
}

#[derive(Debug, Default)]
struct Ran {
    via: Option<TunnelPath>,
    stdout: Vec<u8>,
    code: Option<i32>,
}

async fn collect(mut output: Streaming<ExecResponse>) -> Result<Ran, Status> {
    let mut ran = Ran::default();
    while let Some(message) = output.message().await? {
        match message.frame.unwrap() {
            exec_response::Frame::Started(started) => ran.via = Some(started.via()),
            exec_response::Frame::Output(output) => match output.output.unwrap() {
                exec_output::Output::Stdout(chunk) => {
                    assert_eq!(chunk.offset, ran.stdout.len() as u64);
                    ran.stdout.extend_from_slice(&chunk.data);
                }
                exec_output::Output::Stderr(_) => {}
                exec_output::Output::Exit(exit) => ran.code = Some(exit.code),
            },
        }
    }
    Ok(ran)
}

async fn run(client: &mut Client, frames: Vec<ExecRequest>) -> Result<Ran, Status> {
    let output = client.io.exec(stream::iter(frames)).await?.into_inner();
    tokio::time::timeout(SOON, collect(output)).await.expect("the program must end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_goes_in_to_its_end_and_output_comes_out_with_the_code() {
    on_each_engine(1, |_, manager| async move {
        let mut owner = manager.owner();
        let name = owner.running("").await.name;
        let data: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut frames = vec![start(&name, &["cat"])];
        frames.extend(data.chunks(32 * 1024).map(|piece| stdin(piece.to_vec())));
        // No close_stdin: the end of the stream is the end of the input.
        let ran = run(&mut owner, frames).await.unwrap();
        assert_eq!((ran.code, ran.via), (Some(0), Some(TunnelPath::Sandbox)));
        assert!(ran.stdout == data, "{} of {} bytes", ran.stdout.len(), data.len());

        let ran = run(&mut owner, vec![start(&name, &["exit", "42"])]).await.unwrap();
        assert_eq!(ran.code, Some(42));
        // The largest piece of input that the API allows.
        let ran =
            run(&mut owner, vec![start(&name, &["cat"]), stdin(vec![7; 4 << 20])]).await.unwrap();
        assert_eq!(ran.stdout.len(), 4 << 20);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_a_start_is_refused() {
    on_each_engine(1, |_, manager| async move {
        let mut owner = manager.owner();
        let name = owner.running("").await.name;
        let refused = run(&mut owner, vec![stdin(vec![1])]).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::FirstMessageMissing);
        let refused = run(&mut owner, vec![]).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::FirstMessageMissing);
        // The rules of the message inside count, too.
        let refused = run(&mut owner, vec![start(&name, &[])]).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::RequestInvalid);
        let refused = run(&mut owner, vec![start("wolves/a", &["cat"])]).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::RequestInvalid);
        let twice = vec![start(&name, &["cat"]), start(&name, &["cat"])];
        let refused = run(&mut owner, twice).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::RequestInvalid);
        let signal = ExecInput { input: Some(exec_input::Input::Signal(Signal { number: 99 })) };
        let signal = ExecRequest { frame: Some(exec_request::Frame::Input(signal)) };
        let refused = run(&mut owner, vec![start(&name, &["cat"]), signal]).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::RequestInvalid);
        // What the agent says comes through.
        let refused = run(&mut owner, vec![start(&name, &["nonsense"])]).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::ExecFailed);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_goes_away_ends_the_program() {
    on_each_engine(1, |world, manager| async move {
        let name = manager.owner().running("").await.name;
        for argv in [&["sleep"][..], &["cat"], &["yes", "999999999"]] {
            let before = *world.inner.cancelled_execs.borrow();
            // A client in a runtime of its own, so that it can go without a word:
            // its input has not ended, and must not seem to have.
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let mut client = {
                let _inside = runtime.enter();
                manager.owner()
            };
            let first = start(&name, argv);
            let started = runtime.spawn(async move {
                let frames = stream::iter([first]).chain(stream::pending());
                let mut output = client.io.exec(frames).await.unwrap().into_inner();
                assert!(output.message().await.unwrap().is_some());
                output
            });
            let output = started.await.unwrap();
            runtime.shutdown_background();
            drop(output);
            let mut cancelled = world.inner.cancelled_execs.subscribe();
            tokio::time::timeout(SOON, cancelled.wait_for(|count| *count > before))
                .await
                .unwrap_or_else(|_| panic!("{argv:?} goes on"))
                .unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_is_not_the_end_of_the_input() {
    on_each_engine(1, |world, manager| async move {
        let name = manager.owner().running("").await.name;
        let before = *world.inner.cancelled_execs.borrow();
        // As other gRPC clients do it: the stream is reset with CANCEL while both
        // sides are open.
        let socket = tokio::net::TcpStream::connect(manager.address).await.unwrap();
        let (client, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::post(format!(
            "http://{}/wolfpack.sandbox.v1.SandboxIoService/Exec",
            manager.address
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", "Bearer wp_a_developer")
        .body(())
        .unwrap();
        let (answer, mut input) =
            client.ready().await.unwrap().send_request(request, false).unwrap();
        let message = prost::Message::encode_to_vec(&start(&name, &["cat"]));
        let mut frame = vec![0];
        frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(&message);
        input.send_data(frame.into(), false).unwrap();
        let mut output = answer.await.unwrap().into_body();
        assert!(output.data().await.unwrap().unwrap().len() > 5);
        input.send_reset(h2::Reason::CANCEL);
        let mut cancelled = world.inner.cancelled_execs.subscribe();
        tokio::time::timeout(SOON, cancelled.wait_for(|count| *count > before))
            .await
            .expect("cat must not believe that its input ended")
            .unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_stops_the_program_and_nothing_is_buffered() {
    on_each_engine(1, |world, manager| async move {
        let mut owner = manager.owner();
        let name = owner.running("").await.name;
        let total = 64 << 20;
        let frames = stream::iter([start(&name, &["yes", &total.to_string()])]);
        let mut output = owner.io.exec(frames).await.unwrap().into_inner();
        output.message().await.unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
        let written = world.count("yes");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(world.count("yes"), written, "the program must stand still");
        assert!(written < total / 2, "{written} bytes lie somewhere in between");
        // Others are not held up, and reading on brings the rest.
        assert_eq!(
            run(&mut owner, vec![start(&name, &["exit", "0"])]).await.unwrap().code,
            Some(0)
        );
        let ran = collect_rest(output).await;
        assert_eq!(ran, total);
    })
    .await;
}

async fn collect_rest(mut output: Streaming<ExecResponse>) -> usize {
    let mut bytes = 0;
    while let Some(message) = output.message().await.unwrap() {
        if let Some(exec_response::Frame::Output(ExecOutput {
            output: Some(exec_output::Output::Stdout(chunk)),
        })) = message.frame
        {
            bytes += chunk.data.len();
        }
    }
    bytes
}

async fn logs(client: &mut Client, name: &str, tail_lines: u32) -> Result<String, Status> {
    let request = StreamLogsRequest { sandbox: name.to_owned(), follow: false, tail_lines };
    let mut stream = client.io.stream_logs(request).await?.into_inner();
    let mut text = Vec::new();
    while let Some(piece) = stream.message().await? {
        text.extend_from_slice(&piece.data);
    }
    Ok(String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_come_from_the_wolf_and_after_the_end_from_what_was_kept() {
    on_each_engine(1, |world: World, manager| async move {
        let mut owner = manager.owner();
        let name = owner.running("").await.name;
        assert!(logs(&mut owner, &name, 0).await.unwrap().starts_with("hello from"));
        world.end_container(&name, 1, false);
        owner.until(&name, SandboxState::Failed).await;
        nothing_left(&world).await;
        assert_eq!(logs(&mut owner, &name, 1).await.unwrap(), "last words\n");
        owner.end(&name).await;
        assert!(logs(&mut owner, &name, 0).await.unwrap().starts_with("hello from"));

        // A healthy one that was deleted had last words, too.
        let name = owner.running("").await.name;
        owner.end(&name).await;
        assert_eq!(logs(&mut owner, &name, 1).await.unwrap(), "last words\n");
        assert!(owner.get(&name).await.unwrap().status.unwrap().last_logs.is_empty());

        world.with(|state| state.create_faults.push_back(crate::world::CreateFault::HangInPull));
        let pulling = owner.create("").await.name;
        let refused = logs(&mut owner, &pulling, 0).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::SandboxNotRunning);
    })
    .await;
}
