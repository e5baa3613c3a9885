//! `wolfpack image …`.

mod push;
mod spool;
mod upload;

use serde_json::json;
use wolfpack_proto::registry::v1 as registry;
use wolfpack_proto::sandbox::v1 as pb;

use super::resolve;
use super::retry::retry;
use crate::args::image::{ImageCommand, ImageListArgs, ImageRemoveArgs};
use crate::connect::Api;
use crate::failure::Failure;
use crate::output;

const IMAGE: &str = "wolfpack.sandbox.v1.Image";
/// As much of an id as Docker itself shows.
const SHORT_ID: usize = 12;

pub(super) async fn run(api: &Api, command: ImageCommand) -> Result<(), Failure> {
    match command {
        ImageCommand::List(arguments) => list(api, &arguments).await,
        ImageCommand::Push(arguments) => push::run(api, arguments).await,
        ImageCommand::Remove(arguments) => remove(api, &arguments).await,
    }
}

/// The wolf that was named, or the only one there is.
async fn wolf(api: &Api, given: Option<&str>) -> Result<registry::Wolf, Failure> {
    if let Some(given) = given {
        return resolve::wolf(api, given).await;
    }
    let mut wolves = resolve::wolves(api).await?;
    match (wolves.pop(), wolves.len()) {
        (Some(wolf), 0) => Ok(wolf),
        (Some(_), more) => Err(Failure::usage(format!(
            "there are {} wolves; give one with --wolf (`wolfpack wolf list` shows them)",
            more + 1
        ))),
        (None, _) => {
            Err(Failure::usage("there is no wolf; `wolfpack join-token create` lets one join"))
        }
    }
}

async fn list(api: &Api, arguments: &ImageListArgs) -> Result<(), Failure> {
    let wolf = wolf(api, arguments.wolf.as_deref()).await?.name;
    let request = pb::ListImagesRequest { wolf };
    let answer =
        retry(async || Ok(api.images().list_images(request.clone()).await?.into_inner())).await?;
    if arguments.output.is_json() {
        let images = answer
            .images
            .iter()
            .map(|image| output::json(IMAGE, image))
            .collect::<Result<Vec<_>, _>>()?;
        return output::print_json(&json!({ "images": images }));
    }
    output::print_table(
        ["REFERENCES", "ID", "SIZE", "AGE", "LAST USE", "CONTAINERS"],
        answer.images.iter().map(row),
    )
}

fn row(image: &pb::Image) -> [String; 6] {
    [
        image.references.join(", "),
        short(&image.id),
        output::amount(image.size_bytes),
        output::age(image.create_time.as_ref()),
        output::age(image.last_use_time.as_ref()),
        image.containers.to_string(),
    ]
}

fn short(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(SHORT_ID).collect()
}

/// Removes each; a failure of one does not spare the others, and the first is
/// told at the end.
async fn remove(api: &Api, arguments: &ImageRemoveArgs) -> Result<(), Failure> {
    let wolf = wolf(api, arguments.wolf.as_deref()).await?.name;
    let mut first = None;
    for reference in &arguments.image {
        let request = pb::RemoveImageRequest { wolf: wolf.clone(), reference: reference.clone() };
        // Idempotent by the contract.
        let removed = retry(async || Ok(api.images().remove_image(request.clone()).await?)).await;
        match (removed, &first) {
            (Ok(_), _) if arguments.output.is_json() => {
                output::line(&json!({ "wolf": wolf, "removed": reference }).to_string())?;
            }
            (Ok(_), _) => output::line(&format!("{reference} is removed from {wolf}"))?,
            (Err(failure), None) => first = Some(failure),
            (Err(failure), Some(_)) => drop(failure.report(arguments.output.is_json())),
        }
    }
    first.map_or(Ok(()), Err)
}
