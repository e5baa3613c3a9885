//! Each rpc × {no key, wrong key, another project's key on a live resource,
//! the owner's key}, driven from the descriptor set.

use std::collections::BTreeMap;

use prost_reflect::MethodDescriptor;
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;
use wolfpack_proto::registry::v1 as registry;
use wolfpack_proto::sandbox::v1 as sandbox;
use wolfpack_testkit::client::{Client, timed};
use wolfpack_testkit::dev_fleet::DevFleet;

use crate::dynamic_call::{call, methods, path, pool};
use crate::rows::{Audience, Foreign, ROWS};

/// The owner's live resources, and the key of a stranger.
struct World {
    channel: Channel,
    owner_key: String,
    foreign_key: String,
    names: BTreeMap<&'static str, String>,
}

impl World {
    async fn build(fleet: &DevFleet) -> Self {
        let owner = fleet.client().await;
        let me = owner
            .identity()
            .who_am_i(timed(registry::WhoAmIRequest {}, 10))
            .await
            .unwrap()
            .into_inner();
        let spec = sandbox::SandboxSpec { desktop: true, ..Default::default() };
        let live = owner.run(spec).await.unwrap();
        // A key of the owner's project that may be revoked without harm.
        let spare =
            registry::CreateApiKeyRequest { project: me.project.clone(), ..Default::default() };
        let spare = owner.identity().create_api_key(timed(spare, 10)).await.unwrap().into_inner();
        let names = BTreeMap::from([
            ("{sandbox}", live.name),
            ("{wolf}", join_project_wolf(&owner, &me.project).await),
            ("{key}", spare.api_key.unwrap().name),
            ("{project}", me.project),
            ("{user}", me.user),
        ]);
        let foreign_key = stranger(&owner).await;
        Self {
            channel: owner.channel(),
            owner_key: fleet.ready().api_key.clone(),
            foreign_key,
            names,
        }
    }

    fn request(&self, template: &str) -> String {
        let mut json = template.replace("{uuid}", &uuid::Uuid::new_v4().to_string());
        for (place, name) in &self.names {
            json = json.replace(place, name);
        }
        json
    }

    async fn answer(
        &self,
        method: &MethodDescriptor,
        key: Option<&str>,
        template: &str,
    ) -> Result<Vec<u8>, tonic::Status> {
        call(&self.channel, method, key, &self.request(template)).await
    }
}

/// Ends every sandbox that the key may see.
async fn delete_all(client: &Client) {
    let list = sandbox::ListSandboxesRequest::default();
    let all =
        client.sandboxes().list_sandboxes(timed(list, 10)).await.unwrap().into_inner().sandboxes;
    for sandbox in all {
        client.delete(&sandbox.name).await.unwrap();
    }
}

/// Joins a wolf of the project alone; no agent runs for it, its row is enough.
async fn join_project_wolf(owner: &Client, project: &str) -> String {
    let request =
        registry::CreateJoinTokenRequest { project: project.to_owned(), ..Default::default() };
    let token =
        owner.identity().create_join_token(timed(request, 10)).await.unwrap().into_inner().token;
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    let request = registry::JoinWolfRequest {
        token,
        certificate_request: csr.der().to_vec().into(),
        display_name: "of one project".to_owned(),
    };
    // Joining needs no key: the token is the credential.
    owner.with_key(None).identity().join_wolf(timed(request, 10)).await.unwrap().into_inner().wolf
}

/// A user who is the admin of another project, and nothing else.
async fn stranger(owner: &Client) -> String {
    let uuid = || uuid::Uuid::new_v4().to_string();
    let project =
        registry::CreateProjectRequest { request_id: uuid(), display_name: "other".to_owned() };
    let project = owner
        .identity()
        .create_project(timed(project, 10))
        .await
        .unwrap()
        .into_inner()
        .project
        .unwrap();
    let user = registry::CreateUserRequest {
        request_id: uuid(),
        display_name: "stranger".to_owned(),
        platform_admin: false,
    };
    let user =
        owner.identity().create_user(timed(user, 10)).await.unwrap().into_inner().user.unwrap();
    let member = registry::SetProjectMemberRequest {
        project: project.name.clone(),
        user: user.name.clone(),
        role: registry::Role::Admin as i32,
    };
    owner.identity().set_project_member(timed(member, 10)).await.unwrap();
    let key = registry::CreateApiKeyRequest {
        user: user.name,
        project: project.name,
        role: registry::Role::Admin as i32,
        ..Default::default()
    };
    owner.identity().create_api_key(timed(key, 10)).await.unwrap().into_inner().key
}

fn reason(status: &tonic::Status) -> String {
    status.get_error_details().error_info().map_or_else(String::new, |info| info.reason.clone())
}

