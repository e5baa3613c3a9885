//! `wolfpack sandbox logs`.

use tokio::io::AsyncWriteExt as _;
use wolfpack_proto::sandbox::v1 as pb;

use crate::args::sandbox::LogsArgs;
use crate::command::resolve;
use crate::connect::Api;
use crate::failure::Failure;

pub(super) async fn run(api: &Api, arguments: &LogsArgs) -> Result<(), Failure> {
    let request = pb::StreamLogsRequest {
        sandbox: resolve::sandbox(api, &arguments.sandbox).await?,
        follow: arguments.follow,
        tail_lines: arguments.tail.unwrap_or_default(),
    };
    let mut pieces = api.io().stream_logs(request).await?.into_inner();
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    while let Some(piece) = pieces.message().await? {
        if piece.stderr {
            stderr.write_all(&piece.data).await?;
            stderr.flush().await?;
        } else {
            stdout.write_all(&piece.data).await?;
            stdout.flush().await?;
        }
    }
    Ok(())
}
