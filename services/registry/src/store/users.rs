//! Users, projects and who is a member of what.

use sea_orm::{
    ActiveModelTrait as _, ActiveValue::Set, ColumnTrait as _, ConnectionTrait, EntityTrait as _,
    ModelTrait as _, PaginatorTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};
use wolfpack_store::idempotency::{self, Claim, IdempotencyError};
use wolfpack_types::{ApiKeyId, Fault, ProjectId, Role, UserId};

use super::api_keys::working_keys;
use super::entity::{member, project, user};
use super::revocations::{Revoked, insert_revocation, told_role};
use super::{Boxed, Database, Error, Page, PageRequest, Result, Transaction};
use crate::domain::access::{
    Actor, key_role, project_not_found, role_of_word, role_word, user_not_found,
};
use crate::domain::api_key::ApiKeySecret;
use crate::domain::time::Micros;

/// What makes a retry of a creation safe.
#[derive(Clone)]
pub(crate) struct Idempotency {
    /// The caller and the method.
    pub(crate) scope: String,
    /// The caller's request id.
    pub(crate) request_id: String,
    /// Hash of the request's body.
    pub(crate) body: [u8; 32],
}

/// Which projects to list.
#[derive(Clone)]
pub(crate) enum ProjectScope {
    /// All of them.
    All,
    /// Those a user is a member of.
    MemberOf(UserId),
}

/// The first user of a new installation.
pub(crate) struct First {
    pub(crate) user: UserId,
    pub(crate) project: ProjectId,
}

impl Database {
    pub(crate) async fn create_user(
        &self,
        name: String,
        platform_admin: bool,
        once: Idempotency,
    ) -> Result<user::Model> {
        self.tx((name, once), move |t, (display_name, once)| {
            Box::pin(async move {
                let id = UserId::new();
                let known = claim(&t, &once, &id.name()).await?;
                if let Some(known) = known {
                    let id = UserId::from_name(&known).map_err(Fault::from)?;
                    return find_user(t.tx, &id).await;
                }
                insert_user(&t, &id, display_name, platform_admin).await
            })
        })
        .await
    }

    /// Makes a project whose admin is its maker.
    pub(crate) async fn create_project(
        &self,
        name: String,
        maker: UserId,
        once: Idempotency,
    ) -> Result<project::Model> {
        self.tx((name, maker, once), |t, (display_name, maker, once)| {
            Box::pin(async move {
                let id = ProjectId::new();
                let known = claim(&t, &once, &id.name()).await?;
                if let Some(known) = known {
                    let id = ProjectId::from_name(&known).map_err(Fault::from)?;
                    return find_project(t.tx, &id).await;
                }
                let made = insert_project(&t, &id, display_name).await?;
                set_member(t.tx, &id, &maker, Role::Admin).await?;
                Ok(made)
            })
        })
        .await
    }

    pub(crate) async fn list_projects(
        &self,
        scope: &ProjectScope,
        request: &PageRequest,
    ) -> Result<Page<project::Model>> {
        let mut query = project::Entity::find().order_by_asc(project::Column::Id);
        if let ProjectScope::MemberOf(user) = scope {
            let mine = member::Entity::find()
                .select_only()
                .column(member::Column::Project)
                .filter(member::Column::UserId.eq(user.as_str()));
            query = query
                .filter(project::Column::Id.in_subquery(sea_orm::QueryTrait::into_query(mine)));
        }
        if let Some(after) = &request.after {
            query = query.filter(project::Column::Id.gt(after.as_str()));
        }
        let rows = query.limit(request.limit()).all(self.conn()).await?;
        Ok(request.page(rows, |row| &row.id))
    }

    /// Gives a role, or takes the membership away with all its keys; the names
    /// of the keys that ended or may do more or less than before. Whether `by` still
    /// manages the project is asked again: who has just been made less must not
    /// undo it.
    pub(crate) async fn set_member(
        &self,
        by: &Actor,
        project: ProjectId,
        user: UserId,
        role: Option<Role>,
    ) -> Result<Vec<String>> {
        self.tx((by.clone(), project, user), move |t, (by, project, user)| {
            Box::pin(async move {
                find_project(t.tx, &project).await?;
                actor_now(&t, by).await?.manages(&project)?;
                find_user(t.tx, &user).await?;
                let Some(role) = role else { return remove_member(&t, &project, &user).await };
                let before = member_role(t.tx, project.as_str(), user.as_str()).await?;
                set_member(t.tx, &project, &user, role).await?;
                change_keys(&t, &project, &user, (before, role)).await
            })
        })
        .await
    }

    /// Whether there is any user.
    pub(crate) async fn has_users(&self) -> Result<bool> {
        Ok(user::Entity::find().one(self.conn()).await?.is_some())
    }

    /// Makes the first user, project and key when there is no user at all.
    pub(crate) async fn create_first(&self, key: &ApiKeySecret) -> Result<Option<First>> {
        let arguments = (key.id.clone(), key.hash(&self.pepper).to_vec());
        self.tx(arguments, |t, (key, hash)| {
            Box::pin(async move {
                if user::Entity::find().count(t.tx).await? > 0 {
                    return Ok(None);
                }
                let (user, project) = (UserId::new(), ProjectId::new());
                insert_user(&t, &user, "admin".to_owned(), true).await?;
                insert_project(&t, &project, "default".to_owned()).await?;
                set_member(t.tx, &project, &user, Role::Admin).await?;
                let row = super::NewKey {
                    user: user.clone(),
                    project: project.clone(),
                    role: Role::Admin,
                    display_name: "bootstrap".to_owned(),
                    ttl: None,
                };
                super::api_keys::insert(&t, &row, &key, hash).await?;
                Ok(Some(First { user, project }))
            })
        })
        .await
    }
}

