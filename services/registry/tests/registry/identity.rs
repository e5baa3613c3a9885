//! Users, projects, members, keys.

use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::timeout;
use wolfpack_proto::registry::v1::watch_revocations_response::Event;
use wolfpack_proto::registry::v1::{
    CreateApiKeyRequest, CreateProjectRequest, CreateUserRequest, IntrospectRequest,
    ListApiKeysRequest, ListProjectsRequest, RevokeApiKeyRequest, Role, SetProjectMemberRequest,
    WatchRevocationsRequest, WatchWolvesRequest, WhoAmIRequest,
};
use wolfpack_rpc::{Authority as _, RemoteAuthority};
use wolfpack_types::{Principal, Reason};

use crate::fleet::{Fleet, Identity, Wolves, each, eventually, reason, uuid};

async fn who(fleet: &Fleet, key: &str) -> Result<(String, Role, bool), Reason> {
    let answer = Identity::new(fleet.bearer(key)).who_am_i(WhoAmIRequest {}).await;
    let answer = answer.map_err(|status| reason(&status))?.into_inner();
    let role = answer.role();
    Ok((answer.user, role, answer.platform_admin))
}

/// The revision of all that was revoked or changed.
async fn revocations(fleet: &Fleet) -> i64 {
    let mut identity = Identity::new(fleet.service("scheduler").without_deadline());
    let mut watch =
        identity.watch_revocations(WatchRevocationsRequest {}).await.unwrap().into_inner();
    loop {
        let event = watch.message().await.unwrap().unwrap();
        if let Some(Event::Bookmark(_)) = event.event {
            return event.revision;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creation_is_idempotent_by_request_id() {
    each(|fleet| async move {
        let mut identity = fleet.identity();
        let user = CreateUserRequest {
            request_id: uuid(),
            display_name: "Ada".to_owned(),
            platform_admin: false,
        };
        let one = identity.create_user(user.clone()).await.unwrap().into_inner();
        let two = identity.create_user(user.clone()).await.unwrap().into_inner();
        assert_eq!(one, two);
        let other = CreateUserRequest { display_name: "Eve".to_owned(), ..user };
        let reused = identity.create_user(other).await.unwrap_err();
        assert_eq!(reason(&reused), Reason::RequestIdReused);
        let project = CreateProjectRequest { request_id: uuid(), display_name: "p".to_owned() };
        let one = identity.create_project(project.clone()).await.unwrap().into_inner();
        let two = identity.create_project(project).await.unwrap().into_inner();
        assert_eq!(one, two);
        fleet
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_paged_and_scoped() {
    each(|fleet| async move {
        for index in 0..5 {
            fleet.project(&format!("p{index}")).await;
        }
        let member = fleet.member(Role::Viewer).await;
        let mut identity = fleet.identity();
        let mut request = ListProjectsRequest { page_size: 2, ..ListProjectsRequest::default() };
        let mut names = Vec::new();
        loop {
            let page = identity.list_projects(request.clone()).await.unwrap().into_inner();
            assert!(page.projects.len() <= 2);
            names.extend(page.projects.into_iter().map(|project| project.name));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        assert_eq!(names.len(), 7);
        assert!(names.is_sorted());
        let mut theirs = Identity::new(fleet.bearer(&member.key));
        let own = theirs.list_projects(ListProjectsRequest::default()).await.unwrap().into_inner();
        let own: Vec<_> = own.projects.into_iter().map(|project| project.name).collect();
        assert_eq!(own, [member.project.name()]);
        // A token of one caller's list is nothing in another's.
        let foreign = theirs.list_projects(request).await.unwrap_err();
        assert_eq!(reason(&foreign), Reason::PageTokenInvalid);
        fleet
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_never_gets_more_than_its_maker_has() {
    each(|fleet| async move {
        let admin = fleet.member(Role::Admin).await;
        let developer = fleet.member_of(&admin.project, Role::Developer).await;
        let make = |key: &str, request: CreateApiKeyRequest| {
            let mut identity = Identity::new(fleet.bearer(key));
            async move {
                let made = identity.create_api_key(request).await;
                made.map(|made| made.into_inner().key).map_err(|status| reason(&status))
            }
        };
        let of = |role: Role| CreateApiKeyRequest { role: role.into(), ..Default::default() };
        let default = make(&developer.key, CreateApiKeyRequest::default()).await.unwrap();
        assert_eq!(who(&fleet, &default).await.unwrap().1, Role::Developer);
        let viewer = make(&developer.key, of(Role::Viewer)).await.unwrap();
        assert_eq!(who(&fleet, &viewer).await.unwrap().1, Role::Viewer);
        // Neither by itself nor by a weaker key of a stronger user.
        assert_eq!(make(&developer.key, of(Role::Admin)).await, Err(Reason::RoleTooLow));
        assert_eq!(make(&viewer, of(Role::Developer)).await, Err(Reason::RoleTooLow));
        let weak = make(&fleet.admin.key, of(Role::Developer)).await.unwrap();
        assert_eq!(who(&fleet, &weak).await.unwrap().1, Role::Developer);
        assert!(!who(&fleet, &weak).await.unwrap().2, "a weak key has no power over the platform");
        assert_eq!(make(&weak, of(Role::Admin)).await, Err(Reason::RoleTooLow));
        // For others: admins only, members only, and never a platform admin.
        let for_user = |user: &wolfpack_types::UserId, role: Role| CreateApiKeyRequest {
            user: user.name(),
            role: role.into(),
            ..Default::default()
        };
        let made = make(&admin.key, for_user(&developer.user, Role::Developer)).await.unwrap();
        assert_eq!(who(&fleet, &made).await.unwrap().0, developer.user.name());
        let high = make(&admin.key, for_user(&developer.user, Role::Admin)).await;
        assert_eq!(high, Err(Reason::RoleTooLow));
        let low = make(&developer.key, for_user(&admin.user, Role::Viewer)).await;
        assert_eq!(low, Err(Reason::RoleTooLow));
        let stolen = make(&admin.key, for_user(&fleet.admin.user, Role::Admin)).await;
        assert_eq!(stolen, Err(Reason::UserNotFound));
        let elsewhere = CreateApiKeyRequest {
            project: fleet.admin.project.name(),
            ..CreateApiKeyRequest::default()
        };
        assert_eq!(make(&admin.key, elsewhere).await, Err(Reason::ProjectNotFound));
        fleet
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_ends_at_once_everywhere() {
    each(|fleet| async move {
        let member = fleet.member(Role::Developer).await;
        let elsewhere = RemoteAuthority::new(fleet.service("scheduler"), &fleet.context);
        let known = elsewhere.api_key(&member.key).await.unwrap();
        assert_eq!(known.project(), Some(&member.project));
        let mut introspect = Identity::new(fleet.service("scheduler"));
        let asked = IntrospectRequest { key: member.key.clone() };
        let answer = introspect.introspect(asked.clone()).await.unwrap().into_inner();
        assert_eq!((answer.user.clone(), answer.role()), (member.user.name(), Role::Developer));
        let mut open = Wolves::new(fleet.bearer(&member.key).without_deadline())
            .watch_wolves(WatchWolvesRequest::default())
            .await
            .unwrap()
            .into_inner();
        assert!(open.message().await.unwrap().is_some());

        let revoke = RevokeApiKeyRequest { name: answer.api_key.clone() };
        fleet.identity().revoke_api_key(revoke.clone()).await.unwrap();
        assert_eq!(who(&fleet, &member.key).await, Err(Reason::ApiKeyInvalid));
        let refused = introspect.introspect(asked).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::ApiKeyInvalid);
        fleet.identity().revoke_api_key(revoke).await.unwrap();
        // What was open ends, and other services hear of it long before they
        // would ask again.
        let ended = tokio::time::timeout(Duration::from_secs(5), async {
            loop {
                if let Err(status) = open.message().await {
                    return status;
                }
            }
        });
        assert_eq!(reason(&ended.await.unwrap()), Reason::ApiKeyInvalid);
        eventually("the revocation reaches the other service", || async {
            elsewhere.api_key(&member.key).await.is_err().then_some(())
        })
        .await;
        fleet
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_listed_and_revoked_by_those_they_concern() {
    each(|fleet| async move {
        let admin = fleet.member(Role::Admin).await;
        let developer = fleet.member_of(&admin.project, Role::Developer).await;
        let stranger = fleet.member(Role::Admin).await;
        let keys = |key: &str| {
            let mut identity = Identity::new(fleet.bearer(key));
            async move {
                let list = identity.list_api_keys(ListApiKeysRequest::default()).await.unwrap();
                list.into_inner().api_keys
            }
        };
        assert_eq!(keys(&admin.key).await.len(), 2);
        let own = keys(&developer.key).await;
        assert_eq!(own.len(), 1);
        assert_eq!(own[0].user, developer.user.name());
        let revoke = |key: &str, name: &str| {
            let mut identity = Identity::new(fleet.bearer(key));
            let request = RevokeApiKeyRequest { name: name.to_owned() };
            async move { identity.revoke_api_key(request).await.map_err(|status| reason(&status)) }
        };
        let name = &own[0].name;
        assert_eq!(revoke(&stranger.key, name).await.err(), Some(Reason::ApiKeyNotFound));
        let admins = keys(&admin.key).await.into_iter().find(|key| key.user == admin.user.name());
        let admins = admins.unwrap().name;
        assert_eq!(revoke(&developer.key, &admins).await.err(), Some(Reason::ApiKeyNotFound));
        assert_eq!(
            revoke(&developer.key, "apiKeys/nothing").await.err(),
            Some(Reason::ApiKeyNotFound)
        );
        assert!(revoke(&developer.key, name).await.is_ok());
        assert!(keys(&admin.key).await.iter().any(|key| key.revoke_time.is_some()));
        fleet
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn membership_changes_reach_the_keys() {
    each(|fleet| async move {
        let admin = fleet.member(Role::Admin).await;
        let member = fleet.member_of(&admin.project, Role::Developer).await;
        let set = |key: &str, role: Role| {
            let mut identity = Identity::new(fleet.bearer(key));
            let request = SetProjectMemberRequest {
                project: member.project.name(),
                user: member.user.name(),
                role: role.into(),
            };
            async move {
                identity.set_project_member(request).await.map_err(|status| reason(&status))
            }
        };
        let stranger = fleet.member(Role::Admin).await;
        assert_eq!(
            set(&stranger.key, Role::Viewer).await.err(),
            Some(Reason::ProjectNotFound)
        );
        assert_eq!(set(&member.key, Role::Admin).await.err(), Some(Reason::RoleTooLow));
        assert_eq!(who(&fleet, &member.key).await.unwrap().1, Role::Developer);
        let elsewhere = RemoteAuthority::new(fleet.service("scheduler"), &fleet.context);
        let role_there = || async { elsewhere.api_key(&member.key).await.unwrap().role() };
        let known = elsewhere.api_key(&member.key).await.unwrap();
        let open = elsewhere.standing(&known).unwrap();
        set(&admin.key, Role::Viewer).await.unwrap();
        assert_eq!(who(&fleet, &member.key).await.unwrap().1, Role::Viewer);
        // Another service hears of it long before it would ask again.
        let told = timeout(Duration::from_secs(5), open.revoked()).await.expect("it is told");
        assert_eq!(told.reason, Reason::RoleTooLow);
        assert_eq!(role_there().await, Some(wolfpack_types::Role::Viewer));
        let late = elsewhere.standing(&known).unwrap().revoked().now_or_never();
        assert_eq!(late.map(|fault| fault.reason), Some(Reason::RoleTooLow), "known before");
        // The same once more tells nobody anything, and more ends nothing.
        let before = revocations(&fleet).await;
        let viewer = elsewhere.api_key(&member.key).await.unwrap();
        let viewing = elsewhere.standing(&viewer).unwrap();
        set(&admin.key, Role::Viewer).await.unwrap();
        assert_eq!(revocations(&fleet).await, before);
        set(&admin.key, Role::Admin).await.unwrap();
        assert!(revocations(&fleet).await > before);
        eventually("the key's own bound is what its user may do", || async {
            (role_there().await == Some(wolfpack_types::Role::Developer)).then_some(())
        })
        .await;
        assert!(viewing.revoked().now_or_never().is_none());
        set(&admin.key, Role::Developer).await.unwrap();
        set(&admin.key, Role::Unspecified).await.unwrap();
        assert_eq!(who(&fleet, &member.key).await, Err(Reason::ApiKeyInvalid));
        // Coming back does not bring the old keys back.
        set(&admin.key, Role::Developer).await.unwrap();
        assert_eq!(who(&fleet, &member.key).await, Err(Reason::ApiKeyInvalid));
        fleet
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_ends_with_its_time() {
    each(|fleet| async move {
        let request = CreateApiKeyRequest {
            role: Role::Admin.into(),
            ttl: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            ..CreateApiKeyRequest::default()
        };
        let made = fleet.identity().create_api_key(request).await.unwrap().into_inner();
        assert!(made.api_key.unwrap().expire_time.is_some());
        assert!(who(&fleet, &made.key).await.unwrap().2);
        eventually("the key ends", || async {
            (who(&fleet, &made.key).await == Err(Reason::ApiKeyInvalid)).then_some(())
        })
        .await;
        let elsewhere = RemoteAuthority::new(fleet.service("scheduler"), &fleet.context);
        assert!(elsewhere.api_key(&made.key).await.is_err());
        let good = elsewhere.api_key(&fleet.admin.key).await.unwrap();
        assert!(matches!(good, Principal::User { platform_admin: true, .. }));
        fleet
    })
    .await;
}
