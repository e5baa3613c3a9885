//! The token that names this sandbox and boot.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};

/// The share of a token's life after which it is refreshed.
const REFRESH_AT: f64 = 0.8;

/// A sandbox token. Only its times are read here; whether it is genuine is for
/// those it is shown to.
#[derive(Clone)]
pub struct Token {
    text: SecretString,
    issued: SystemTime,
    expires: SystemTime,
}

/// A text that is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not three parts with a JSON object in the second.
    #[error("it is not a JSON web token")]
    Shape,
    /// It does not say from when until when it works.
    #[error("it has no iat and exp")]
    Times,
}

#[derive(serde::Deserialize)]
struct Times {
    iat: u64,
    exp: u64,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.text.expose_secret() == other.text.expose_secret()
    }
}

impl Token {
    /// Reads a token; white space around it does not count.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let mut parts = text.split('.');
        let (Some(_), Some(claims), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Shape);
        };
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_not_base64| TokenError::Shape)?;
        let times: Times =
            serde_json::from_slice(&claims).map_err(|_no_times| TokenError::Times)?;
        let time = |seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        match (time(times.iat), time(times.exp)) {
            (Some(issued), Some(expires)) => Ok(Self { text: text.into(), issued, expires }),
            _ => Err(TokenError::Times),
        }
    }

    /// The token itself, for an `authorization` header.
    #[must_use]
    pub fn secret(&self) -> &SecretString {
        &self.text
    }

    /// When it stops working.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// How long from `now` until it should be refreshed: at four fifths of its
    /// life; zero when that is past.
    #[must_use]
    pub fn refresh_in(&self, now: SystemTime) -> Duration {
        let life = self.expires.duration_since(self.issued).unwrap_or_default();
        let due = self.issued + life.mul_f64(REFRESH_AT);
        due.duration_since(now).unwrap_or_default()
    }
}

/// Writes a token beside its place and moves it there.
pub(super) fn store(folder: &Path, name: &str, token: &Token) -> io::Result<()> {
    let fresh = folder.join(format!(".{name}.new"));
    // One that an earlier attempt left; create_new then follows no link.
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(token.secret().expose_secret().as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, folder.join(name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::boot::BootDir;

    fn token(iat: u64, exp: u64) -> String {
        let claims =
            URL_SAFE_NO_PAD.encode(format!(r#"{{"sub":"sandboxes/s","iat":{iat},"exp":{exp}}}"#));
        format!("e30.{claims}.c2ln")
    }

    #[test]
    fn it_is_refreshed_at_four_fifths_of_its_life() {
        let token = Token::parse(&format!(" {}\n", token(1000, 2000))).unwrap();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(token.refresh_in(at(1000)), Duration::from_secs(800));
        assert_eq!(token.refresh_in(at(1799)), Duration::from_secs(1));
        assert_eq!(token.refresh_in(at(5000)), Duration::ZERO);
        assert_eq!(token.expires(), at(2000));
        assert!(!format!("{token:?}").contains("e30"), "a token is not printed");
    }

    #[test]
    fn other_texts_are_refused() {
        let without = format!("e30.{}.x", URL_SAFE_NO_PAD.encode("{}"));
        for bad in ["", "a.b", "a.!.c", "a.b.c.d", without.as_str(), &token(0, u64::MAX)] {
            assert!(Token::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn it_is_replaced_in_one_step_and_stays_private() {
        let folder = tempfile::tempdir().unwrap();
        let dir = BootDir::at(folder.path());
        std::fs::write(folder.path().join("token"), token(1, 2)).unwrap();
        // A link that somebody left in the way is not followed.
        let trap = folder.path().join("trap");
        std::os::unix::fs::symlink(&trap, folder.path().join(".token.new")).unwrap();
        let fresh = Token::parse(&token(3, 4)).unwrap();
        dir.store_token(&fresh).unwrap();
        assert_eq!(dir.token().unwrap(), fresh);
        let mode = std::fs::metadata(folder.path().join("token")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!trap.exists());
    }
}
