//! `wolfpack project|key|join-token …`.

use std::time::Duration;

use serde_json::json;
use wolfpack_proto::registry::v1 as pb;
use wolfpack_types::{ApiKeyId, Fault};

use super::resolve::present;
use super::retry::retry;
use super::wolf::id;
use crate::args::identity::{JoinTokenCommand, KeyCommand, KeyCreateArgs, ProjectCommand};
use crate::connect::Api;
use crate::failure::Failure;
use crate::output;

const PROJECT: &str = "wolfpack.registry.v1.Project";
const API_KEY: &str = "wolfpack.registry.v1.ApiKey";

pub(crate) async fn project(api: &Api, command: ProjectCommand) -> Result<(), Failure> {
    match command {
        ProjectCommand::List(format) => {
            let projects = super::pages(async |page_token| {
                let request = pb::ListProjectsRequest { page_token, ..Default::default() };
                let page = retry(async || {
                    Ok(api.identity().list_projects(request.clone()).await?.into_inner())
                })
                .await?;
                Ok((page.projects, page.next_page_token))
            })
            .await?;
            if format.is_json() {
                let projects = projects
                    .iter()
                    .map(|project| output::json(PROJECT, project))
                    .collect::<Result<Vec<_>, _>>()?;
                return output::print_json(&json!({ "projects": projects }));
            }
            let row = |project: &pb::Project| {
                [
                    id(&project.name),
                    project.display_name.clone(),
                    output::age(project.create_time.as_ref()),
                ]
            };
            output::print_table(["ID", "NAME", "AGE"], projects.iter().map(row))
        }
        ProjectCommand::Create { display_name, output: format } => {
            let request_id = uuid::Uuid::new_v4().to_string();
            let request = pb::CreateProjectRequest { request_id, display_name };
            let answer = retry(async || {
                Ok(api.identity().create_project(request.clone()).await?.into_inner())
            })
            .await?;
            let project = present(answer.project)?;
            match format.is_json() {
                true => output::print_json(&output::json(PROJECT, &project)?),
                false => output::line(&project.name),
            }
        }
    }
}

pub(crate) async fn key(api: &Api, command: KeyCommand) -> Result<(), Failure> {
    match command {
        KeyCommand::Create(arguments) => create_key(api, arguments).await,
        KeyCommand::List(format) => {
            let keys = super::pages(async |page_token| {
                let request = pb::ListApiKeysRequest { page_token, ..Default::default() };
                let page = retry(async || {
                    Ok(api.identity().list_api_keys(request.clone()).await?.into_inner())
                })
                .await?;
                Ok((page.api_keys, page.next_page_token))
            })
            .await?;
            if format.is_json() {
                let keys = keys
                    .iter()
                    .map(|key| output::json(API_KEY, key))
                    .collect::<Result<Vec<_>, _>>()?;
                return output::print_json(&json!({ "apiKeys": keys }));
            }
            output::print_table(
                ["ID", "NAME", "ROLE", "USER", "PROJECT", "AGE", "ENDS", "REVOKED"],
                keys.iter().map(key_row),
            )
        }
        KeyCommand::Revoke { key, output: format } => {
            let name = match key.contains('/') {
                true => ApiKeyId::from_name(&key),
                false => ApiKeyId::parse(&key),
            };
            let name = name.map_err(Fault::from)?.name();
            let request = pb::RevokeApiKeyRequest { name: name.clone() };
            retry(async || Ok(api.identity().revoke_api_key(request.clone()).await?)).await?;
            match format.is_json() {
                true => output::print_json(&json!({ "name": name })),
                false => output::line(&format!("{name} is revoked")),
            }
        }
    }
}

async fn create_key(api: &Api, arguments: KeyCreateArgs) -> Result<(), Failure> {
    let request = pb::CreateApiKeyRequest {
        user: arguments.user.unwrap_or_default(),
        project: arguments.project.unwrap_or_default(),
        role: pb::Role::from(arguments.role).into(),
        display_name: arguments.name,
        ttl: arguments.ttl.map(duration).transpose()?,
    };
    // Not retried: every call makes a key.
    let answer = api.identity().create_api_key(request).await?.into_inner();
    let made = present(answer.api_key)?;
    if arguments.output.is_json() {
        return output::print_json(
            &json!({ "apiKey": output::json(API_KEY, &made)?, "key": answer.key }),
        );
    }
    output::line(&answer.key)?;
    eprintln!("{} was made; the key above is shown this once", made.name);
    Ok(())
}

fn key_row(key: &pb::ApiKey) -> [String; 8] {
    [
        id(&key.name),
        key.display_name.clone(),
        output::word(key.role().as_str_name(), "ROLE_"),
        id(&key.user),
        id(&key.project),
        output::age(key.create_time.as_ref()),
        output::instant(key.expire_time.as_ref()),
        output::instant(key.revoke_time.as_ref()),
    ]
}

pub(crate) async fn join_token(api: &Api, command: JoinTokenCommand) -> Result<(), Failure> {
    let JoinTokenCommand::Create(arguments) = command;
    let request = pb::CreateJoinTokenRequest {
        project: arguments.project.unwrap_or_default(),
        ttl: Some(duration(arguments.ttl)?),
    };
    // Not retried: every call makes a token.
    let answer = api.identity().create_join_token(request).await?.into_inner();
    if arguments.output.is_json() {
        let shown = output::json("wolfpack.registry.v1.CreateJoinTokenResponse", &answer)?;
        return output::print_json(&shown);
    }
    output::line(&answer.token)?;
    eprintln!(
        "one wolf may join with it until {}; it is shown this once",
        output::instant(answer.expire_time.as_ref())
    );
    Ok(())
}

fn duration(given: Duration) -> Result<prost_types::Duration, Failure> {
    given.try_into().map_err(|_| Failure::usage("the duration is too long"))
}