#[test]
fn every_rpc_has_a_row_and_every_row_an_rpc() {
    let pool = pool();
    let served: Vec<String> = methods(&pool).iter().map(path).collect();
    let rows: Vec<&str> = ROWS.iter().map(|row| row.0).collect();
    let without_row: Vec<&String> =
        served.iter().filter(|path| !rows.contains(&path.as_str())).collect();
    assert!(without_row.is_empty(), "no row says who may call: {without_row:?}");
    let left_over: Vec<&&str> =
        rows.iter().filter(|row| !served.iter().any(|path| path == *row)).collect();
    assert!(left_over.is_empty(), "rows of no rpc: {left_over:?}");
    assert_eq!(rows.len(), served.len(), "an rpc has two rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_answers_each_kind_of_caller_as_its_row_says() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = DevFleet::start(folder.path(), &[]).await;
    let world = World::build(&fleet).await;
    let pool = pool();
    let methods: BTreeMap<String, MethodDescriptor> =
        methods(&pool).into_iter().map(|method| (path(&method), method)).collect();
    // A key that looks right: another secret with a checksum that does not fit, and nonsense.
    let mut mangled = world.owner_key.clone();
    let last = mangled.pop().unwrap();
    mangled.push(if last == 'a' { 'b' } else { 'a' });
    let (mut wrong, mut shown) = (Vec::new(), Vec::new());
    for &(rpc, audience, template) in ROWS {
        let method = &methods[rpc];
        let mut expect = |caller: &str, answer: &Result<Vec<u8>, tonic::Status>, codes: &[Code]| {
            let code = answer.as_ref().map_or_else(tonic::Status::code, |_| Code::Ok);
            let named = match answer {
                Ok(_) => String::new(),
                Err(status) => format!("{} {}", reason(status), status.message()),
            };
            if !codes.contains(&code) {
                wrong.push(format!("{rpc} with {caller}: {code:?} {named}, not {codes:?}"));
            } else if code != Code::Ok && reason(answer.as_ref().unwrap_err()).is_empty() {
                wrong.push(format!("{rpc} with {caller}: {code:?} without a reason"));
            }
        };
        let none = world.answer(method, None, template).await;
        let nonsense = world.answer(method, Some("wp_nonsense"), template).await;
        let close = world.answer(method, Some(&mangled), template).await;
        let foreign = world.answer(method, Some(&world.foreign_key), template).await;
        let keyless: &[Code] = match audience {
            Audience::Internal => &[Code::Unauthenticated, Code::Unimplemented, Code::NotFound],
            _ => &[Code::Unauthenticated],
        };
        expect("no key", &none, keyless);
        expect("a wrong key", &nonsense, keyless);
        expect("a mangled key", &close, keyless);
        match audience {
            Audience::Users(kind) | Audience::UsersExpect(kind, _) => {
                match kind {
                    Foreign::NotFound => {
                        expect("another project's key", &foreign, &[Code::NotFound]);
                    }
                    Foreign::Denied => {
                        expect("another project's key", &foreign, &[Code::PermissionDenied]);
                    }
                    Foreign::OwnOnly => expect("another project's key", &foreign, &[Code::Ok]),
                }
                let body =
                    String::from_utf8_lossy(foreign.as_deref().unwrap_or_default()).into_owned();
                shown.extend(
                    world
                        .names
                        .values()
                        .filter(|name| body.contains(name.as_str()))
                        .map(|name| format!("{rpc} shows {name} to another project")),
                );
                let owner = world.answer(method, Some(&world.owner_key), template).await;
                match audience {
                    Audience::UsersExpect(_, code) => expect("the owner's key", &owner, &[code]),
                    _ => expect("the owner's key", &owner, &[Code::Ok]),
                }
            }
            Audience::Machines => {
                expect("another project's key", &foreign, &[Code::PermissionDenied]);
                let owner = world.answer(method, Some(&world.owner_key), template).await;
                expect("the owner's key", &owner, &[Code::PermissionDenied]);
            }
            Audience::Token => expect("another project's key", &foreign, &[Code::Unauthenticated]),
            Audience::Internal => {
                let unserved = &[Code::Unimplemented, Code::NotFound];
                expect("another project's key", &foreign, unserved);
                let owner = world.answer(method, Some(&world.owner_key), template).await;
                expect("the owner's key", &owner, unserved);
            }
        }
    }
    wrong.extend(shown);
    for key in [&world.owner_key, &world.foreign_key] {
        delete_all(&fleet.client().await.with_key(Some(key))).await;
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), ROWS.len(), wrong.join("\n"));
    fleet.stop().await;
}
