//! `wolfpack sandbox screenshot`.

use std::io::Write as _;
use std::path::Path;

use wolfpack_proto::sandbox::v1 as pb;

use super::via;
use crate::args::sandbox::ScreenshotArgs;
use crate::command::resolve;
use crate::command::retry::retry;
use crate::connect::Api;
use crate::failure::Failure;
use crate::output;

pub(super) async fn run(api: &Api, arguments: &ScreenshotArgs) -> Result<(), Failure> {
    let (file, json) = arguments.target().map_err(Failure::Usage)?;
    let request =
        pb::GetScreenshotRequest { sandbox: resolve::sandbox(api, &arguments.sandbox).await? };
    let shot =
        retry(async || Ok(api.desktop().get_screenshot(request.clone()).await?.into_inner()))
            .await?;
    if file == Path::new("-") {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&shot.image)?;
        stdout.flush()?;
        return Ok(());
    }
    std::fs::write(&file, &shot.image).map_err(|error| Failure::file(&file, &error))?;
    let via = via(shot.via());
    if json {
        return output::print_json(&serde_json::json!({
            "file": file,
            "width": shot.width,
            "height": shot.height,
            "mediaType": shot.media_type,
            "via": via,
        }));
    }
    output::line(&format!(
        "{}: {}x{}, through the tunnel of the {via}",
        file.display(),
        shot.width,
        shot.height
    ))
}
