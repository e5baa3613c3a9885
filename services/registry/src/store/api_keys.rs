//! API keys.

use std::time::Duration;

use sea_orm::{
    ActiveModelTrait as _, ActiveValue::Set, ColumnTrait as _, Condition, EntityTrait as _,
    IntoActiveModel as _, PaginatorTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};
use wolfpack_types::{ApiKeyId, Fault, Principal, ProjectId, Reason, Role, UserId};

use super::entity::{api_key, user};
use super::revocations::{Revoked, insert_revocation};
use super::users::{find_project, find_user, member_role};
use super::{Database, Page, PageRequest, Result, Transaction};
use crate::domain::access::{
    Actor, key_is_platform_admin, key_role, role_of_word, role_word, standing, user_not_found,
};
use crate::domain::api_key::ApiKeySecret;
use crate::domain::time::Micros;

/// The most keys of one user that may work in one project: a change of its role is told
/// of each of them, to watchers that have room for 4,096 events.
const MOST_OF_A_MEMBER: u64 = 1000;

pub(crate) type KeyRow = api_key::Model;

/// A key to be made.
#[derive(Clone)]
pub(crate) struct NewKey {
    pub(crate) user: UserId,
    pub(crate) project: ProjectId,
    pub(crate) role: Role,
    pub(crate) display_name: String,
    /// How long it works; `None` for ever.
    pub(crate) ttl: Option<Duration>,
}

/// Which keys to list.
#[derive(Clone)]
pub(crate) struct KeyScope {
    pub(crate) project: ProjectId,
    /// Only those of this user.
    pub(crate) user: Option<UserId>,
}

/// Who a key is, and until when that may be believed.
#[derive(Clone)]
pub(crate) struct KnownKey {
    pub(crate) principal: Principal,
    pub(crate) expire_time: Option<Micros>,
}

impl Database {
    /// Makes a key for a user that is a member of the project.
    pub(crate) async fn create_api_key(
        &self,
        actor: &Actor,
        new: NewKey,
        environment: &str,
    ) -> Result<(KeyRow, ApiKeySecret)> {
        let for_other = new.user != actor.user;
        let arguments = (new, environment.to_owned(), actor.platform_admin, self.pepper.clone());
        self.tx(arguments, move |t, (new, environment, by_platform_admin, pepper)| {
            Box::pin(async move {
                find_project(t.tx, &new.project).await?;
                let user = find_user(t.tx, &new.user).await?;
                let member = member_role(t.tx, new.project.as_str(), new.user.as_str()).await?;
                let standing = standing(user.platform_admin, member)
                    .ok_or_else(|| user_not_found(&new.user))?;
                // Whoever makes a key sees it: a project's admin must not get
                // hold of the power of a platform admin that way.
                if for_other && user.platform_admin && !by_platform_admin {
                    return Err(user_not_found(&new.user).into());
                }
                if new.role > standing {
                    return Err(role_too_high().into());
                }
                let now = t.now().await?;
                let working = working_keys(&new.project, &new.user, now).count(t.tx).await?;
                if working >= MOST_OF_A_MEMBER {
                    return Err(too_many_keys().into());
                }
                let key = ApiKeySecret::generate(&environment);
                let row = insert(&t, &new, &key.id, key.hash(&pepper).to_vec()).await?;
                Ok((row, key))
            })
        })
        .await
    }

    pub(crate) async fn list_api_keys(
        &self,
        scope: &KeyScope,
        request: &PageRequest,
    ) -> Result<Page<KeyRow>> {
        let mut query = api_key::Entity::find()
            .filter(api_key::Column::Project.eq(scope.project.as_str()))
            .order_by_asc(api_key::Column::Id);
        if let Some(user) = &scope.user {
            query = query.filter(api_key::Column::UserId.eq(user.as_str()));
        }
        if let Some(after) = &request.after {
            query = query.filter(api_key::Column::Id.gt(after.as_str()));
        }
        let rows = query.limit(request.limit()).all(self.conn()).await?;
        Ok(request.page(rows, |row| &row.id))
    }

