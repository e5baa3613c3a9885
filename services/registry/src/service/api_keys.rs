//! API keys.

use std::time::Duration;

use wolfpack_proto::registry::v1::{
    ApiKey, CreateApiKeyRequest, CreateApiKeyResponse, IntrospectRequest, IntrospectResponse,
    ListApiKeysRequest, ListApiKeysResponse, RevokeApiKeyRequest, RevokeApiKeyResponse,
};
use wolfpack_rpc::request::Caller;
use wolfpack_types::{ApiKeyId, Fault, Principal, ProjectId, Reason, Role, UserId};

use super::Registry;
use crate::domain::access::{Actor, role_from_proto, role_of_word, role_to_proto};
use crate::domain::time::Micros;
use crate::store::{KeyRow, KeyScope, NewKey, PageRequest, invalid_key};

impl Registry {
    pub(super) async fn create_api_key(
        &self,
        caller: &Caller,
        message: CreateApiKeyRequest,
    ) -> Result<CreateApiKeyResponse, Fault> {
        let actor = Actor::of(&caller.principal)?;
        let project = named(&message.project, ProjectId::from_name)?;
        let user = named(&message.user, UserId::from_name)?;
        let new = NewKey {
            project: project.unwrap_or_else(|| actor.project.clone()),
            user: user.unwrap_or_else(|| actor.user.clone()),
            role: role_from_proto(message.role).unwrap_or(Role::Developer),
            display_name: message.display_name,
            ttl: message.ttl.map(span).transpose()?,
        };
        authorise(&actor, &new)?;
        let (row, key) = self.database.create_api_key(&actor, new, &self.key_environment).await?;
        tracing::info!(by = %actor.user, key = row.id, user = row.user_id, project = row.project, "api key created");
        Ok(CreateApiKeyResponse { api_key: Some(api_key(row)), key: key.reveal() })
    }

    pub(super) async fn list_api_keys(
        &self,
        caller: &Caller,
        message: ListApiKeysRequest,
    ) -> Result<ListApiKeysResponse, Fault> {
        let actor = Actor::of(&caller.principal)?;
        let all = actor.role >= Role::Admin;
        let scope =
            KeyScope { project: actor.project.clone(), user: (!all).then(|| actor.user.clone()) };
        let who = if all { String::new() } else { actor.user.name() };
        let scope_name = format!("ListApiKeys {} {who}", actor.project.name());
        let page = PageRequest::new(message.page_size, &message.page_token, scope_name)?;
        let page = self.database.list_api_keys(&scope, &page).await?;
        let api_keys = page.rows.into_iter().map(api_key).collect();
        Ok(ListApiKeysResponse { api_keys, next_page_token: page.next })
    }

    pub(super) async fn revoke_api_key(
        &self,
        caller: &Caller,
        message: RevokeApiKeyRequest,
    ) -> Result<RevokeApiKeyResponse, Fault> {
        let actor = Actor::of(&caller.principal)?;
        let id = ApiKeyId::from_name(&message.name)?;
        self.database.revoke_api_key(&actor, id.clone()).await?;
        tracing::info!(by = %actor.user, key = %id, "api key revoked");
        self.revocations_seen().await?;
        Ok(RevokeApiKeyResponse {})
    }

    pub(super) async fn introspect(
        &self,
        _: &Caller,
        message: IntrospectRequest,
    ) -> Result<IntrospectResponse, Fault> {
        let known = self.authority.known_key(&message.key).await?;
        let Principal::User { user, key, project, role, platform_admin, .. } = known.principal
        else {
            return Err(invalid_key());
        };
        Ok(IntrospectResponse {
            api_key: key.name(),
            user: user.name(),
            project: project.name(),
            role: role_to_proto(role).into(),
            platform_admin,
            expire_time: known.expire_time.map(Micros::to_proto),
        })
    }
}

/// Users make keys for themselves, of at most what the key they use may do;
/// admins make keys for others.
fn authorise(actor: &Actor, new: &NewKey) -> Result<(), Fault> {
    if new.user != actor.user {
        return actor.manages(&new.project);
    }
    actor.acts_in(&new.project)?;
    if new.role > actor.role {
        return Err(Fault::new(
            Reason::RoleTooLow,
            "a key cannot make one that may do more than itself; ask for a lower role",
        ));
    }
    Ok(())
}

fn named<T, E: Into<Fault>>(
    name: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<T>, Fault> {
    if name.is_empty() { Ok(None) } else { parse(name).map(Some).map_err(Into::into) }
}

/// A span that a client sent.
pub(super) fn span(duration: prost_types::Duration) -> Result<Duration, Fault> {
    Duration::try_from(duration).map_err(|error| {
        Fault::new(Reason::RequestInvalid, "the ttl is not a span of time").caused_by(error)
    })
}

fn api_key(row: KeyRow) -> ApiKey {
    ApiKey {
        name: format!("{}/{}", ApiKeyId::COLLECTION, row.id),
        user: format!("{}/{}", UserId::COLLECTION, row.user_id),
        project: format!("{}/{}", ProjectId::COLLECTION, row.project),
        role: role_to_proto(role_of_word(&row.role)).into(),
        display_name: row.display_name,
        create_time: Some(Micros(row.create_time).to_proto()),
        expire_time: row.expire_time.map(|time| Micros(time).to_proto()),
        revoke_time: row.revoke_time.map(|time| Micros(time).to_proto()),
    }
}
