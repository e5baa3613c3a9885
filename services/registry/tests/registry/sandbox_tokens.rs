//! The tokens that sandboxes are known by.

use wolfpack_proto::registry::v1::{
    GetSigningKeysRequest, MintSandboxTokenRequest, RefreshSandboxTokenRequest,
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
