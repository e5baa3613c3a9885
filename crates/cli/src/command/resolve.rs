//! From what a person types to a resource name.

use wolfpack_proto::registry::v1 as registry;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_types::{Endpoint, Fault, Reason, SandboxId, WolfId};

use super::retry::retry;
use crate::args::forward::EndpointArg;
use crate::connect::Api;
use crate::failure::Failure;

/// Ids are uuids in base 32: this long, always.
const ID_LENGTH: usize = 26;

/// The name of a sandbox: given as `sandboxes/{id}`, as an id, or as the
/// display name of a live sandbox of the project; the latter two may have
/// `sandbox/` before them, as where it could be a wolf.
pub(crate) async fn sandbox(api: &Api, given: &str) -> Result<String, Failure> {
    let given = given.strip_prefix("sandbox/").unwrap_or(given);
    if given.contains('/') {
        return Ok(SandboxId::from_name(given).map_err(Fault::from)?.name());
    }
    if given.len() == ID_LENGTH
        && let Ok(id) = SandboxId::parse(given)
    {
        match get(api, &id.name()).await {
            Ok(sandbox) => return Ok(sandbox.name),
            // It may be a display name of that length.
            Err(failure) if failure.is(Reason::SandboxNotFound) => {}
            Err(failure) => return Err(failure),
        }
    }
    let request = pb::ListSandboxesRequest { display_name: given.to_owned(), ..Default::default() };
    let found =
        retry(async || Ok(api.sandboxes().list_sandboxes(request.clone()).await?.into_inner()))
            .await?;
    match found.sandboxes.first() {
        Some(sandbox) => Ok(sandbox.name.clone()),
        None => Err(Fault::new(
            Reason::SandboxNotFound,
            format!("no sandbox has the id or the name {given:?}"),
        )
        .into()),
    }
}

/// Reads a sandbox.
pub(crate) async fn get(api: &Api, name: &str) -> Result<pb::Sandbox, Failure> {
    let request = pb::GetSandboxRequest { name: name.to_owned() };
    let answer =
        retry(async || Ok(api.sandboxes().get_sandbox(request.clone()).await?.into_inner()))
            .await?;
    present(answer.sandbox)
}

/// The wolf given as `wolves/{id}`, as an id, or by its display name; the latter
/// two may have `wolf/` before them.
pub(crate) async fn wolf(api: &Api, given: &str) -> Result<registry::Wolf, Failure> {
    let given = given.strip_prefix("wolf/").unwrap_or(given);
    let name = match given.contains('/') {
        true => Some(WolfId::from_name(given).map_err(Fault::from)?.name()),
        false => WolfId::parse(given).ok().map(|id| id.name()),
    };
    if let Some(name) = name {
        let request = registry::GetWolfRequest { name };
        match retry(async || Ok(api.wolves().get_wolf(request.clone()).await?.into_inner())).await {
            Ok(answer) => return present(answer.wolf),
            Err(failure) if failure.is(Reason::WolfNotFound) && !given.contains('/') => {}
            Err(failure) => return Err(failure),
        }
    }
    let mut named: Vec<_> =
        wolves(api).await?.into_iter().filter(|wolf| wolf.display_name == given).collect();
    match (named.pop(), named.len()) {
        (Some(wolf), 0) => Ok(wolf),
        (Some(_), more) => {
            Err(Failure::usage(format!("{} wolves are called {given:?}; give the id", more + 1)))
        }
        (None, _) => Err(Fault::new(
            Reason::WolfNotFound,
            format!("no wolf has the id or the name {given:?}"),
        )
        .into()),
    }
}

/// The name of a wolf or a sandbox as an endpoint.
pub(crate) async fn endpoint(api: &Api, given: &EndpointArg) -> Result<Endpoint, Failure> {
    let name = match given {
        EndpointArg::Wolf(id) => wolf(api, id).await?.name,
        EndpointArg::Sandbox(id) => sandbox(api, id).await?,
    };
    Ok(Endpoint::parse(&name).map_err(Fault::from)?)
}

/// Every wolf the key may see.
pub(crate) async fn wolves(api: &Api) -> Result<Vec<registry::Wolf>, Failure> {
    super::pages(async |page_token| {
        let request = registry::ListWolvesRequest { page_token, ..Default::default() };
        let page =
            retry(async || Ok(api.wolves().list_wolves(request.clone()).await?.into_inner()))
                .await?;
        Ok((page.wolves, page.next_page_token))
    })
    .await
}

/// What an answer must have.
pub(crate) fn present<T>(field: Option<T>) -> Result<T, Failure> {
    field.ok_or_else(|| {
        Fault::new(Reason::Internal, "the server's answer is empty; is it of the same version?")
            .into()
    })
}
