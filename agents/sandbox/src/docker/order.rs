//! What the agent and the process that keeps the engine say to each other: the
//! order goes there as an argument, reports come back on its stdout, a line of
//! JSON each. The end of its stdin tells it to stop.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use wolfpack_types::sandbox_boot::SandboxBoot;

/// What kind of engine to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// How many engines are above it.
    pub depth: u8,
    /// Bytes its data may take.
    pub disk_bytes: Option<u64>,
    /// Networks that its own must not overlap, beside those it can see.
    #[serde(default)]
    pub avoid: Vec<Ipv4Net>,
    /// Its data: must be a volume.
    pub data: PathBuf,
    /// Its sockets, pid files and log.
    pub runtime: PathBuf,
    /// Environment of dockerd: `PATH` and proxies, no more. It is that of the
    /// keeping process: arguments are for all users of the sandbox to read, and
    /// a proxy's address may hold a password.
    #[serde(skip)]
    pub env: BTreeMap<String, String>,
    /// Whether it may only make room: its data was found too large.
    #[serde(default)]
    pub cleaning: bool,
}

/// Variables of the image and the user that reach dockerd.
const PASSED: [&str; 7] =
    ["PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"];

impl Order {
    /// The order of a boot.
    #[must_use]
    pub fn of(boot: &SandboxBoot, data: PathBuf, runtime: PathBuf) -> Self {
        let mut env: BTreeMap<String, String> = PASSED
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), boot.env.get(*name)?.clone())))
            .collect();
        env.entry("PATH".to_owned())
            .or_insert_with(|| crate::process::environment::DEFAULT_PATH.to_owned());
        env.insert("HOME".to_owned(), "/root".to_owned());
        let nested = boot.nested.as_ref();
        Self {
            depth: nested.map_or(1, |nested| nested.depth),
            disk_bytes: nested.and_then(|nested| nested.disk_bytes),
            avoid: nested.map(|nested| nested.avoid.clone()).unwrap_or_default(),
            data,
            runtime,
            env,
            cleaning: false,
        }
    }
}

/// How much of its bound an engine's data takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskUse {
    /// Bytes on disk now.
    pub used: u64,
    /// Bytes allowed.
    pub limit: u64,
}

/// Why there is no engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The image has none.
    Absent,
    /// It was there and did not come up, or ended.
    Failed,
}

/// What the process that keeps the engine tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The engine answers on its socket.
    Ready {
        /// Where.
        socket: PathBuf,
        /// Its version.
        version: String,
        /// Its storage driver.
        storage_driver: String,
        /// From the order to here.
        took_ms: u64,
    },
    /// There is none, and why; the last report.
    Down {
        /// Of which kind.
        cause: Cause,
        /// In words for the user.
        why: String,
    },
    /// Its data grew beyond the bound: containers and engine were stopped; the
    /// last report.
    Full(DiskUse),
    /// Its data is within the bound again.
    Roomy(DiskUse),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(env: &str) -> SandboxBoot {
        let text = format!(
            r#"{{"sandbox":"s1","project":"p1","execution":"e1","argv":[],"user":"","env":{env},
            "cwd":"/","desktop":false,"broker":"https://wolfpack.internal:8444",
            "gateway":"https://wolfpack.internal:8443","socket_uid":0,"docker":"nested",
            "nested":{{"depth":2,"disk_bytes":7,"avoid":["10.0.0.0/8"]}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn an_engine_gets_the_path_and_proxies_and_nothing_else_of_the_sandbox() {
        let boot = boot(r#"{"SECRET":"x","https_proxy":"http://p:1"}"#);
        let order = Order::of(&boot, "/d".into(), "/r".into());
        assert_eq!((order.depth, order.disk_bytes), (2, Some(7)));
        assert_eq!(order.avoid, ["10.0.0.0/8".parse::<Ipv4Net>().unwrap()]);
        let names: Vec<&str> = order.env.keys().map(String::as_str).collect();
        assert_eq!(names, ["HOME", "PATH", "https_proxy"]);
        let text = serde_json::to_string(&order).unwrap();
        assert!(!text.contains("p:1"), "{text}");
        let again = serde_json::from_str::<Order>(&text).unwrap();
        assert_eq!(Order { env: order.env.clone(), ..again }, order);
    }
}
