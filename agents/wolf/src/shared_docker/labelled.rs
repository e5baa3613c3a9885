//! What is made through the socket carries the sandbox's labels: the body of
//! such a request is read whole, understood, and written anew. Pure.

use serde_json::{Map, Value};
use wolfpack_types::{SandboxId, WolfId};

use crate::sandbox::labels::{SIBLING_OF, SIBLING_WOLF};

/// What makes something that stays: containers, networks, volumes.
const MADE: [&str; 3] = ["containers/create", "networks/create", "volumes/create"];

/// A sandbox's labels on what it makes.
#[derive(Debug, Clone)]
pub(super) struct Labels {
    labels: [(&'static str, String); 2],
}

impl Labels {
    pub(super) fn of(wolf: &WolfId, sandbox: &SandboxId) -> Self {
        Self { labels: [(SIBLING_OF, sandbox.to_string()), (SIBLING_WOLF, wolf.to_string())] }
    }

    /// The body with the labels; ours win over what is there.
    ///
    /// # Errors
    /// When it is not an object, or its labels are none; in words for people.
    pub(super) fn add(&self, body: &[u8]) -> Result<Vec<u8>, String> {
        let mut body: Map<String, Value> = match body {
            // The engine takes a volume without a body.
            [] => Map::new(),
            body => serde_json::from_slice(body)
                .map_err(|error| format!("the body is not a JSON object: {error}"))?,
        };
        // The engine does not mind the case of a field's name; two spellings
        // would leave it to choose.
        let mut labels = Map::new();
        let spelled: Vec<String> =
            body.keys().filter(|key| key.eq_ignore_ascii_case("Labels")).cloned().collect();
        for key in spelled {
            match body.remove(&key) {
                Some(Value::Object(found)) => labels.extend(found),
                Some(Value::Null) | None => {}
                Some(_) => return Err("Labels must be an object".to_owned()),
            }
        }
        for (key, value) in &self.labels {
            labels.insert((*key).to_owned(), Value::String(value.clone()));
        }
        body.insert("Labels".to_owned(), Value::Object(labels));
        serde_json::to_vec(&body).map_err(|error| error.to_string())
    }
}

/// Whether a request to this path makes something that stays.
pub(super) fn makes(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let versioned = parts.first().is_some_and(|first| {
        first.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    let rest = parts.get(usize::from(versioned)..).unwrap_or_default().join("/");
    MADE.contains(&rest.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_stays_is_labelled_whatever_it_said() {
        let labels = Labels::of(&WolfId::parse("w1").unwrap(), &SandboxId::parse("s1").unwrap());
        let add = |body: Value| -> Value {
            serde_json::from_slice(&labels.add(body.to_string().as_bytes()).unwrap()).unwrap()
        };
        let ours = json!({"dev.wolfpack.sibling-of": "s1", "dev.wolfpack.wolf": "w1"});
        assert_eq!(add(json!({"Image": "x"})), json!({"Image": "x", "Labels": ours}));
        assert_eq!(add(json!({"Labels": null}))["Labels"], ours);
        let said = add(json!({
            "labels": {"dev.wolfpack.sibling-of": "s2", "mine": "1"}, "LABELS": {"too": "2"},
            "HostConfig": {"Binds": ["/:/host"]},
        }));
        assert_eq!(said["Labels"]["dev.wolfpack.sibling-of"], "s1");
        assert_eq!(
            (said["Labels"]["mine"].as_str(), said["Labels"]["too"].as_str()),
            (Some("1"), Some("2"))
        );
        assert!(said.get("labels").is_none() && said.get("LABELS").is_none());
        assert_eq!(said["HostConfig"]["Binds"][0], "/:/host", "the rest is as it was");
        assert!(labels.add(b"").is_ok());
        for odd in ["[]", "1", "{", r#"{"Labels": []}"#] {
            assert!(labels.add(odd.as_bytes()).is_err(), "{odd}");
        }
    }

    #[test]
    fn only_what_makes_something_is_read() {
        for path in [
            "/v1.41/containers/create",
            "/containers/create",
            "/v1.24//networks/create/",
            "/volumes/create",
        ] {
            assert!(makes(path), "{path}");
        }
        for path in
            ["/v1.41/containers/x/start", "/containers/json", "/images/create", "/", "/v1/x"]
        {
            assert!(!makes(path), "{path}");
        }
    }
}
