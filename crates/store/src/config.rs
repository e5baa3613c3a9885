//! Where a service keeps its rows.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};
use wolfpack_runtime::config::{Validate, mask_url};

use crate::engine::Engine;
use crate::error::StoreError;

/// The section `database` of a service's configuration. Serialized, the
/// password in the URL is masked.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `sqlite:///var/lib/wolfpack/registry.db`, `sqlite::memory:` or
    /// `postgres://user:password@host/database`. There is no default.
    #[serde(serialize_with = "masked")]
    pub url: String,
    /// A file that holds the URL, instead of `url`; its password then stays out
    /// of the configuration.
    pub url_file: Option<PathBuf>,
    /// The most connections of this process. Default: 16. In memory it is one.
    pub max_connections: u32,
    /// The PostgreSQL schema of this service, made when it is missing. SQLite
    /// has a file per service instead.
    pub schema: Option<String>,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self { url: String::new(), url_file: None, max_connections: 16, schema: None }
    }
}

impl std::fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseConfig")
            .field("url", &mask_url(&self.url))
            .field("url_file", &self.url_file)
            .field("max_connections", &self.max_connections)
            .field("schema", &self.schema)
            .finish()
    }
}

fn masked<S: Serializer>(url: &str, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&mask_url(url))
}

impl DatabaseConfig {
    /// A database that is gone with the process.
    #[must_use]
    pub fn memory() -> Self {
        Self::at("sqlite::memory:")
    }

    /// A SQLite file, made when it is missing.
    #[must_use]
    pub fn sqlite(path: &Path) -> Self {
        Self::at(&format!("sqlite://{}", path.display()))
    }

    /// A schema of a PostgreSQL database.
    #[must_use]
    pub fn postgres(url: &str, schema: &str) -> Self {
        Self { schema: Some(schema.to_owned()), ..Self::at(url) }
    }

    fn at(url: &str) -> Self {
        Self { url: url.to_owned(), ..Self::default() }
    }

    /// The URL, from its file if it has one, as sea-orm takes it.
    pub(crate) fn resolved_url(&self) -> Result<String, StoreError> {
        let url = match &self.url_file {
            None => self.url.clone(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| {
                    StoreError::Config(format!("{} cannot be read: {error}", path.display()))
                })?
                .trim()
                .to_owned(),
        };
        match Engine::of_url(&url) {
            Some(_) => Ok(url.replacen("postgresql://", "postgres://", 1)),
            None => Err(StoreError::Config(
                "the database url begins neither with sqlite: nor with postgres://".to_owned(),
            )),
        }
    }
}

impl Validate for DatabaseConfig {
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        match (&self.url_file, self.url.as_str()) {
            (None, "") => faults.push(
                "database.url is empty; write sqlite:///path/to/file.db or postgres://host/database"
                    .to_owned(),
            ),
            (Some(_), "") => {}
            (Some(_), _) => faults.push("give database.url or database.url_file, not both".to_owned()),
            (None, url) if Engine::of_url(url).is_none() => {
                faults.push("database.url must begin with sqlite: or postgres://".to_owned());
            }
            (None, _) => {}
        }
        if self.max_connections == 0 {
            faults.push("database.max_connections must be at least 1".to_owned());
        }
        if let Some(schema) = &self.schema {
            let plain = schema.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
            if !plain || !(1..=63).contains(&schema.len()) {
                faults.push("database.schema must be 1 to 63 of a-z, 0-9 and _".to_owned());
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_and_good_ones_have_none() {
        assert!(DatabaseConfig::memory().faults().is_empty());
        assert!(DatabaseConfig::sqlite(Path::new("/a/b.db")).faults().is_empty());
        assert!(DatabaseConfig::postgres("postgres://h/d", "registry").faults().is_empty());
        assert_eq!(DatabaseConfig::default().faults().len(), 1);
        let bad =
            DatabaseConfig { max_connections: 0, ..DatabaseConfig::postgres("mysql://h", "a;b") };
        assert_eq!(bad.faults().len(), 3);
    }

    #[test]
    fn the_password_is_neither_serialized_nor_debugged() {
        let config = DatabaseConfig::postgres("postgres://me:hush@h/d", "registry");
        assert!(!format!("{config:?}").contains("hush"));
        assert!(!toml::to_string(&config).unwrap().contains("hush"));
    }
}
