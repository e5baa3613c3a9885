//! `wolfpack exposure …`.

use serde_json::json;
use wolfpack_proto::tunnel::v1 as pb;

use super::resolve;
use super::retry::retry;
use crate::args::exposure::{ExposureArgs, ExposureCommand, ExposureCreateArgs};
use crate::connect::Api;
use crate::failure::Failure;
use crate::output;

const EXPOSURE: &str = "wolfpack.tunnel.v1.Exposure";

pub(crate) async fn run(api: &Api, command: ExposureCommand) -> Result<(), Failure> {
    match command {
        ExposureCommand::Create(arguments) => create(api, arguments).await,
        ExposureCommand::List(format) => list(api, format.is_json()).await,
        ExposureCommand::Get(arguments) => get(api, &arguments).await,
        ExposureCommand::Delete(arguments) => delete(api, &arguments).await,
    }
}

async fn create(api: &Api, arguments: ExposureCreateArgs) -> Result<(), Failure> {
    let endpoint = resolve::endpoint(api, &arguments.endpoint).await?.to_string();
    let lifetime = prost_types::Duration::try_from(arguments.lifetime)
        .map_err(|_| Failure::usage("--for is too long; write one such as 90s or 2h"))?;
    let request = pb::CreateExposureRequest {
        endpoint,
        target: arguments.target.to_string(),
        lifetime: Some(lifetime),
        port: arguments.port.unwrap_or_default().into(),
        limits: Some(pb::ExposureLimits {
            max_connections: arguments.max_connections.unwrap_or_default(),
            connections_per_second: arguments.connections_per_second.unwrap_or_default(),
        }),
        request_id: uuid::Uuid::new_v4().to_string(),
    };
    let answer =
        retry(async || Ok(api.exposures().create_exposure(request.clone()).await?.into_inner()))
            .await?;
    let exposure = resolve::present(answer.exposure)?;
    if arguments.output.is_json() {
        return output::print_json(&output::json(EXPOSURE, &exposure)?);
    }
    let pb::Exposure { name, endpoint, target, listen_address, expire_time, .. } = exposure;
    let end = output::instant(expire_time.as_ref());
    output::line(&format!("{listen_address} -> {endpoint} {target} until {end} ({name})"))
}

async fn list(api: &Api, json: bool) -> Result<(), Failure> {
    let exposures = super::pages(async |page_token| {
        let request = pb::ListExposuresRequest { page_token, ..Default::default() };
        let page =
            retry(async || Ok(api.exposures().list_exposures(request.clone()).await?.into_inner()))
                .await?;
        Ok((page.exposures, page.next_page_token))
    })
    .await?;
    if json {
        let exposures = exposures
            .iter()
            .map(|exposure| output::json(EXPOSURE, exposure))
            .collect::<Result<Vec<_>, _>>()?;
        return output::print_json(&json!({ "exposures": exposures }));
    }
    output::print_table(
        ["ID", "ADDRESS", "ENDPOINT", "TARGET", "CONNECTIONS", "FAILED", "LAST FAILURE"],
        exposures.iter().map(row),
    )
}

fn row(exposure: &pb::Exposure) -> [String; 7] {
    let id = exposure.name.strip_prefix("exposures/").unwrap_or(&exposure.name);
    let last = exposure.last_failure.as_ref();
    [
        id.to_owned(),
        exposure.listen_address.clone(),
        exposure.endpoint.clone(),
        exposure.target.clone(),
        exposure.connections.to_string(),
        exposure.failed_connections.to_string(),
        last.map(|last| last.reason.clone()).unwrap_or_default(),
    ]
}

async fn get(api: &Api, arguments: &ExposureArgs) -> Result<(), Failure> {
    let request = pb::GetExposureRequest { name: arguments.exposure.name() };
    let answer =
        retry(async || Ok(api.exposures().get_exposure(request.clone()).await?.into_inner()))
            .await?;
    let exposure = resolve::present(answer.exposure)?;
    if arguments.output.is_json() {
        return output::print_json(&output::json(EXPOSURE, &exposure)?);
    }
    let limits = exposure.limits.unwrap_or_default();
    let last = exposure.last_failure.map(|last| {
        let when = output::instant(last.time.as_ref());
        // The words are not for everybody who may see it.
        let colon = if last.message.is_empty() { "" } else { ": " };
        format!("{}{colon}{}\nat {when}", last.reason, last.message)
    });
    output::print_facts(&[
        ("name", exposure.name),
        ("listens at", exposure.listen_address),
        ("endpoint", exposure.endpoint),
        ("target", exposure.target),
        ("project", exposure.project),
        ("creator", exposure.creator),
        ("created", output::instant(exposure.create_time.as_ref())),
        ("expires", output::instant(exposure.expire_time.as_ref())),
        ("connections", format!("{} of {}", exposure.connections, limits.max_connections)),
        ("rate", format!("{} new in a second at most", limits.connections_per_second)),
        ("accepted", exposure.accepted_connections.to_string()),
        ("failed", exposure.failed_connections.to_string()),
        ("refused", exposure.refused_connections.to_string()),
        ("last failure", last.unwrap_or_default()),
    ])
}

async fn delete(api: &Api, arguments: &ExposureArgs) -> Result<(), Failure> {
    let name = arguments.exposure.name();
    // Sent once: that it is gone would be an error of the second call.
    api.exposures().delete_exposure(pb::DeleteExposureRequest { name: name.clone() }).await?;
    if arguments.output.is_json() {
        return output::print_json(&json!({ "name": name }));
    }
    output::line(&format!("{name} deleted"))
}
