//! `wolfpack sandbox containers`.

use wolfpack_proto::sandbox::v1 as pb;

use crate::args::sandbox::ContainersArgs;
use crate::command::resolve;
use crate::command::retry::retry;
use crate::connect::Api;
use crate::failure::Failure;
use crate::output;

/// As much of an id as Docker itself shows.
const SHORT_ID: usize = 12;

pub(super) async fn run(api: &Api, arguments: &ContainersArgs) -> Result<(), Failure> {
    let request =
        pb::ListContainersRequest { sandbox: resolve::sandbox(api, &arguments.sandbox).await? };
    let answer =
        retry(async || Ok(api.containers().list_containers(request.clone()).await?.into_inner()))
            .await?;
    if arguments.output.is_json() {
        return output::print_json(&output::json(
            "wolfpack.sandbox.v1.ListContainersResponse",
            &answer,
        )?);
    }
    output::print_table(
        ["ID", "NAMES", "IMAGE", "STATE", "WHERE", "AGE"],
        answer.containers.iter().map(row),
    )
}

fn row(container: &pb::Container) -> [String; 6] {
    let place = match container.relation() {
        pb::ContainerRelation::Nested => "inside",
        pb::ContainerRelation::Sibling => "beside (sibling)",
        pb::ContainerRelation::Unspecified => "",
    };
    let names: Vec<_> = container.names.iter().map(|name| name.trim_start_matches('/')).collect();
    [
        container.id.chars().take(SHORT_ID).collect(),
        names.join(","),
        container.image.clone(),
        container.state.clone(),
        place.to_owned(),
        output::age(container.create_time.as_ref()),
    ]
}
