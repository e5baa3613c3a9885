//! The images of sandboxes, taken from the machine's engine into the wolf's,
//! so that the first sandbox need not find a registry.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecResults};
use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::io::AsyncWriteExt as _;
use wolfpack_runtime::BoxError;

use super::engine::HostEngine;
use super::names::Names;

/// What a sandbox gets when its user names no image.
const DEFAULT: [&str; 4] = [
    "wolfpack/sandbox-base:latest",
    "wolfpack/sandbox-desktop:latest",
    "wolfpack/sandbox-docker:latest",
    "wolfpack/sandbox-desktop-docker:latest",
];
/// The wolf's engine may take this long to answer at first.
const READY: Duration = Duration::from_secs(30);
/// Images of a few gigabytes on a slow disk.
const LOAD: Duration = Duration::from_secs(30 * 60);
/// The most of a program's output that is kept.
const OUTPUT: usize = 64 * 1024;

/// Puts the images that this machine's engine holds, and the wolf's does not,
/// into the wolf: the wanted ones, or those of sandboxes.
pub(super) async fn images(
    engine: &HostEngine,
    names: &Names,
    wanted: &[String],
) -> Result<(), BoxError> {
    let defaults: Vec<String> = DEFAULT.map(str::to_owned).into();
    let mut missing = Vec::new();
    let mut bytes = 0;
    for name in if wanted.is_empty() { &defaults } else { wanted } {
        match engine.image(name).await? {
            Some((id, size)) if id_inside(engine, names, name).await?.as_ref() != Some(&id) => {
                missing.push(name.as_str());
                bytes += size;
            }
            Some(_) => {}
            None if wanted.is_empty() => {}
            None => {
                return Err(
                    format!("--seed {name}: this machine's engine has no such image").into()
                );
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    match tokio::time::timeout(LOAD, load(engine, names, &missing, bytes)).await {
        Ok(loaded) => loaded,
        Err(_) => Err("the wolf's engine did not take the images in time".into()),
    }
}

/// The id an image has in the wolf; `None` when it is not there.
async fn id_inside(
    engine: &HostEngine,
    names: &Names,
    image: &str,
) -> Result<Option<String>, BoxError> {
    let began = Instant::now();
    loop {
        let inspect = ["docker", "image", "inspect", "--format", "{{.Id}}", image];
        let (code, output) = exec(engine, names, &inspect).await?;
        if code == 0 {
            return Ok(Some(output.trim().to_owned()));
        }
        if output.contains("No such image") {
            return Ok(None);
        }
        if began.elapsed() > READY {
            return Err(format!("the wolf's engine does not answer: {}", output.trim()).into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn load(
    engine: &HostEngine,
    names: &Names,
    images: &[&str],
    bytes: u64,
) -> Result<(), BoxError> {
    let began = Instant::now();
    let what = images.join(", ");
    let bar = bar(bytes);
    if bar.is_hidden() {
        eprintln!("wolfpack dev: putting into the wolf: {what}");
    } else {
        bar.set_message(what.clone());
    }
    let (id, mut output, mut input) = start(engine, names, &["docker", "load", "--quiet"]).await?;
    // One archive of all: layers that they share are sent once.
    let mut archive = std::pin::pin!(engine.docker.export_images(images));
    let send = async {
        while let Some(chunk) = archive.next().await {
            let chunk = chunk?;
            input.write_all(&chunk).await?;
            bar.inc(chunk.len().try_into().unwrap_or_default());
        }
        input.shutdown().await?;
        Ok::<_, BoxError>(())
    };
    let listen = async {
        let mut words = String::new();
        while let Some(line) = output.next().await {
            keep(&mut words, &line?);
        }
        Ok::<_, BoxError>(words)
    };
    let (sent, words) = tokio::join!(send, listen);
    bar.finish_and_clear();
    let words = words?;
    match exit_code(engine, &id).await? {
        0 => {
            sent?;
            eprintln!(
                "wolfpack dev: the wolf has {what} after {:.1} s",
                began.elapsed().as_secs_f32()
            );
            Ok(())
        }
        code => {
            Err(format!("the wolf's engine did not take {what} ({code}): {}", words.trim()).into())
        }
    }
}

/// Shown on a terminal only. The size is that of the images, which share layers.
fn bar(bytes: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(bytes);
    let template = "putting into the wolf: {msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

type Output = std::pin::Pin<
    Box<dyn futures::Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>,
>;
type Input = std::pin::Pin<Box<dyn tokio::io::AsyncWrite + Send>>;

/// Starts a program in the wolf's container.
async fn start(
    engine: &HostEngine,
    names: &Names,
    argv: &[&str],
) -> Result<(String, Output, Input), BoxError> {
    let options = CreateExecOptions {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(argv.to_vec()),
        ..CreateExecOptions::default()
    };
    let id = engine.docker.create_exec(&names.container, options).await?.id;
    match engine.docker.start_exec(&id, None).await? {
        StartExecResults::Attached { output, input } => Ok((id, output, input)),
        StartExecResults::Detached => {
            Err("the engine started a program without its streams".into())
        }
    }
}

/// Runs a program in the wolf's container to its end.
async fn exec(
    engine: &HostEngine,
    names: &Names,
    argv: &[&str],
) -> Result<(i64, String), BoxError> {
    let (id, mut output, input) = start(engine, names, argv).await?;
    drop(input);
    let mut words = String::new();
    while let Some(line) = output.next().await {
        keep(&mut words, &line?);
    }
    Ok((exit_code(engine, &id).await?, words))
}

fn keep(words: &mut String, line: &LogOutput) {
    if words.len() < OUTPUT {
        words.push_str(&line.to_string());
    }
}

async fn exit_code(engine: &HostEngine, id: &str) -> Result<i64, BoxError> {
    Ok(engine.docker.inspect_exec(id).await?.exit_code.unwrap_or(-1))
}
