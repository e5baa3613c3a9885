//! The registry's public keys for sandbox tokens, by key id.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use wolfpack_proto::registry::v1::GetSigningKeysRequest;
use wolfpack_proto::registry::v1::identity_service_client::IdentityServiceClient;
use wolfpack_types::Fault;

use crate::client::RpcChannel;
use crate::error::from_status;

/// Unknown key ids ask the registry at most this often: anyone can make one up.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Keys are fetched anew after this long, so that a withdrawn one is forgotten.
const MAX_AGE: Duration = Duration::from_secs(60);

pub(super) struct SigningKeys {
    registry: RpcChannel,
    keys: ArcSwap<Known>,
    fetching: Mutex<()>,
}

#[derive(Default)]
struct Known {
    by_id: HashMap<String, [u8; 32]>,
    fetched: Option<Instant>,
}

impl SigningKeys {
    pub(super) fn new(registry: RpcChannel) -> Self {
        Self { registry, keys: ArcSwap::from_pointee(Known::default()), fetching: Mutex::new(()) }
    }

    /// The key of an id; `None` when the registry does not know it.
    pub(super) async fn get(&self, key_id: &str) -> Result<Option<[u8; 32]>, Fault> {
        if let Some(known) = self.known(key_id, MAX_AGE) {
            return Ok(Some(known));
        }
        let _one_at_a_time = self.fetching.lock().await;
        let known = self.keys.load();
        let age = known.fetched.map(|fetched| fetched.elapsed());
        if age.is_some_and(|age| age < MIN_INTERVAL) {
            return Ok(known.by_id.get(key_id).copied());
        }
        match self.fetch().await {
            Ok(()) => {}
            // Keys do not become wrong because the registry is away.
            Err(fault) => match known.by_id.get(key_id) {
                Some(key) => {
                    tracing::warn!(%fault, "signing keys not refreshed; the known ones stay in use");
                    return Ok(Some(*key));
                }
                None => return Err(fault),
            },
        }
        Ok(self.keys.load().by_id.get(key_id).copied())
    }

    fn known(&self, key_id: &str, max_age: Duration) -> Option<[u8; 32]> {
        let known = self.keys.load();
        known.fetched.filter(|fetched| fetched.elapsed() < max_age)?;
        known.by_id.get(key_id).copied()
    }

    async fn fetch(&self) -> Result<(), Fault> {
        let answer = IdentityServiceClient::new(self.registry.clone())
            .get_signing_keys(GetSigningKeysRequest {})
            .await
            .map_err(|status| from_status(&status))?
            .into_inner();
        let by_id = answer
            .keys
            .into_iter()
            .filter_map(|key| {
                Some((key.key_id, <[u8; 32]>::try_from(key.public_key.as_ref()).ok()?))
            })
            .collect();
        self.keys.store(std::sync::Arc::new(Known { by_id, fetched: Some(Instant::now()) }));
        Ok(())
    }
}
