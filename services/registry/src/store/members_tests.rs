//! What a change of a membership does to keys, on both engines.

use std::time::Duration;

use sea_orm::{ActiveModelTrait as _, ActiveValue::Set, EntityTrait as _};
use wolfpack_store::testing::TestDatabase;
use wolfpack_types::{ApiKeyId, ProjectId, Reason, Role, UserId};

use super::entity::{api_key, member};
use super::*;
use crate::domain::access::Actor;
use crate::domain::api_key::ApiKeySecret;

/// A database with a first admin and a developer who has a key.
struct Place {
    store: Database,
    admin: Actor,
    project: ProjectId,
    developer: UserId,
    key: ApiKeyId,
}

impl Place {
    async fn new(database: &TestDatabase) -> Self {
        let store = Database::open(&database.config, Pepper::new([1; 32])).await.unwrap();
        let first = store.create_first(&ApiKeySecret::generate("test")).await.unwrap().unwrap();
        let (user, project) = (first.user, first.project);
        let admin =
            Actor { user, project: project.clone(), role: Role::Admin, platform_admin: true };
        let once = Idempotency {
            scope: "test".to_owned(),
            request_id: uuid::Uuid::new_v4().to_string(),
            body: [0; 32],
        };
        let row = store.create_user("someone".to_owned(), false, once).await.unwrap();
        let developer = UserId::parse(&row.id).unwrap();
        let set = store.set_member(&admin, project.clone(), developer.clone(), Some(Role::Admin));
        set.await.unwrap();
        let place = Self { store, admin, project, developer, key: ApiKeyId::new() };
        let key = ApiKeyId::parse(&place.create(None).await.unwrap().id).unwrap();
        Self { key, ..place }
    }

    fn actor(&self, user: &UserId) -> Actor {
        let project = self.project.clone();
        Actor { user: user.clone(), project, role: Role::Admin, platform_admin: false }
    }

    async fn create(&self, ttl: Option<Duration>) -> Result<KeyRow> {
        let new = NewKey {
            user: self.developer.clone(),
            project: self.project.clone(),
            role: Role::Admin,
            display_name: String::new(),
            ttl,
        };
        Ok(self.store.create_api_key(&self.admin, new, "test").await?.0)
    }

    /// The names of the keys of which something was told.
    async fn set(&self, role: Role) -> Vec<String> {
        let user = self.developer.clone();
        self.store.set_member(&self.admin, self.project.clone(), user, Some(role)).await.unwrap()
    }
}

fn refused(error: &Error) -> Reason {
    match error {
        Error::Refused(fault) => fault.reason,
        Error::Store(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_change_is_told_once_and_again_where_another_replica_told_nobody() {
    for database in TestDatabase::all() {
        let place = Place::new(&database).await;
        let told = [place.key.name()];
        assert_eq!(place.set(Role::Viewer).await, told);
        assert!(place.set(Role::Viewer).await.is_empty());
        // A version before this one changes the membership and nothing else.
        let raised = member::ActiveModel {
            project: Set(place.project.as_str().to_owned()),
            user_id: Set(place.developer.as_str().to_owned()),
            role: Set("admin".to_owned()),
        };
        raised.update(place.store.conn()).await.unwrap();
        assert_eq!(place.set(Role::Admin).await, told);
        let rows = place.store.revocations_after(0).await.unwrap();
        let row = rows.iter().find(|row| row.id == role_row_id(&place.key)).unwrap();
        assert_eq!((row.role.as_deref(), row.api_key.as_deref()), (Some("admin"), None));
        place.store.store.close().await.unwrap();
        database.close().await;
    }
}

#[tokio::test]
async fn who_has_just_been_made_less_does_not_undo_it() {
    for database in TestDatabase::all() {
        let place = Place::new(&database).await;
        // Authenticated when that was true.
        let before = place.actor(&place.developer);
        let again = || {
            let (project, user) = (place.project.clone(), place.developer.clone());
            place.store.set_member(&before, project, user, Some(Role::Admin))
        };
        again().await.unwrap();
        place.set(Role::Viewer).await;
        assert_eq!(refused(&again().await.unwrap_err()), Reason::RoleTooLow);
        let (project, user) = (place.project.clone(), place.developer.clone());
        place.store.set_member(&place.admin, project, user, None).await.unwrap();
        assert_eq!(refused(&again().await.unwrap_err()), Reason::ProjectNotFound);
        place.store.store.close().await.unwrap();
        database.close().await;
    }
}

#[tokio::test]
async fn a_member_has_so_many_keys_and_those_that_are_over_do_not_count() {
    for database in TestDatabase::all() {
        let place = Place::new(&database).await;
        let now = place.store.now().await.unwrap().0;
        let row = |expire_time: Option<i64>| api_key::ActiveModel {
            id: Set(ApiKeyId::new().as_str().to_owned()),
            user_id: Set(place.developer.as_str().to_owned()),
            project: Set(place.project.as_str().to_owned()),
            role: Set("viewer".to_owned()),
            display_name: Set(String::new()),
            hash: Set(vec![0; 32]),
            create_time: Set(now),
            expire_time: Set(expire_time),
            revoke_time: Set(None),
        };
        // With that of the place one less than the bound, and others that are over.
        for expire_time in [None, Some(now + 3_600_000_000), Some(now)] {
            let rows = (0..499).map(|_| row(expire_time));
            api_key::Entity::insert_many(rows).exec(place.store.conn()).await.unwrap();
        }
        let last = place.create(None).await.unwrap();
        let error = place.create(Some(Duration::from_secs(3600))).await.unwrap_err();
        assert_eq!(refused(&error), Reason::ApiKeysLimited);
        let id = ApiKeyId::parse(&last.id).unwrap();
        place.store.revoke_api_key(&place.admin, id).await.unwrap();
        place.create(None).await.unwrap();
        // Those that are over hear of nothing.
        assert_eq!(place.set(Role::Developer).await.len(), 2, "viewers' keys stay what they are");
        place.store.store.close().await.unwrap();
        database.close().await;
    }
}
