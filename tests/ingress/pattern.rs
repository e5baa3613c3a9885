//! A long body that is never in memory as a whole, and its hash.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use futures::stream;
use ring::digest::{Context, SHA256};

/// How long it is.
pub(crate) const LENGTH: usize = 32 << 20;
const CHUNK: usize = 48 * 1024;

/// The bytes from `at` on, different at each `seed`.
fn chunk(seed: u8, at: usize) -> Bytes {
    let length = CHUNK.min(LENGTH - at);
    let byte = |at: usize| (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0] ^ seed;
    (at..at + length).map(byte).collect()
}

/// It, to be sent without a length that is known before.
pub(crate) fn body(seed: u8) -> Body {
    let chunks = (0..LENGTH).step_by(CHUNK).map(move |at| Ok::<_, Infallible>(chunk(seed, at)));
    Body::from_stream(stream::iter(chunks))
}

/// What its hash is.
pub(crate) fn hash(seed: u8) -> String {
    let mut hasher = Hasher::default();
    (0..LENGTH).step_by(CHUNK).for_each(|at| hasher.add(&chunk(seed, at)));
    hasher.finish().1
}

/// The length and the hash of what is added to it.
pub(crate) struct Hasher {
    context: Context,
    length: usize,
}

impl Default for Hasher {
    fn default() -> Self {
        Self { context: Context::new(&SHA256), length: 0 }
    }
}

impl Hasher {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.length += bytes.len();
    }

    pub(crate) fn finish(self) -> (usize, String) {
        let hash = self.context.finish();
        (self.length, hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}
