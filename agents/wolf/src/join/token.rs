//! A join token: `wpj_{id}_{secret}_{sha256 of the CA's certificate, hex}`.

use secrecy::{ExposeSecret as _, SecretString};

const PREFIX: &str = "wpj_";

/// A join token, read.
#[derive(Debug, Clone)]
pub struct JoinToken {
    /// The whole of it, as the registry takes it.
    pub token: SecretString,
    /// Hash of the CA that the gateway must show.
    pub ca_sha256: [u8; 32],
}

/// A string is not a join token. Says nothing of the string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("that is not a join token: copy it whole from the answer of CreateJoinToken")]
pub struct NotAJoinToken;

impl JoinToken {
    /// Reads a token.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(token: &SecretString) -> Result<Self, NotAJoinToken> {
        let text = token.expose_secret().trim();
        let parts: Vec<&str> = text.strip_prefix(PREFIX).ok_or(NotAJoinToken)?.split('_').collect();
        let [id, secret, hash] = parts[..] else { return Err(NotAJoinToken) };
        if id.is_empty() || secret.is_empty() {
            return Err(NotAJoinToken);
        }
        let hash = data_encoding::HEXLOWER_PERMISSIVE.decode(hash.as_bytes());
        let ca_sha256 = hash.ok().and_then(|hash| hash.try_into().ok()).ok_or(NotAJoinToken)?;
        Ok(Self { token: text.to_owned().into(), ca_sha256 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_tokens_are_read() {
        let hash = "ab".repeat(32);
        let good = JoinToken::parse(&format!(" wpj_1_s3cret_{hash}\n").into()).unwrap();
        assert_eq!(good.ca_sha256, [0xab; 32]);
        assert_eq!(good.token.expose_secret(), format!("wpj_1_s3cret_{hash}"));
        for bad in [
            String::new(),
            format!("wp_1_s_{hash}"),
            format!("wpj_1_s_{}", &hash[2..]),
            format!("wpj_1_{hash}"),
            format!("wpj_1__{hash}"),
            format!("wpj_1_s_x_{hash}"),
        ] {
            assert!(JoinToken::parse(&bad.clone().into()).is_err(), "{bad}");
        }
    }
}
