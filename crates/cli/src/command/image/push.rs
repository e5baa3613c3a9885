//! `wolfpack image push`.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Instant;

use serde_json::json;
use wolfpack_proto::registry::v1 as registry;
use wolfpack_proto::sandbox::v1 as pb;

use super::{IMAGE, spool, upload};
use crate::args::image::ImagePushArgs;
use crate::command::resolve;
use crate::connect::Api;
use crate::failure::Failure;
use crate::output;

/// To each wolf in turn, as they share the way out of this machine. A failure
/// of one does not spare the others, and the first is told at the end.
pub(super) async fn run(api: &Api, arguments: ImagePushArgs) -> Result<(), Failure> {
    let wolves = wolves(api, &arguments).await?;
    let given = Path::new(&arguments.image);
    let archive = match (spool::is_file(given), arguments.image.to_str()) {
        (true, _) => spool::of_file(given.to_owned()).await?,
        (false, Some(image)) => spool::of_engine(image).await?,
        (false, None) => return Err(Failure::usage("the name of the image is no text")),
    };
    let json = arguments.output.is_json();
    let mut first = None;
    for wolf in wolves {
        let bar = spool::bar("pushing", archive.size);
        let began = Instant::now();
        let pushed = upload::run(api, &wolf.name, &archive, &bar).await;
        bar.finish_and_clear();
        match (pushed, &first) {
            (Ok(images), _) => said(&wolf, &images, archive.size, began, json)?,
            (Err(failure), None) => {
                if arguments.all || arguments.wolf.len() > 1 {
                    eprintln!("{}: not pushed", wolf.name);
                }
                first = Some(failure);
            }
            (Err(failure), Some(_)) => {
                eprintln!("{}: not pushed", wolf.name);
                let _ = failure.report(json);
            }
        }
    }
    first.map_or(Ok(()), Err)
}

async fn wolves(api: &Api, arguments: &ImagePushArgs) -> Result<Vec<registry::Wolf>, Failure> {
    if arguments.all {
        let mut wolves = resolve::wolves(api).await?;
        wolves.retain(|wolf| wolf.state() == registry::WolfState::Online);
        return match wolves.is_empty() {
            true => Err(Failure::usage("no wolf is online; `wolfpack wolf list` shows them")),
            false => Ok(wolves),
        };
    }
    if arguments.wolf.is_empty() {
        return Ok(vec![super::wolf(api, None).await?]);
    }
    let mut wolves = Vec::new();
    for given in &arguments.wolf {
        wolves.push(resolve::wolf(api, given).await?);
    }
    Ok(wolves)
}

fn said(
    wolf: &registry::Wolf,
    images: &[pb::Image],
    size: u64,
    began: Instant,
    json: bool,
) -> Result<(), Failure> {
    if json {
        let images =
            images.iter().map(|image| output::json(IMAGE, image)).collect::<Result<Vec<_>, _>>()?;
        return output::line(&json!({ "wolf": wolf.name, "images": images }).to_string());
    }
    for image in images {
        let name = match image.references.is_empty() {
            true => image.id.clone(),
            false => image.references.join(", "),
        };
        output::line(&format!("{name} is on {}", wolf.name))?;
    }
    if std::io::stderr().is_terminal() {
        let seconds = began.elapsed().as_secs_f64();
        eprintln!("{} in {seconds:.1} s", output::amount(size));
    }
    Ok(())
}
