//! Configuration in layers: the type's own default, then a TOML file, then the
//! environment (`PREFIX__SECTION__KEY`). All faults are told at once.
//!
//! Structs carry `#[serde(default, deny_unknown_fields)]`; secrets are
//! `Option<SecretString>` with `serialize_with = "wolfpack_runtime::config::mask"`
//! or a `*_file` beside them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use config::{Map, Value, ValueKind};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};

/// A configuration that knows its own rules.
pub trait Validate {
    /// Every fault, not the first; empty when it is usable. A fault names the
    /// key and says what to write there.
    fn faults(&self) -> Vec<String>;
}

/// A configuration that cannot be used. Its text lists every fault.
#[derive(Debug)]
pub struct ConfigError {
    faults: Vec<String>,
}

impl ConfigError {
    fn one(fault: impl Into<String>) -> Self {
        Self { faults: vec![fault.into()] }
    }

    /// Every fault.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.faults
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} fault(s):", self.faults.len())?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  - {fault}"))
    }
}

impl std::error::Error for ConfigError {}

/// Loads a configuration: `T::default()`, then `file`, then the variables of
/// the environment that begin with `env_prefix` and two underscores. A value
/// that begins with `[` or `{` is read as TOML, so lists fit into a variable.
///
/// # Errors
/// With every fault that was found: a file that cannot be read or parsed, a
/// key that is unknown or of another type, and all that `T::faults` names.
pub fn load<T>(env_prefix: &str, file: Option<&Path>) -> Result<T, ConfigError>
where
    T: DeserializeOwned + Serialize + Default + Validate,
{
    load_from(env_prefix, file, variables())
}

/// The environment of the process, but for what is no text.
pub fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// As [`load`], with these variables in place of the environment.
///
/// # Errors
/// As [`load`].
pub fn load_from<T>(
    env_prefix: &str,
    file: Option<&Path>,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<T, ConfigError>
where
    T: DeserializeOwned + Serialize + Default + Validate,
{
    let defaults = serde_json::to_value(T::default())
        .map_err(|error| ConfigError::one(format!("the default cannot be written: {error}")))?;
    let defaults = layer(defaults, "the default");
    let mut faults = Vec::new();
    let mut layers = Vec::new();
    if let Some(path) = file {
        let named = |value| (path.display().to_string(), value);
        read_file(path).map_or_else(|fault| faults.push(fault), |value| layers.push(named(value)));
    }
    for (name, value) in sorted(env_prefix, variables) {
        match variable(env_prefix, &name, &value) {
            Ok(value) => layers.push((name, value)),
            Err(fault) => faults.push(fault),
        }
    }
    let mut merged = defaults.clone();
    for (_, value) in &layers {
        merge(&mut merged, value.clone());
    }
    match merged.try_deserialize::<T>() {
        Ok(loaded) => {
            faults.extend(loaded.faults());
            if faults.is_empty() {
                return Ok(loaded);
            }
        }
        Err(error) => {
            let guilty = guilty::<T>(&defaults, &layers);
            faults.extend(if guilty.is_empty() { vec![error.to_string()] } else { guilty });
        }
    }
    Err(ConfigError { faults })
}

/// The parser stops at the first key that is unknown or of another type. Each
/// layer tried alone tells which of them are at fault, all at once.
fn guilty<T: DeserializeOwned>(defaults: &Value, layers: &[(String, Value)]) -> Vec<String> {
    let alone = |(name, value): &(String, Value)| {
        let mut merged = defaults.clone();
        merge(&mut merged, value.clone());
        merged.try_deserialize::<T>().err().map(|error| format!("{name}: {error}"))
    };
    layers.iter().filter_map(alone).collect()
}

fn read_file(path: &Path) -> Result<Value, String> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{shown} cannot be read: {error}"))?;
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| format!("{shown}: {}", error.to_string().trim_end()))?;
    let value = serde_json::to_value(table).map_err(|error| format!("{shown}: {error}"))?;
    Ok(layer(value, &shown))
}

/// The variables that are ours, in a fixed order.
fn sorted(
    env_prefix: &str,
    variables: impl Iterator<Item = (String, String)>,
) -> Vec<(String, String)> {
    let start = format!("{env_prefix}__");
    let mut ours: Vec<_> = variables.filter(|(name, _)| name.starts_with(&start)).collect();
    ours.sort();
    ours
}

