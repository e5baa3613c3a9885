//! `wolfpack sandbox clipboard get|set`.

use std::io::{Read as _, Write as _};

use wolfpack_proto::sandbox::v1 as pb;

use crate::args::sandbox::ClipboardCommand;
use crate::command::resolve;
use crate::command::retry::retry;
use crate::connect::Api;
use crate::failure::Failure;

/// The most the API takes.
const LIMIT: u64 = 1 << 20;

pub(super) async fn run(api: &Api, command: ClipboardCommand) -> Result<(), Failure> {
    match command {
        ClipboardCommand::Get { sandbox } => {
            let request =
                pb::GetClipboardRequest { sandbox: resolve::sandbox(api, &sandbox).await? };
            let answer = retry(async || {
                Ok(api.desktop().get_clipboard(request.clone()).await?.into_inner())
            })
            .await?;
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(answer.text.as_bytes())?;
            stdout.flush()?;
        }
        ClipboardCommand::Set { sandbox, text } => {
            let text = match text {
                Some(text) => text,
                None => read_stdin()?,
            };
            let request =
                pb::SetClipboardRequest { sandbox: resolve::sandbox(api, &sandbox).await?, text };
            retry(async || Ok(api.desktop().set_clipboard(request.clone()).await?)).await?;
        }
    }
    Ok(())
}

fn read_stdin() -> Result<String, Failure> {
    let mut text = Vec::new();
    std::io::stdin().lock().take(LIMIT + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LIMIT {
        return Err(Failure::usage("the text is longer than 1 MiB"));
    }
    String::from_utf8(text).map_err(|_| Failure::usage("the clipboard takes UTF-8 text"))
}
