//! Each rpc × {no key, wrong key, another project's key on a live resource,
//! the owner's key}, driven from the descriptor set.

use std::collections::BTreeMap;

use prost_reflect::MethodDescriptor;
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;
use wolfpack_proto::registry::v1 as registry;
use wolfpack_proto::sandbox::v1 as sandbox;
use wolfpack_proto::tunnel::v1 as tunnel;
use wolfpack_testkit::client::{Client, timed};
use wolfpack_testkit::dev_fleet::DevFleet;

use crate::dynamic_call::{Answer, Answers, call, methods, path, pool, shows};
use crate::project_wolf::ProjectWolf;
use crate::rows::{Audience, Foreign, ROWS};

/// The owner's live resources, and the key of a stranger.
struct World {
    channel: Channel,
    owner_key: String,
    foreign_key: String,
    wolf: ProjectWolf,
    /// Resources that nobody else may hear of.
    names: BTreeMap<&'static str, String>,
    /// What else requests say.
    words: [(&'static str, String); 4],
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
        let wolf = ProjectWolf::start(fleet.folder(), fleet, &owner, &me.project).await;
        let spec = sandbox::SandboxSpec { desktop: true, ..Default::default() };
        let live = owner.run(spec).await.unwrap();
        let sharing = wolf.sharing_sandbox(&owner).await;
        // A key of the owner's project that may be revoked without harm.
        let spare =
            registry::CreateApiKeyRequest { project: me.project.clone(), ..Default::default() };
        let spare = owner.identity().create_api_key(timed(spare, 10)).await.unwrap().into_inner();
        let exposure = tunnel::CreateExposureRequest {
            endpoint: wolf.name.clone(),
            target: "moonlight-web".to_owned(),
            ..Default::default()
        };
        let exposure = owner.exposures().create_exposure(timed(exposure, 10)).await.unwrap();
        let exposure = exposure.into_inner().exposure.unwrap();
        let names = BTreeMap::from([
            ("{sandbox}", live.name),
            ("{sharing}", sharing.name),
            ("{wolf}", wolf.name.clone()),
            ("{exposure}", exposure.name),
            ("{key}", spare.api_key.unwrap().name),
            ("{project}", me.project),
            ("{user}", me.user),
        ]);
        let foreign_key = stranger(&owner).await;
        let words = wolf.archive().await.words();
        Self {
            channel: owner.channel(),
            owner_key: fleet.ready().api_key.clone(),
            foreign_key,
            wolf,
            names,
            words,
        }
    }

    fn request(&self, template: &str) -> String {
        let mut json = template.replace("{uuid}", &uuid::Uuid::new_v4().to_string());
        for (place, name) in self.names.iter().chain(self.words.iter().map(|(a, b)| (a, b))) {
            json = json.replace(place, name);
        }
        json
    }

    async fn answer(
        &self,
        method: &MethodDescriptor,
        key: Option<&str>,
        template: &str,
        answer: Answer,
    ) -> Result<Answers, tonic::Status> {
        call(&self.channel, method, key, &self.request(template), answer).await
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
        let mut expect = |caller: &str, answer: &Result<Answers, tonic::Status>, codes: &[Code]| {
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
        let kind = match audience {
            Audience::Users(_, owner) => owner.answer(),
            _ => Answer::Ends,
        };
        let ask = |key| world.answer(method, key, template, kind);
        let none = ask(None).await;
        let nonsense = ask(Some("wp_nonsense")).await;
        let close = ask(Some(&mangled)).await;
        let foreign = ask(Some(&world.foreign_key)).await;
        let keyless: &[Code] = match audience {
            Audience::Internal => &[Code::Unauthenticated, Code::Unimplemented, Code::NotFound],
            _ => &[Code::Unauthenticated],
        };
        expect("no key", &none, keyless);
        expect("a wrong key", &nonsense, keyless);
        expect("a mangled key", &close, keyless);
        match audience {
            Audience::Users(kind, owner) => {
                let allowed = match kind {
                    Foreign::NotFound => Code::NotFound,
                    Foreign::Denied => Code::PermissionDenied,
                    Foreign::OwnOnly => Code::Ok,
                };
                expect("another project's key", &foreign, &[allowed]);
                let body = foreign.unwrap_or_default().concat();
                let body = String::from_utf8_lossy(&body);
                shown.extend(
                    world
                        .names
                        .values()
                        .filter(|name| body.contains(name.as_str()))
                        .map(|name| format!("{rpc} shows {name} to another project")),
                );
                let answer = ask(Some(&world.owner_key)).await;
                expect("the owner's key", &answer, &[Code::Ok]);
                if let Ok(answers) = answer
                    && !shows(method, &answers, owner.wanted())
                {
                    let count = answers.len();
                    let wanted = owner.wanted();
                    wrong.push(format!(
                        "{rpc} with the owner's key: no {wanted} in {count} messages"
                    ));
                }
            }
            Audience::Machines => {
                expect("another project's key", &foreign, &[Code::PermissionDenied]);
                let owner = ask(Some(&world.owner_key)).await;
                expect("the owner's key", &owner, &[Code::PermissionDenied]);
            }
            Audience::Token => expect("another project's key", &foreign, &[Code::Unauthenticated]),
            Audience::Internal => {
                let unserved = &[Code::Unimplemented, Code::NotFound];
                expect("another project's key", &foreign, unserved);
                let owner = ask(Some(&world.owner_key)).await;
                expect("the owner's key", &owner, unserved);
            }
        }
    }
    wrong.extend(shown);
    for key in [&world.owner_key, &world.foreign_key] {
        delete_all(&fleet.client().await.with_key(Some(key))).await;
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), ROWS.len(), wrong.join("\n"));
    // The image that was loaded is removed, and what the sandbox started beside it.
    world.wolf.stop().await;
    fleet.stop().await;
}
