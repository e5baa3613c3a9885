//! Who we are at the registry of an image. The account is sent with the one
//! pull that needs it and kept nowhere.

use bollard::Docker;
use serde_json::json;
use tonic::codegen::http::HeaderValue;

use crate::config::RegistryConfig;
use crate::engine::EngineError;
use crate::engine::images::registry_of;

/// What the engine reads the account from.
const HEADER: &str = "X-Registry-Auth";
/// The name that the public registry's accounts are known by.
const PUBLIC: &str = "https://index.docker.io/v1/";

/// A client whose calls carry the account for this image's registry, when
/// there is one.
pub(super) async fn client(
    client: &Docker,
    accounts: &[RegistryConfig],
    reference: &str,
) -> Result<Docker, EngineError> {
    let host = registry_of(reference);
    let Some(account) = accounts.iter().find(|account| account.host == host) else {
        return Ok(client.clone());
    };
    let unreadable = |why: String| {
        EngineError::Unreadable(format!("the password file of {host} cannot be used: {why}"))
    };
    let password = tokio::fs::read_to_string(&account.password_file).await;
    let password = password.map_err(|error| unreadable(error.to_string()))?;
    let header = header(&account.username, password.trim_end_matches(['\r', '\n']), host);
    let mut value = HeaderValue::try_from(header).map_err(|error| unreadable(error.to_string()))?;
    value.set_sensitive(true);
    Ok(client.clone().with_request_modifier(move |mut request| {
        request.headers_mut().insert(HEADER, value.clone());
        request
    }))
}

/// The account as engines read it: in the alphabet for addresses, which the
/// client library's own writer does not use.
fn header(username: &str, password: &str, host: &str) -> String {
    let server = if host == "docker.io" { PUBLIC } else { host };
    let account = json!({"username": username, "password": password, "serveraddress": server});
    data_encoding::BASE64URL.encode(account.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_password_survives_the_way_to_the_engine() {
        for password in ["plain", "~~~???>>>", "pässwörd\u{10ffff}"] {
            for name in ["a", "ab", "abc"] {
                let header = header(name, password, "docker.io");
                assert!(!header.contains(['+', '/']), "{header}");
                let read = data_encoding::BASE64URL.decode(header.as_bytes()).unwrap();
                let read: serde_json::Value = serde_json::from_slice(&read).unwrap();
                assert_eq!(read["password"], password);
                assert_eq!(read["serveraddress"], PUBLIC);
            }
        }
    }
}
