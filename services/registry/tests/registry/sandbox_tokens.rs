//! The tokens that sandboxes are known by.

use wolfpack_proto::registry::v1::{
    GetSigningKeysRequest, MintLinkRequest, MintSandboxTokenRequest, RefreshSandboxTokenRequest,
    RevokeSandboxTokensRequest,
};
use wolfpack_rpc::{Authority as _, RemoteAuthority, SandboxClaims};
use wolfpack_types::{ExecutionId, Principal, Reason, SandboxId};

use crate::fleet::{Fleet, Identity, each, eventually, reason};

async fn mint(
    fleet: &Fleet,
    sandbox: &SandboxId,
    execution: &ExecutionId,
) -> Result<String, Reason> {
    let request = MintSandboxTokenRequest {
        sandbox: sandbox.name(),
        project: fleet.admin.project.name(),
        execution_id: execution.as_str().to_owned(),
    };
    let mut manager = Identity::new(fleet.service("sandbox-manager"));
    let minted = manager.mint_sandbox_token(request).await.map_err(|status| reason(&status))?;
    Ok(minted.into_inner().token)
}

async fn refresh(fleet: &Fleet, token: &str) -> Result<String, Reason> {
    let mut sandbox = Identity::new(fleet.bearer(token));
    let fresh = sandbox.refresh_sandbox_token(RefreshSandboxTokenRequest {}).await;
    Ok(fresh.map_err(|status| reason(&status))?.into_inner().token)
}