    /// Ends a key that the actor may manage; revoking again changes nothing.
    pub(crate) async fn revoke_api_key(&self, actor: &Actor, id: ApiKeyId) -> Result<()> {
        self.tx((actor.clone(), id), |t, (actor, id)| {
            Box::pin(async move {
                let key = api_key::Entity::find_by_id(id.as_str()).one(t.tx).await?;
                let key =
                    key.filter(|key| manages_key(&actor, key)).ok_or_else(|| key_not_found(&id))?;
                if key.revoke_time.is_none() {
                    let now = t.now().await?;
                    revoke(&t, key, now).await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Whose key this is; `API_KEY_INVALID` for one that does not work now.
    pub(crate) async fn authenticate(&self, key: &ApiKeySecret) -> Result<KnownKey> {
        let conn = self.conn();
        let row = api_key::Entity::find_by_id(key.id.as_str()).one(conn).await?;
        let row = row.filter(|row| key.matches(&self.pepper, &row.hash)).ok_or_else(invalid)?;
        let expired = match row.expire_time {
            Some(end) => self.now().await? >= Micros(end),
            None => false,
        };
        if row.revoke_time.is_some() || expired {
            return Err(invalid().into());
        }
        let owner = user::Entity::find_by_id(row.user_id.as_str()).one(conn).await?;
        let platform_admin = owner.is_some_and(|owner| owner.platform_admin);
        let member = member_role(conn, &row.project, &row.user_id).await?;
        let limit = role_of_word(&row.role);
        let role = key_role(platform_admin, member, limit).ok_or_else(invalid)?;
        let principal = Principal::User {
            user: UserId::parse(&row.user_id).map_err(Fault::from)?,
            key: key.id.clone(),
            project: ProjectId::parse(&row.project).map_err(Fault::from)?,
            role,
            platform_admin: key_is_platform_admin(platform_admin, limit),
            expires: row.expire_time.map(|end| Micros(end).into()),
        };
        Ok(KnownKey { principal, expire_time: row.expire_time.map(Micros) })
    }
}

/// The keys of a member that work at `now`.
pub(super) fn working_keys(
    project: &ProjectId,
    user: &UserId,
    now: Micros,
) -> sea_orm::Select<api_key::Entity> {
    let expires = Condition::any()
        .add(api_key::Column::ExpireTime.is_null())
        .add(api_key::Column::ExpireTime.gt(now.0));
    api_key::Entity::find()
        .filter(api_key::Column::Project.eq(project.as_str()))
        .filter(api_key::Column::UserId.eq(user.as_str()))
        .filter(api_key::Column::RevokeTime.is_null())
        .filter(expires)
}

/// What every key that does not work is answered.
pub(crate) fn invalid() -> Fault {
    Fault::new(
        Reason::ApiKeyInvalid,
        "the api key is unknown, expired or revoked; make a new one or check how it was copied",
    )
}

fn role_too_high() -> Fault {
    Fault::new(
        Reason::RoleTooLow,
        "a key cannot do more than its user; ask for a lower role, or for a higher one in the project",
    )
}

fn too_many_keys() -> Fault {
    Fault::new(
        Reason::ApiKeysLimited,
        format!(
            "{MOST_OF_A_MEMBER} keys of this user work in this project; revoke some, and make those of jobs with a ttl"
        ),
    )
}

fn key_not_found(id: &ApiKeyId) -> Fault {
    Fault::new(Reason::ApiKeyNotFound, "there is no such api key; list the api keys")
        .about(id.name())
}

/// A user manages its own keys of the project it acts in, an admin all of it.
fn manages_key(actor: &Actor, key: &KeyRow) -> bool {
    let here = actor.project.as_str() == key.project;
    actor.platform_admin
        || here && (actor.role >= Role::Admin || actor.user.as_str() == key.user_id)
}

pub(super) async fn insert(
    t: &Transaction<'_>,
    new: &NewKey,
    id: &ApiKeyId,
    hash: Vec<u8>,
) -> Result<KeyRow> {
    let now = t.now().await?;
    let row = api_key::ActiveModel {
        id: Set(id.as_str().to_owned()),
        user_id: Set(new.user.as_str().to_owned()),
        project: Set(new.project.as_str().to_owned()),
        role: Set(role_word(new.role).to_owned()),
        display_name: Set(new.display_name.clone()),
        hash: Set(hash),
        create_time: Set(now.0),
        expire_time: Set(new.ttl.map(|ttl| now.plus(ttl).0)),
        revoke_time: Set(None),
    };
    Ok(row.insert(t.tx).await?)
}

/// Ends a key and says so to all who listen; its resource name.
pub(super) async fn revoke(t: &Transaction<'_>, key: KeyRow, now: Micros) -> Result<String> {
    let id = ApiKeyId::parse(&key.id).map_err(Fault::from)?;
    let mut row = key.into_active_model();
    row.revoke_time = Set(Some(now.0));
    row.update(t.tx).await?;
    insert_revocation(t, &Revoked::ApiKey(id.clone()), now).await?;
    Ok(id.name())
}
