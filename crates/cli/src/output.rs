//! Tables for people, JSON for programs.

use std::io::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use prost_types::Timestamp;
use serde_json::Value;

use crate::failure::Failure;

/// A message of the API as JSON, by protobuf's own mapping: what `grpcurl`
/// shows, too. `type_name` is its full name.
pub(crate) fn json(type_name: &str, message: &impl Message) -> Result<Value, Failure> {
    let broken =
        |error: String| Failure::Local(format!("{type_name} cannot be shown as JSON: {error}"));
    let pool = pool().ok_or_else(|| broken("the descriptor set is damaged".to_owned()))?;
    let descriptor =
        pool.get_message_by_name(type_name).ok_or_else(|| broken("unknown".to_owned()))?;
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .map_err(|error| broken(error.to_string()))?;
    let options = SerializeOptions::new().skip_default_fields(false);
    dynamic
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(|error| broken(error.to_string()))
}

fn pool() -> Option<&'static DescriptorPool> {
    static POOL: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(wolfpack_proto::DESCRIPTOR_SET).ok()).as_ref()
}

/// Prints a line on stdout. A reader that has gone, such as `head`, ends the
/// command without a word, as it does every well-behaved program.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    Ok(writeln!(stdout, "{text}").and_then(|()| stdout.flush())?)
}

/// Prints JSON, indented for a terminal's sake; one object.
pub(crate) fn print_json(value: &Value) -> Result<(), Failure> {
    line(&format!("{value:#}"))
}

/// Prints a table without borders, which `cut` and `awk` can read, too.
pub(crate) fn print_table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    for row in rows {
        table.add_row(row.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for text in table.to_string().lines() {
        line(text.trim_end())?;
    }
    Ok(())
}

/// Prints facts, one a line, without those that are empty.
pub(crate) fn print_facts(facts: &[(&str, String)]) -> Result<(), Failure> {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        let mut lines = value.lines();
        line(&format!("{name:width$}  {}", lines.next().unwrap_or_default()))?;
        lines.try_for_each(|more| line(&format!("{:width$}  {more}", "")))?;
    }
    Ok(())
}

/// How long ago, in one or two units.
pub(crate) fn age(time: Option<&Timestamp>) -> String {
    let Some(passed) = time.and_then(since) else { return String::new() };
    let seconds = passed.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn since(time: &Timestamp) -> Option<Duration> {
    let then = std::time::SystemTime::try_from(*time).ok()?;
    Some(wolfpack_runtime::clock::now().duration_since(then).unwrap_or_default())
}

/// An instant as RFC 3339.
pub(crate) fn instant(time: Option<&Timestamp>) -> String {
    time.and_then(|time| std::time::SystemTime::try_from(*time).ok())
        .map(|time| humantime::format_rfc3339_seconds(time).to_string())
        .unwrap_or_default()
}

/// An enum's name without its prefix, in lower case.
pub(crate) fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

/// Bytes in a unit that reads well.
pub(crate) fn amount(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// A map as `k=v,k=v`.
pub(crate) fn pairs(map: &std::collections::BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_proto::sandbox::v1 as pb;

    #[test]
    fn messages_become_canonical_json() {
        let sandbox = pb::Sandbox {
            name: "sandboxes/a".into(),
            display_name: "box".into(),
            status: Some(pb::SandboxStatus {
                state: pb::SandboxState::Running.into(),
                ..pb::SandboxStatus::default()
            }),
            create_time: Some(Timestamp { seconds: 1, nanos: 0 }),
            ..pb::Sandbox::default()
        };
        let value = json("wolfpack.sandbox.v1.Sandbox", &sandbox).unwrap();
        assert_eq!(value["name"], "sandboxes/a");
        assert_eq!(value["displayName"], "box");
        assert_eq!(value["status"]["state"], "SANDBOX_STATE_RUNNING");
        assert_eq!(value["createTime"], "1970-01-01T00:00:01Z");
        assert_eq!(value["labels"], serde_json::json!({}), "what is empty is there, too");
    }

    #[test]
    fn words_and_ages_are_short() {
        assert_eq!(word("SANDBOX_STATE_RUNNING", "SANDBOX_STATE_"), "running");
        let ago = |seconds| {
            let time = wolfpack_runtime::clock::now() - Duration::from_secs(seconds);
            age(Some(&Timestamp::from(time)))
        };
        assert_eq!(ago(5), "5s");
        assert_eq!(ago(600), "10m");
        assert_eq!(ago(3 * 86_400), "3d");
        assert_eq!(age(None), "");
    }
}
