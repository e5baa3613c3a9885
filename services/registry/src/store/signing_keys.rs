//! The keys that sign sandbox tokens and links, shared by all replicas. The private half
//! is sealed (ChaCha20-Poly1305) under a key derived from the pepper, so the
//! database alone signs nothing.

use std::time::Duration;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use sea_orm::{
    ActiveModelTrait as _, ActiveValue::Set, EntityTrait as _, ModelTrait as _, QueryOrder as _,
};
use wolfpack_rpc::auth::MAX_LINK_LIFE;
use wolfpack_types::Fault;
use zeroize::Zeroizing;

use super::entity::signing_key;
use super::{Database, Result, Transaction};
use crate::domain::pepper::Pepper;
use crate::domain::time::Micros;

/// A replaced key verifies for as long as what it signed may live, links longest.
const KEPT: Duration = MAX_LINK_LIFE.saturating_add(Duration::from_secs(3600));
const SEAL: &str = "wolfpack registry: sandbox token signing keys v1";

/// A signing key, opened.
#[derive(Clone)]
pub(crate) struct SigningKeyRow {
    pub(crate) id: String,
    pub(crate) public_key: [u8; 32],
    /// PKCS#8.
    pub(crate) private_key: Zeroizing<Vec<u8>>,
}

impl Database {
    /// Every key that a live token may be signed with, the signing one first.
    /// Makes a fresh one when there is none or the newest is older than
    /// `lifetime`, and forgets those no live token can be of.
    pub(crate) async fn signing_keys(&self, lifetime: Duration) -> Result<Vec<SigningKeyRow>> {
        let rows = self
            .tx(self.pepper.clone(), move |t, pepper| {
                Box::pin(async move { rotate(&t, &pepper, lifetime).await })
            })
            .await?;
        rows.into_iter().map(|row| open(&self.pepper, row)).collect()
    }
}

async fn rotate(
    t: &Transaction<'_>,
    pepper: &Pepper,
    lifetime: Duration,
) -> Result<Vec<signing_key::Model>> {
    let now = t.now().await?;
    let mut rows = signing_key::Entity::find()
        .order_by_desc(signing_key::Column::CreateTime)
        .order_by_desc(signing_key::Column::Id)
        .all(t.tx)
        .await?;
    let fresh = rows.first().is_some_and(|row| now < Micros(row.create_time).plus(lifetime));
    if !fresh {
        rows.insert(0, generate(pepper, now)?.insert(t.tx).await?);
    }
    let mut kept: Vec<signing_key::Model> = Vec::with_capacity(rows.len());
    for row in rows {
        // A key signs until the next newer one is made.
        let over = kept.last().is_some_and(|newer| Micros(newer.create_time).plus(KEPT) <= now);
        if over {
            row.delete(t.tx).await?;
        } else {
            kept.push(row);
        }
    }
    Ok(kept)
}

fn generate(pepper: &Pepper, now: Micros) -> Result<signing_key::ActiveModel> {
    let internal = |_| Fault::internal("could not make a signing key");
    let random = ring::rand::SystemRandom::new();
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).map_err(internal)?;
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref())
        .map_err(|_| Fault::internal("a fresh signing key does not read back"))?;
    let id = uuid::Uuid::now_v7().simple().to_string();
    let sealed = seal(pepper, &id, pkcs8.as_ref())?;
    Ok(signing_key::ActiveModel {
        id: Set(id),
        public_key: Set(pair.public_key().as_ref().to_vec()),
        sealed_key: Set(sealed),
        create_time: Set(now.0),
    })
}

fn sealing_key(pepper: &Pepper) -> std::result::Result<LessSafeKey, Fault> {
    UnboundKey::new(&CHACHA20_POLY1305, pepper.derive(SEAL).as_slice())
        .map(LessSafeKey::new)
        .map_err(|_| Fault::internal("could not derive the sealing key"))
}

/// `nonce || ciphertext`, bound to the key's id.
fn seal(pepper: &Pepper, id: &str, secret: &[u8]) -> std::result::Result<Vec<u8>, Fault> {
    let nonce: [u8; NONCE_LEN] = rand::random();
    let mut text = secret.to_vec();
    sealing_key(pepper)?
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(id.as_bytes()),
            &mut text,
        )
        .map_err(|_| Fault::internal("could not seal a signing key"))?;
    let mut sealed = nonce.to_vec();
    sealed.append(&mut text);
    Ok(sealed)
}

fn open(pepper: &Pepper, row: signing_key::Model) -> Result<SigningKeyRow> {
    let damaged = || Fault::internal(format!("signing key {} does not open", row.id));
    let public_key = row.public_key.as_slice().try_into().map_err(|_| damaged())?;
    let (nonce, text) = row.sealed_key.split_at_checked(NONCE_LEN).ok_or_else(damaged)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
    let mut text = Zeroizing::new(text.to_vec());
    let length = sealing_key(pepper)?
        .open_in_place(nonce, Aad::from(row.id.as_bytes()), &mut text)
        .map_err(|_| damaged())?
        .len();
    text.truncate(length);
    Ok(SigningKeyRow { public_key, private_key: text, id: row.id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sea_orm::TryIntoModel as _;

    #[test]
    fn a_sealed_key_opens_only_under_its_pepper_and_id() {
        let pepper = Pepper::new([3; 32]);
        let row = generate(&pepper, Micros(1)).unwrap().try_into_model().unwrap();
        let opened = open(&pepper, row.clone()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(&opened.private_key).unwrap();
        assert_eq!(pair.public_key().as_ref(), opened.public_key);
        assert!(open(&Pepper::new([4; 32]), row.clone()).is_err());
        assert!(open(&pepper, signing_key::Model { id: "other".into(), ..row.clone() }).is_err());
        let cut = row.sealed_key[..5].to_vec();
        assert!(open(&pepper, signing_key::Model { sealed_key: cut, ..row }).is_err());
    }
}
