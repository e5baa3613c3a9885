//! The secret that a channel sends with every call.

use http::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::watch;

/// An API key or a token; one that is refreshed is watched.
#[derive(Clone)]
pub struct Bearer(Source);

#[derive(Clone)]
enum Source {
    Fixed(SecretString),
    Watched(watch::Receiver<SecretString>),
}

impl Bearer {
    /// The value of the `authorization` header; `None` for a secret that
    /// cannot be in a header.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let value = match &self.0 {
            Source::Fixed(secret) => header(secret),
            Source::Watched(secret) => header(&secret.borrow()),
        };
        value.ok()
    }
}

fn header(secret: &SecretString) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", secret.expose_secret().trim()))?;
    // Keeps it out of debug output and out of the compression table.
    value.set_sensitive(true);
    Ok(value)
}

impl From<SecretString> for Bearer {
    fn from(secret: SecretString) -> Self {
        Self(Source::Fixed(secret))
    }
}

impl From<watch::Receiver<SecretString>> for Bearer {
    fn from(secret: watch::Receiver<SecretString>) -> Self {
        Self(Source::Watched(secret))
    }
}