/// One variable as a tree with one leaf.
fn variable(env_prefix: &str, name: &str, text: &str) -> Result<Value, String> {
    let path = name.get(env_prefix.len() + 2..).unwrap_or_default().to_ascii_lowercase();
    if path.is_empty() || path.split("__").any(str::is_empty) {
        return Err(format!("{name} names no key; write {env_prefix}__SECTION__KEY"));
    }
    let leaf = if text.starts_with(['[', '{']) {
        let table: toml::Table = format!("value = {text}")
            .parse()
            .map_err(|error: toml::de::Error| format!("{name}: {}", error.message()))?;
        let value = serde_json::to_value(table).map_err(|error| format!("{name}: {error}"))?;
        layer(value["value"].clone(), name)
    } else {
        Value::new(Some(&name.to_owned()), text)
    };
    Ok(path.rsplit("__").fold(leaf, |inner, key| {
        let mut table = Map::new();
        table.insert(key.to_owned(), inner);
        Value::new(Some(&name.to_owned()), table)
    }))
}

/// A tree of values that remember where they came from.
fn layer(value: serde_json::Value, origin: &str) -> Value {
    use serde_json::Value as Json;
    let kind = match value {
        Json::Null => ValueKind::Nil,
        Json::Bool(value) => ValueKind::Boolean(value),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), _, _) => ValueKind::I64(value),
            (None, Some(value), _) => ValueKind::U64(value),
            (None, None, value) => ValueKind::Float(value.unwrap_or(f64::NAN)),
        },
        Json::String(value) => ValueKind::String(value),
        Json::Array(values) => {
            ValueKind::Array(values.into_iter().map(|value| layer(value, origin)).collect())
        }
        Json::Object(values) => ValueKind::Table(
            values.into_iter().map(|(key, value)| (key, layer(value, origin))).collect(),
        ),
    };
    Value::new(Some(&origin.to_owned()), kind)
}

/// Tables merge key by key; anything else replaces.
fn merge(base: &mut Value, over: Value) {
    if !matches!((&base.kind, &over.kind), (ValueKind::Table(_), ValueKind::Table(_))) {
        *base = over;
        return;
    }
    if let (ValueKind::Table(base), ValueKind::Table(over)) = (&mut base.kind, over.kind) {
        for (key, value) in over {
            match base.get_mut(&key) {
                Some(slot) => merge(slot, value),
                None => drop(base.insert(key, value)),
            }
        }
    }
}

/// A secret given in place or in a file of its own; the file's last line break
/// is not part of it. In place wins.
///
/// # Errors
/// When the file cannot be read or is empty.
pub fn secret_from(
    value: Option<SecretString>,
    file: Option<&Path>,
) -> Result<Option<SecretString>, io::Error> {
    if value.is_some() {
        return Ok(value);
    }
    let Some(path) = file else { return Ok(None) };
    let named = |kind, text: String| io::Error::new(kind, format!("{}: {text}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| named(e.kind(), e.to_string()))?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err(named(io::ErrorKind::InvalidData, "the secret is empty".to_owned()));
    }
    Ok(Some(SecretString::from(text.to_owned())))
}

/// What a masked secret is printed as.
pub const MASK: &str = "********";

/// Serializes a secret as a mask, or as absent.
///
/// # Errors
/// Only the serializer's own.
#[allow(clippy::ref_option, reason = "the signature serde asks for")]
pub fn mask<S: Serializer>(secret: &Option<SecretString>, to: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) if secret.expose_secret().is_empty() => to.serialize_some(""),
        Some(_) => to.serialize_some(MASK),
        None => to.serialize_none(),
    }
}

/// A URL with its password masked; anything else as it is.
#[must_use]
pub fn mask_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    match authority.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?.0, host)))
    {
        Some((user, host)) => format!("{scheme}://{user}:{MASK}@{host}{tail}"),
        None => url.to_owned(),
    }
}

/// The configuration as TOML, as `--dump-config` prints it.
///
/// # Errors
/// When it cannot be written as TOML.
pub fn dump<T: Serialize>(config: &T) -> Result<String, ConfigError> {
    toml::to_string_pretty(config)
        .map_err(|error| ConfigError::one(format!("it cannot be written as TOML: {error}")))
}

/// Adds a fault unless `path` is set.
pub fn require_path(faults: &mut Vec<String>, key: &str, path: &Path) {
    if path == PathBuf::new() {
        faults.push(format!("{key} is empty; write the path of the file"));
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
