//! The broker's authority: the registry, and one more key for links. What that
//! key signs is verified as everything else is.

use std::sync::Arc;

use async_trait::async_trait;
use wolfpack_rpc::auth::{LinkClaims, Standing};
use wolfpack_rpc::{Authority, RemoteAuthority};
use wolfpack_types::{Fault, Principal};

use crate::links::KEY_ID;

pub(crate) struct WithTestLinks {
    registry: Arc<RemoteAuthority>,
    key: [u8; 32],
}

impl WithTestLinks {
    pub(crate) fn new(registry: Arc<RemoteAuthority>, key: [u8; 32]) -> Self {
        Self { registry, key }
    }
}

#[async_trait]
impl Authority for WithTestLinks {
    async fn api_key(&self, key: &str) -> Result<Principal, Fault> {
        self.registry.api_key(key).await
    }

    async fn sandbox_token(&self, token: &str) -> Result<Principal, Fault> {
        self.registry.sandbox_token(token).await
    }

    async fn link(&self, link: &str) -> Result<Principal, Fault> {
        if LinkClaims::key_id(link)? == KEY_ID {
            return LinkClaims::verify(link, &self.key)?.principal();
        }
        self.registry.link(link).await
    }

    fn standing(&self, principal: &Principal) -> Option<Standing> {
        self.registry.standing(principal)
    }
}
