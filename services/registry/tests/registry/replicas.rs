//! Two registries on one database.

use wolfpack_proto::registry::v1::watch_wolves_response::Event;
use wolfpack_proto::registry::v1::{
    ListApiKeysRequest, RevokeApiKeyRequest, Role, SetProjectMemberRequest, WatchWolvesRequest,
    WhoAmIRequest, WolfState,
};
use wolfpack_types::Reason;

use crate::fleet::{Heart, Identity, Wolves, each, eventually, reason};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_replica_writes_the_other_tells() {
    each(|fleet| async move {
        let other = fleet.replica().await;
        let member = fleet.member(Role::Developer).await;
        let channel = fleet.bearer_at(&other, &member.key);
        let request = WatchWolvesRequest::default();
        let mut watch = Wolves::new(channel.without_deadline())
            .watch_wolves(request)
            .await
            .unwrap()
            .into_inner();
        let wolf = fleet.join("").await;
        let told = async {
            loop {
                if let Some(Event::Upserted(told)) = watch.message().await.unwrap().unwrap().event {
                    return told;
                }
            }
        };
        let told = tokio::time::timeout(std::time::Duration::from_secs(10), told).await.unwrap();
        assert_eq!(told.name, wolf.id.name());

        let mut there = Identity::new(channel);
        // It believes what it knows of the key for five seconds; that it is told is seen
        // by its being faster, at least once. What it knew at first is older than that.
        let role =
            async || there.clone().who_am_i(WhoAmIRequest {}).await.unwrap().into_inner().role();
        let mut took = Vec::new();
        for now in [Role::Viewer, Role::Developer, Role::Viewer, Role::Developer] {
            let began = std::time::Instant::now();
            assert_ne!(role().await, now);
            let set = SetProjectMemberRequest {
                project: member.project.name(),
                user: member.user.name(),
                role: now.into(),
            };
            fleet.identity().set_project_member(set).await.unwrap();
            eventually("the other replica knows of the role", || async {
                (role().await == now).then_some(())
            })
            .await;
            took.push(began.elapsed());
        }
        assert!(took[1..].iter().any(|took| took.as_secs() < 4), "{took:?}");
        let listed = there.list_api_keys(ListApiKeysRequest::default()).await.unwrap();
        let name = listed.into_inner().api_keys[0].name.clone();
        fleet.identity().revoke_api_key(RevokeApiKeyRequest { name }).await.unwrap();
        eventually("the other replica knows of the revocation", || {
            let mut there = there.clone();
            async move {
                let status = there.who_am_i(WhoAmIRequest {}).await.err()?;
                (reason(&status) == Reason::ApiKeyInvalid).then_some(())
            }
        })
        .await;
        fleet
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_at_another_replica_takes_over() {
    each(|fleet| async move {
        let other = fleet.replica().await;
        let wolf = fleet.join("").await;
        wolf.register("i").await.unwrap();
        fleet.broker.attach(&wolf.id.name(), "s");
        let mut first = wolf.heart("i").await;
        first.beat("").await.unwrap();
        fleet.reaches(&wolf.id, WolfState::Online).await;
        let mut second = Heart::of(&fleet.wolf_at(&other, &wolf), "i").await;
        assert_eq!(second.beat("").await.unwrap(), WolfState::Online);
        // The older one is told at its next beat that is written.
        let ended = first.keep().await.unwrap();
        assert_eq!(reason(&ended), Reason::Superseded);
        assert_eq!(second.beat("").await.unwrap(), WolfState::Online);
        fleet
    })
    .await;
}
