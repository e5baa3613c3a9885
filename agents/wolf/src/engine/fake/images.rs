//! The images of the fake engine. Each has one name, and its id is made of it.

use std::io::Read as _;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use serde_json::{Value, json};

use super::FakeEngine;
use super::api::{error, ok, streamed};

/// The largest archive.
pub(super) const ARCHIVE: usize = 256 << 20;

/// The id of an image.
pub(super) fn id(name: &str) -> String {
    format!("sha256:{name}")
}

/// The name in a reference: an id is made of it, and one without a tag has
/// the usual one.
fn name_of(reference: &str) -> String {
    match reference.strip_prefix("sha256:") {
        Some(name) => name.to_owned(),
        None => crate::engine::image::with_tag(reference),
    }
}

pub(super) fn list(engine: &FakeEngine) -> Value {
    let state = engine.state.lock();
    let image = |name: &String| {
        json!({
            "Id": id(name), "ParentId": "", "RepoTags": [name], "RepoDigests": [],
            "Created": 1_700_000_000, "Size": 1_024, "SharedSize": -1, "Labels": {},
            "Containers": -1,
        })
    };
    state.images.keys().map(image).collect()
}

pub(super) fn inspect(engine: &FakeEngine, reference: &str) -> Response {
    let name = name_of(reference);
    match engine.state.lock().images.get(&name) {
        Some(config) => ok(&json!({
            "Id": id(&name), "Config": config, "RepoTags": [name], "RepoDigests": [], "Size": 1_024,
        })),
        None => error(404, &format!("No such image: {reference}")),
    }
}

/// Reads the whole archive first, as engines do.
pub(super) async fn load(engine: &FakeEngine, body: Body) -> Response {
    let archive = match axum::body::to_bytes(body, ARCHIVE).await {
        Ok(archive) => archive,
        Err(broken) => return error(500, &format!("unexpected EOF: {broken}")),
    };
    let Some(names) = names(&archive) else {
        return error(500, "the archive has no manifest");
    };
    let mut state = engine.state.lock();
    for name in &names {
        state.images.insert(name.clone(), json!({"Cmd": ["sleep", "infinity"]}));
    }
    let lines = names.into_iter().map(|name| {
        let line = json!({"stream": format!("Loaded image: {name}\n")});
        Ok::<_, std::io::Error>(Bytes::from(format!("{line}\n")))
    });
    streamed(stream::iter(lines.collect::<Vec<_>>()))
}

/// The names in an archive's manifest.
fn names(archive: &[u8]) -> Option<Vec<String>> {
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().ok()? {
        let mut entry = entry.ok()?;
        if entry.path().ok()?.to_str() == Some("manifest.json") {
            let mut text = String::new();
            entry.read_to_string(&mut text).ok()?;
            let manifest: Value = serde_json::from_str(&text).ok()?;
            let images = manifest.as_array()?.iter();
            let tags = images.filter_map(|image| image["RepoTags"].as_array()).flatten();
            return Some(tags.filter_map(|tag| tag.as_str().map(str::to_owned)).collect());
        }
    }
    None
}

pub(super) fn remove(engine: &FakeEngine, reference: &str) -> Response {
    let name = name_of(reference);
    let mut state = engine.state.lock();
    if !state.images.contains_key(&name) {
        return error(404, &format!("No such image: {reference}"));
    }
    if state.containers.values().any(|container| container.request["Image"] == name.as_str()) {
        return error(409, "conflict: unable to remove: a container is using its image");
    }
    state.images.remove(&name);
    drop(state);
    ok(&json!([{"Untagged": name}]))
}

/// An archive as `docker save` writes it, with one layer of this many bytes.
#[must_use]
pub fn archive(name: &str, layer: usize) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        let _ = archive.append_data(&mut header, path, content);
    };
    let content: Vec<u8> = (0..layer).map(|at| u8::try_from(at * 7 % 251).unwrap_or(0)).collect();
    add("layer/layer.tar", &content);
    let manifest =
        json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer/layer.tar"]}]);
    add("manifest.json", manifest.to_string().as_bytes());
    archive.into_inner().unwrap_or_default()
}