pub(super) async fn find_user(conn: &impl ConnectionTrait, id: &UserId) -> Result<user::Model> {
    let row = user::Entity::find_by_id(id.as_str()).one(conn).await?;
    row.ok_or_else(|| user_not_found(id).into())
}

pub(super) async fn find_project(
    conn: &impl ConnectionTrait,
    id: &ProjectId,
) -> Result<project::Model> {
    let row = project::Entity::find_by_id(id.as_str()).one(conn).await?;
    row.ok_or_else(|| project_not_found(id).into())
}

pub(super) async fn member_role(
    conn: &impl ConnectionTrait,
    project: &str,
    user: &str,
) -> Result<Option<Role>> {
    let key = (project.to_owned(), user.to_owned());
    let row = member::Entity::find_by_id(key).one(conn).await?;
    Ok(row.map(|row| role_of_word(&row.role)))
}

/// The resource that the same request made before, if it did.
async fn claim(t: &Transaction<'_>, once: &Idempotency, resource: &str) -> Result<Option<String>> {
    let claim = idempotency::claim(t.tx, &once.scope, &once.request_id, once.body, resource).await;
    match claim {
        Ok(Claim::New) => Ok(None),
        Ok(Claim::Replay(resource)) => Ok(Some(resource)),
        Err(IdempotencyError::Store(error)) => Err(error.into()),
        Err(reused @ IdempotencyError::Reused) => Err(Fault::from(reused).into()),
    }
}

async fn insert_user(
    t: &Transaction<'_>,
    id: &UserId,
    display_name: String,
    platform_admin: bool,
) -> Result<user::Model> {
    let row = user::ActiveModel {
        id: Set(id.as_str().to_owned()),
        display_name: Set(display_name),
        platform_admin: Set(platform_admin),
        create_time: Set(t.now().await?.0),
    };
    Ok(row.insert(t.tx).await?)
}

async fn insert_project(
    t: &Transaction<'_>,
    id: &ProjectId,
    display_name: String,
) -> Result<project::Model> {
    let row = project::ActiveModel {
        id: Set(id.as_str().to_owned()),
        display_name: Set(display_name),
        create_time: Set(t.now().await?.0),
    };
    Ok(row.insert(t.tx).await?)
}

async fn set_member(
    conn: &impl ConnectionTrait,
    project: &ProjectId,
    user: &UserId,
    role: Role,
) -> Result<()> {
    let row = member::ActiveModel {
        project: Set(project.as_str().to_owned()),
        user_id: Set(user.as_str().to_owned()),
        role: Set(role_word(role).to_owned()),
    };
    let known = member_role(conn, project.as_str(), user.as_str()).await?;
    if known.is_some() {
        row.update(conn).await?;
    } else {
        row.insert(conn).await?;
    }
    Ok(())
}

/// The actor with what its user may do as this transaction sees it.
async fn actor_now(t: &Transaction<'_>, by: Actor) -> Result<Actor> {
    let user = find_user(t.tx, &by.user).await?;
    let member = member_role(t.tx, by.project.as_str(), by.user.as_str()).await?;
    let role = key_role(user.platform_admin, member, by.role)
        .ok_or_else(|| project_not_found(&by.project))?;
    Ok(Actor { role, platform_admin: by.platform_admin && user.platform_admin, ..by })
}

/// Says of each key of a member what it may do now, where that is another thing than
/// before; the names of these keys.
fn change_keys<'a>(
    t: &'a Transaction<'_>,
    project: &'a ProjectId,
    user: &'a UserId,
    (before, after): (Option<Role>, Role),
) -> Boxed<'a, Vec<String>> {
    Box::pin(async move {
        let platform_admin = find_user(t.tx, user).await?.platform_admin;
        let now: Micros = t.now().await?;
        let mut changed = Vec::new();
        for key in working_keys(project, user, now).all(t.tx).await? {
            let limit = role_of_word(&key.role);
            let role = key_role(platform_admin, Some(after), limit);
            let id = ApiKeyId::parse(&key.id).map_err(Fault::from)?;
            // What was told last may be another thing: a replica of a version before
            // this changes roles and tells nobody.
            let told = told_role(t, &id).await?;
            if role == key_role(platform_admin, before, limit) && (told.is_none() || told == role) {
                continue;
            }
            changed.push(id.name());
            let role = Revoked::Role(id, role.unwrap_or(Role::Viewer));
            insert_revocation(t, &role, now).await?;
        }
        Ok::<_, Error>(changed)
    })
}

fn remove_member<'a>(
    t: &'a Transaction<'_>,
    project: &'a ProjectId,
    user: &'a UserId,
) -> Boxed<'a, Vec<String>> {
    Box::pin(async move {
        let key = (project.as_str().to_owned(), user.as_str().to_owned());
        if let Some(row) = member::Entity::find_by_id(key).one(t.tx).await? {
            row.delete(t.tx).await?;
        }
        let now: Micros = t.now().await?;
        let keys = working_keys(project, user, now).all(t.tx).await?;
        let mut ended = Vec::with_capacity(keys.len());
        for key in keys {
            ended.push(super::api_keys::revoke(t, key, now).await?);
        }
        Ok::<_, Error>(ended)
    })
}