async fn revoke(fleet: &Fleet, sandbox: &SandboxId, execution: &str) {
    let request =
        RevokeSandboxTokensRequest { sandbox: sandbox.name(), execution_id: execution.to_owned() };
    let mut manager = Identity::new(fleet.service("sandbox-manager"));
    manager.revoke_sandbox_tokens(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_names_one_boot_and_ends_with_it() {
    each(|fleet| async move {
        let (sandbox, first, second) = (SandboxId::new(), ExecutionId::new(), ExecutionId::new());
        let one = mint(&fleet, &sandbox, &first).await.unwrap();
        let two = mint(&fleet, &sandbox, &second).await.unwrap();
        let fresh = refresh(&fleet, &one).await.unwrap();
        let elsewhere = RemoteAuthority::new(fleet.service("tunnel-broker"), &fleet.context);
        let expected = Principal::Sandbox {
            sandbox: sandbox.clone(),
            project: fleet.admin.project.clone(),
            execution: first.clone(),
        };
        for token in [&one, &fresh] {
            assert_eq!(elsewhere.sandbox_token(token).await.unwrap(), expected);
        }
        revoke(&fleet, &sandbox, first.as_str()).await;
        // Here at once, elsewhere as soon as it is told.
        for token in [&one, &fresh] {
            assert_eq!(refresh(&fleet, token).await, Err(Reason::SandboxTokenRevoked));
            eventually("the other service hears of it", || async {
                let fault = elsewhere.sandbox_token(token).await.err()?;
                (fault.reason == Reason::SandboxTokenRevoked).then_some(())
            })
            .await;
        }
        assert_eq!(mint(&fleet, &sandbox, &first).await, Err(Reason::SandboxTokenRevoked));
        assert!(elsewhere.sandbox_token(&two).await.is_ok());
        assert!(refresh(&fleet, &two).await.is_ok());
        revoke(&fleet, &sandbox, "").await;
        revoke(&fleet, &sandbox, "").await;
        assert_eq!(refresh(&fleet, &two).await, Err(Reason::SandboxTokenRevoked));
        // A service that comes later hears of what was revoked before.
        let late = RemoteAuthority::new(fleet.service("scheduler"), &fleet.context);
        let fault = late.sandbox_token(&two).await.unwrap_err();
        assert_eq!(fault.reason, Reason::SandboxTokenRevoked);
        fleet
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_manager_mints_and_only_our_keys_count() {
    each(|fleet| async move {
        let request = MintSandboxTokenRequest {
            sandbox: SandboxId::new().name(),
            project: fleet.admin.project.name(),
            execution_id: "e1".to_owned(),
        };
        for channel in [fleet.service("scheduler"), fleet.bearer(&fleet.admin.key)] {
            let refused =
                Identity::new(channel).mint_sandbox_token(request.clone()).await.unwrap_err();
            assert_eq!(reason(&refused), Reason::CallerForbidden);
        }
        let token = mint(&fleet, &SandboxId::new(), &ExecutionId::new()).await.unwrap();
        let keys = Identity::new(fleet.service("scheduler"))
            .get_signing_keys(GetSigningKeysRequest {})
            .await
            .unwrap()
            .into_inner()
            .keys;
        assert_eq!(keys.len(), 1);
        assert_eq!(SandboxClaims::key_id(&token).unwrap(), keys[0].key_id);
        let public: [u8; 32] = keys[0].public_key.as_ref().try_into().unwrap();
        assert!(SandboxClaims::verify(&token, &public).is_ok());
        let mut damaged = token.clone().into_bytes();
        let at = damaged.len() - 20;
        damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
        let damaged = String::from_utf8(damaged).unwrap();
        assert_eq!(refresh(&fleet, &damaged).await, Err(Reason::SandboxTokenInvalid));
        assert_eq!(refresh(&fleet, "a.b.c").await, Err(Reason::SandboxTokenInvalid));
        fleet
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_opens_its_port_until_its_sandbox_is_deleted() {
    each(|fleet| async move {
        let sandbox = SandboxId::new();
        let ask = |port, seconds| MintLinkRequest {
            sandbox: sandbox.name(),
            port,
            project: fleet.admin.project.name(),
            creator: fleet.admin.user.name(),
            life: Some(prost_types::Duration { seconds, nanos: 0 }),
        };
        let mut manager = Identity::new(fleet.service("sandbox-manager"));
        let minted = manager.mint_link(ask(8080, 3600)).await.unwrap().into_inner();
        let broker = RemoteAuthority::new(fleet.service("tunnel-broker"), &fleet.context);
        let Principal::Link { sandbox: id, port, project, creator, .. } =
            broker.link(&minted.token).await.unwrap()
        else {
            panic!("another principal")
        };
        assert_eq!((&id, port), (&sandbox, 8080));
        assert_eq!((&project, &creator), (&fleet.admin.project, &fleet.admin.user));
        let principal = broker.link(&minted.token).await.unwrap();
        let standing = wolfpack_rpc::Authority::standing(&*broker, &principal).unwrap();
        // It is no token of a sandbox, and opens no rpc of the registry.
        assert!(broker.sandbox_token(&minted.token).await.is_err());
        assert_eq!(refresh(&fleet, &minted.token).await, Err(Reason::LinkInvalid));

        for (port, seconds) in [(0, 3600), (65_536, 3600), (80, 59), (80, 604_801)] {
            let refused = manager.mint_link(ask(port, seconds)).await.unwrap_err();
            assert_eq!(reason(&refused), Reason::RequestInvalid, "{port} {seconds}");
        }
        for other in ["scheduler", "tunnel-broker", "gateway"] {
            let mut other = Identity::new(fleet.service(other));
            assert!(other.mint_link(ask(80, 3600)).await.is_err());
        }
        // A boot's end is not the sandbox's.
        revoke(&fleet, &sandbox, "boot").await;
        assert!(broker.link(&minted.token).await.is_ok());
        revoke(&fleet, &sandbox, "").await;
        let ended = tokio::time::timeout(std::time::Duration::from_secs(20), standing.revoked());
        assert_eq!(ended.await.expect("what is open ends").reason, Reason::LinkInvalid);
        assert_eq!(broker.link(&minted.token).await.unwrap_err().reason, Reason::LinkInvalid);
        let refused = manager.mint_link(ask(80, 3600)).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::SandboxTokenRevoked);
        fleet
    })
    .await;
}
