//! Users, projects, members.

use prost::Message;
use wolfpack_proto::registry::v1::{
    CreateProjectRequest, CreateProjectResponse, CreateUserRequest, CreateUserResponse,
    ListProjectsRequest, ListProjectsResponse, Project, SetProjectMemberRequest,
    SetProjectMemberResponse, User, WhoAmIRequest, WhoAmIResponse,
};
use wolfpack_rpc::request::Caller;
use wolfpack_types::{Fault, ProjectId, UserId};

use super::Registry;
use crate::domain::access::{Actor, role_from_proto, role_to_proto};
use crate::domain::time::Micros;
use crate::store::{Idempotency, PageRequest, ProjectRow, ProjectScope, UserRow};

impl Registry {
    #[allow(clippy::unused_async, reason = "all rpcs are handed on alike")]
    pub(super) async fn who_am_i(
        &self,
        caller: &Caller,
        _: WhoAmIRequest,
    ) -> Result<WhoAmIResponse, Fault> {
        let actor = Actor::of(&caller.principal)?;
        Ok(WhoAmIResponse {
            user: actor.user.name(),
            project: actor.project.name(),
            role: role_to_proto(actor.role).into(),
            platform_admin: actor.platform_admin,
        })
    }

    pub(super) async fn create_user(
        &self,
        caller: &Caller,
        message: CreateUserRequest,
    ) -> Result<CreateUserResponse, Fault> {
        let actor = Actor::of(&caller.principal)?;
        actor.manages_platform()?;
        let once = once(&actor, "CreateUser", &message.request_id, &message);
        let row =
            self.database.create_user(message.display_name, message.platform_admin, once).await?;
        tracing::info!(by = %actor.user, user = row.id, row.platform_admin, "user created");
        Ok(CreateUserResponse { user: Some(user(row)) })
    }

    pub(super) async fn create_project(
        &self,
        caller: &Caller,
        message: CreateProjectRequest,
    ) -> Result<CreateProjectResponse, Fault> {
        let actor = Actor::of(&caller.principal)?;
        actor.manages_platform()?;
        let once = once(&actor, "CreateProject", &message.request_id, &message);
        let row =
            self.database.create_project(message.display_name, actor.user.clone(), once).await?;
        tracing::info!(by = %actor.user, project = row.id, "project created");
        Ok(CreateProjectResponse { project: Some(project(row)) })
    }

    pub(super) async fn list_projects(
        &self,
        caller: &Caller,
        message: ListProjectsRequest,
    ) -> Result<ListProjectsResponse, Fault> {
        let actor = Actor::of(&caller.principal)?;
        let (scope, who) = if actor.platform_admin {
            (ProjectScope::All, "all".to_owned())
        } else {
            (ProjectScope::MemberOf(actor.user.clone()), actor.user.name())
        };
        let scope_name = format!("ListProjects {who}");
        let page = PageRequest::new(message.page_size, &message.page_token, scope_name)?;
        let page = self.database.list_projects(&scope, &page).await?;
        let projects = page.rows.into_iter().map(project).collect();
        Ok(ListProjectsResponse { projects, next_page_token: page.next })
    }

    pub(super) async fn set_project_member(
        &self,
        caller: &Caller,
        message: SetProjectMemberRequest,
    ) -> Result<SetProjectMemberResponse, Fault> {
        let actor = Actor::of(&caller.principal)?;
        let project = ProjectId::from_name(&message.project)?;
        let user = UserId::from_name(&message.user)?;
        actor.manages(&project)?;
        let role = role_from_proto(message.role);
        let changed = self.database.set_member(&actor, project.clone(), user.clone(), role).await?;
        tracing::info!(by = %actor.user, %project, %user, ?role, keys = changed.len(), "member set");
        self.authority.forget();
        // Of a call that is made again, too: it changes nothing, and may be the one that waits.
        self.revocations_seen().await?;
        Ok(SetProjectMemberResponse {})
    }
}

fn once(actor: &Actor, method: &str, request_id: &str, message: &impl Message) -> Idempotency {
    Idempotency {
        scope: format!("{method} {}", actor.user.name()),
        request_id: request_id.to_owned(),
        body: *blake3::hash(&message.encode_to_vec()).as_bytes(),
    }
}

fn user(row: UserRow) -> User {
    User {
        name: format!("{}/{}", UserId::COLLECTION, row.id),
        display_name: row.display_name,
        platform_admin: row.platform_admin,
        create_time: Some(Micros(row.create_time).to_proto()),
    }
}

fn project(row: ProjectRow) -> Project {
    Project {
        name: format!("{}/{}", ProjectId::COLLECTION, row.id),
        display_name: row.display_name,
        create_time: Some(Micros(row.create_time).to_proto()),
    }
}
