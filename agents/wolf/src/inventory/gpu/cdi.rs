//! Which devices the engine can inject by the Container Device Interface: the
//! names of the specifications in its folders, and which of them is exactly one
//! of our GPUs.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use yaml_rust2::{Yaml, YamlLoader};

/// The largest specification that is read; real ones are some tens of KiB.
const MOST: u64 = 4 << 20;

/// A device that a specification names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdiDevice {
    /// `vendor/class=name`.
    pub name: String,
    /// The device nodes that it brings, as paths of the host.
    pub nodes: Vec<PathBuf>,
}

/// A specification as far as it matters here.
#[derive(Debug, Default, Deserialize)]
struct Spec {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    devices: Vec<SpecDevice>,
}

#[derive(Debug, Default, Deserialize)]
struct SpecDevice {
    #[serde(default)]
    name: String,
    #[serde(default, rename = "containerEdits")]
    edits: Edits,
}

#[derive(Debug, Default, Deserialize)]
struct Edits {
    #[serde(default, rename = "deviceNodes")]
    nodes: Vec<Node>,
}

#[derive(Debug, Default, Deserialize)]
struct Node {
    #[serde(default)]
    path: String,
    #[serde(default, rename = "hostPath")]
    host_path: String,
}

/// All devices of the specifications in these folders. A file that cannot be
/// read names none.
#[must_use]
pub fn devices(folders: &[PathBuf]) -> Vec<CdiDevice> {
    let mut files: Vec<PathBuf> = folders
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
        .filter(|path| extension(path).is_some())
        .collect();
    files.sort();
    files.iter().filter_map(|path| read(path)).flat_map(of_spec).collect()
}

fn extension(path: &Path) -> Option<&str> {
    path.extension()?.to_str().filter(|extension| matches!(*extension, "json" | "yaml" | "yml"))
}

fn read(path: &Path) -> Option<Spec> {
    if fs::metadata(path).ok()?.len() > MOST {
        tracing::warn!(path = %path.display(), "a CDI specification is too large to be one");
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    let spec = if extension(path) == Some("json") {
        serde_json::from_str(&text).map_err(|error| error.to_string())
    } else {
        from_yaml(&text)
    };
    spec.map_err(|error| {
        tracing::warn!(path = %path.display(), error, "a CDI specification cannot be read");
    })
    .ok()
}

fn from_yaml(text: &str) -> Result<Spec, String> {
    let documents = YamlLoader::load_from_str(text).map_err(|error| error.to_string())?;
    let first = documents.first().ok_or("it is empty")?;
    serde_json::from_value(json(first)).map_err(|error| error.to_string())
}

/// Plain data of YAML as JSON. Names of devices may look like numbers.
fn json(yaml: &Yaml) -> serde_json::Value {
    use serde_json::Value;
    match yaml {
        Yaml::String(text) | Yaml::Real(text) => Value::String(text.clone()),
        Yaml::Integer(number) => Value::String(number.to_string()),
        Yaml::Boolean(set) => Value::Bool(*set),
        Yaml::Array(items) => Value::Array(items.iter().map(json).collect()),
        Yaml::Hash(fields) => Value::Object(
            fields
                .iter()
                .filter_map(|(key, value)| Some((key.as_str()?.to_owned(), json(value))))
                .collect(),
        ),
        Yaml::Alias(_) | Yaml::Null | Yaml::BadValue => Value::Null,
    }
}

fn of_spec(spec: Spec) -> Vec<CdiDevice> {
    let Spec { kind, devices } = spec;
    let named = devices.into_iter().filter(|device| !device.name.is_empty() && !kind.is_empty());
    named
        .map(|device| CdiDevice {
            name: format!("{kind}={}", device.name),
            nodes: device
                .edits
                .nodes
                .into_iter()
                .map(|node| if node.host_path.is_empty() { node.path } else { node.host_path })
                .map(PathBuf::from)
                .collect(),
        })
        .collect()
}

/// The name that injects one GPU and no other. First by its UUID, whose meaning
/// does not change; else by the nodes it brings, since a name such as `0` may be
/// another device tomorrow. `others` are nodes of other GPUs.
#[must_use]
pub fn name_of(
    devices: &[CdiDevice],
    kind: &str,
    uuid: Option<&str>,
    own: &[PathBuf],
    others: &[PathBuf],
) -> Option<String> {
    let of_kind =
        |device: &&CdiDevice| device.name.split_once('=').is_some_and(|(found, _)| found == kind);
    let foreign = |device: &CdiDevice| device.nodes.iter().any(|node| others.contains(node));
    let candidates: Vec<&CdiDevice> =
        devices.iter().filter(of_kind).filter(|device| !foreign(device)).collect();
    let by_uuid = uuid.and_then(|uuid| {
        let name = format!("{kind}={uuid}");
        candidates.iter().find(|device| device.name == name)
    });
    let by_nodes =
        || candidates.iter().find(|device| own.iter().any(|node| device.nodes.contains(node)));
    by_uuid.or_else(by_nodes).map(|device| device.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NVIDIA: &str = r#"---
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
    - path: /dev/dri/card1
- name: 1
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia1
- name: GPU-b
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia1
- name: all
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
    - path: /dev/nvidia1
containerEdits:
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  deviceNodes:
  - path: /dev/nvidiactl
"#;

    fn nodes(paths: &[&str]) -> Vec<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn the_name_of_exactly_one_gpu_is_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("nvidia.yaml"), NVIDIA).unwrap();
        fs::write(
            dir.path().join("amd.json"),
            r#"{"kind":"amd.com/gpu","devices":[{"name":"0","containerEdits":{"deviceNodes":[{"path":"/dev/x","hostPath":"/dev/dri/renderD128"}]}}]}"#,
        )
        .unwrap();
        fs::write(dir.path().join("broken.json"), "{").unwrap();
        fs::write(dir.path().join("broken.yaml"), "a: [").unwrap();
        fs::write(dir.path().join("readme.txt"), NVIDIA).unwrap();
        let found = devices(&[dir.path().join("absent"), dir.path().to_owned()]);
        assert_eq!(found.len(), 5);
        let name = |uuid, own: &[&str], others: &[&str]| {
            name_of(&found, "nvidia.com/gpu", uuid, &nodes(own), &nodes(others))
        };
        let (zero, one) = (["/dev/nvidia0"], ["/dev/nvidia1"]);
        assert_eq!(name(Some("GPU-b"), &one, &zero).unwrap(), "nvidia.com/gpu=GPU-b");
        assert_eq!(name(Some("GPU-a"), &zero, &one).unwrap(), "nvidia.com/gpu=0", "never all");
        assert_eq!(name(Some("GPU-c"), &["/dev/nvidia2"], &["/dev/nvidia0"]), None);
        assert_eq!(name(Some("all"), &zero, &one).unwrap(), "nvidia.com/gpu=0");
        let render = nodes(&["/dev/dri/renderD128"]);
        assert_eq!(name_of(&found, "amd.com/gpu", None, &render, &[]).unwrap(), "amd.com/gpu=0");
        assert_eq!(name_of(&found, "intel.com/gpu", None, &render, &[]), None);
    }
}
