//! Links: the registry's own, and those of a key of the tests, whose time can be
//! any.

use std::time::{Duration, SystemTime};

use jsonwebtoken::EncodingKey;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tonic::Request;
use wolfpack_proto::registry::v1::MintLinkRequest;
use wolfpack_rpc::auth::LinkClaims;

use crate::fleet::Fleet;
use crate::sandbox::Sandbox;

/// The key id of the tests' key.
pub(crate) const KEY_ID: &str = "of-the-tests";

const HOUR: Duration = Duration::from_secs(3600);

pub(crate) struct TestKey {
    private: EncodingKey,
    public: [u8; 32],
}

impl TestKey {
    pub(crate) fn new() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        Self {
            private: EncodingKey::from_ed_der(pkcs8.as_ref()),
            public: pair.public_key().as_ref().try_into().unwrap(),
        }
    }

    pub(crate) fn public(&self) -> [u8; 32] {
        self.public
    }
}

impl Fleet {
    /// A link that the registry made for a port of a sandbox.
    pub(crate) async fn link(&self, sandbox: &Sandbox) -> String {
        let request = MintLinkRequest {
            sandbox: sandbox.id.name(),
            port: sandbox.port.into(),
            project: self.project.name(),
            creator: self.user.name(),
            life: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
        };
        self.identities().mint_link(Request::new(request)).await.unwrap().into_inner().token
    }

    /// A link of an hour's life that was made so long ago.
    pub(crate) fn link_of(&self, sandbox: &Sandbox, age: Duration) -> String {
        let made = SystemTime::now() - age;
        LinkClaims::new(&sandbox.id, sandbox.port, &self.project, &self.user, made, HOUR)
            .sign(KEY_ID, &self.test_key.private)
            .unwrap()
    }
}
