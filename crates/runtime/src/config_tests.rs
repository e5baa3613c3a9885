use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use super::*;
use crate::telemetry::TelemetryConfig;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Inner {
    url: String,
    #[serde(with = "humantime_serde")]
    timeout: Duration,
    size: u32,
    listen: SocketAddr,
    extra: Option<SocketAddr>,
    names: Vec<String>,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            url: "sqlite::memory:".into(),
            timeout: Duration::from_secs(5),
            size: 8,
            listen: ([127, 0, 0, 1], 80).into(),
            extra: None,
            names: vec!["a".into()],
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Outer {
    inner: Inner,
    #[serde(serialize_with = "mask")]
    key: Option<SecretString>,
    telemetry: TelemetryConfig,
}

impl Validate for Outer {
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.inner.size == 0 {
            faults.push("inner.size must be at least 1".to_owned());
        }
        if self.inner.url.is_empty() {
            faults.push("inner.url is empty".to_owned());
        }
        faults
    }
}

fn with(file: Option<&str>, variables: &[(&str, &str)]) -> Result<Outer, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    if let Some(text) = file {
        std::fs::write(&path, text).unwrap();
    }
    let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    load_from("WP_TEST", file.map(|_| path.as_path()), variables)
}

#[test]
fn nothing_given_is_the_default() {
    let loaded = with(None, &[("OTHER__INNER__SIZE", "9")]).unwrap();
    assert_eq!(loaded.inner, Inner::default());
    assert!(loaded.key.is_none());
}

#[test]
fn the_environment_overrides_the_file_overrides_the_default() {
    let file = "[inner]\nsize = 9\nurl = \"file\"\nnames = [\"x\", \"y\"]\n[telemetry]\nfilter = \"debug\"\n";
    let loaded = with(
        Some(file),
        &[
            ("WP_TEST__INNER__URL", "env"),
            ("WP_TEST__INNER__EXTRA", "127.0.0.1:9"),
            ("WP_TEST__INNER__TIMEOUT", "2m"),
            ("WP_TEST__KEY", "hush"),
            ("WP_TEST__TELEMETRY__TRACE_SAMPLE_RATIO", "0.25"),
        ],
    )
    .unwrap();
    assert_eq!(loaded.inner.url, "env");
    assert_eq!(loaded.inner.size, 9);
    assert_eq!(loaded.inner.names, ["x", "y"]);
    assert_eq!(loaded.inner.timeout, Duration::from_secs(120));
    assert_eq!(loaded.inner.listen, Inner::default().listen);
    assert_eq!(loaded.inner.extra, Some(([127, 0, 0, 1], 9).into()));
    assert_eq!(loaded.telemetry.filter, "debug");
    assert!((loaded.telemetry.trace_sample_ratio - 0.25).abs() < f64::EPSILON);
    assert_eq!(loaded.key.unwrap().expose_secret(), "hush");
}

#[test]
fn a_list_fits_into_a_variable() {
    let loaded = with(None, &[("WP_TEST__INNER__NAMES", r#"["p", "q"]"#)]).unwrap();
    assert_eq!(loaded.inner.names, ["p", "q"]);
    assert!(with(None, &[("WP_TEST__INNER__NAMES", "[\"p\"")]).is_err());
}

#[test]
fn every_fault_is_told_at_once() {
    let error =
        with(None, &[("WP_TEST__INNER__SIZE", "0"), ("WP_TEST__INNER__URL", "")]).unwrap_err();
    assert_eq!(error.faults().len(), 2, "{error}");
    let text = error.to_string();
    assert!(text.contains("inner.size") && text.contains("inner.url"), "{text}");

    let error = with(None, &[("WP_TEST____X", "0"), ("WP_TEST__INNER__SIZE", "zero")]).unwrap_err();
    assert_eq!(error.faults().len(), 2, "{error}");
    assert!(error.to_string().contains("WP_TEST__INNER__SIZE"), "{error}");
}

#[test]
fn unknown_keys_are_refused_wherever_they_come_from() {
    let error = with(Some("[inner]\nsiez = 9\n"), &[]).unwrap_err().to_string();
    assert!(error.contains("siez") && error.contains("config.toml"), "{error}");
    let error = with(None, &[("WP_TEST__INNER__SIEZ", "9"), ("WP_TEST__INNER__SIZE", "x")]);
    let error = error.unwrap_err();
    assert_eq!(error.faults().len(), 2, "{error}");
    let error = error.to_string();
    assert!(
        error.contains("WP_TEST__INNER__SIEZ") && error.contains("WP_TEST__INNER__SIZE"),
        "{error}"
    );
    assert!(with(Some("inner = 3"), &[]).is_err());
}

#[test]
fn a_missing_or_broken_file_is_a_fault_with_its_name() {
    let missing = Path::new("/nonexistent/wolfpack.toml");
    let error = load_from::<Outer>("WP_TEST", Some(missing), std::iter::empty()).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/wolfpack.toml"), "{error}");
    assert!(with(Some("[inner\n"), &[]).unwrap_err().to_string().contains("config.toml"));
}

#[test]
fn secrets_are_masked_in_a_dump_and_read_from_files() {
    let loaded = with(None, &[("WP_TEST__KEY", "hush")]).unwrap();
    let dumped = dump(&loaded).unwrap();
    assert!(!dumped.contains("hush") && dumped.contains(MASK), "{dumped}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "from file\n").unwrap();
    let read = secret_from(None, Some(&path)).unwrap().unwrap();
    assert_eq!(read.expose_secret(), "from file");
    let read = secret_from(Some("in place".to_owned().into()), Some(&path)).unwrap().unwrap();
    assert_eq!(read.expose_secret(), "in place");
    std::fs::write(&path, "\n").unwrap();
    assert!(secret_from(None, Some(&path)).is_err());
    assert!(secret_from(None, None).unwrap().is_none());
}

#[test]
fn passwords_in_urls_are_masked() {
    assert_eq!(
        mask_url("postgres://me:p@ss@h:1/db?x=1"),
        format!("postgres://me:{MASK}@h:1/db?x=1")
    );
    assert_eq!(mask_url("postgres://me@h/db"), "postgres://me@h/db");
    assert_eq!(mask_url("sqlite:///a@b:c"), "sqlite:///a@b:c");
    assert_eq!(mask_url("sqlite::memory:"), "sqlite::memory:");
}
