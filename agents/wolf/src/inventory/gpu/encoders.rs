//! How many sessions a hardware encoder gives: facts of vendors, kept as data in
//! `encoders.json` beside their sources. A model that is not in it is unknown.

use std::sync::LazyLock;

use serde::Deserialize;
use wolfpack_types::capacity::EncoderCodec;

use super::Vendor;

/// What a device's encoder gives.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Encoder {
    /// The most sessions at a time; zero for no encoder.
    pub sessions: u32,
    /// Whether the driver counts them together with those of its like.
    pub pooled: bool,
    /// What it writes.
    pub codecs: Vec<EncoderCodec>,
}

/// The whole table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// Where the facts are from.
    sources: Vec<Source>,
    /// How many sessions of pooled devices a driver allows on a host.
    nvidia_pool: Vec<PoolRow>,
    /// The first row that matches is true.
    devices: Vec<DeviceRow>,
}

/// A document that facts are from.
#[derive(Debug, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its name.
    pub document: String,
    /// Who publishes it.
    pub publisher: String,
    /// The day the table was compared with it, `YYYY-MM-DD`; absent when it was
    /// made from what is known of it.
    pub compared: Option<String>,
    /// What it says that the table follows.
    pub says: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolRow {
    /// The first driver that allows so many, as `major.minor`; the last row
    /// whose driver is not newer counts.
    driver_from: String,
    sessions: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceRow {
    vendor: String,
    /// Words of which one must be in the model, whole and without regard to
    /// case; a word with a star at its end is a beginning.
    #[serde(default)]
    models: Vec<String>,
    /// PCI device ids, as `0x744c`.
    #[serde(default)]
    pci: Vec<String>,
    /// A name for a device whose driver tells none.
    #[serde(default)]
    name: Option<String>,
    sessions: u32,
    #[serde(default)]
    pooled: bool,
    #[serde(default)]
    codecs: Vec<EncoderCodec>,
}

static TABLE: LazyLock<Option<Table>> = LazyLock::new(|| {
    let read = serde_json::from_str(include_str!("encoders.json"));
    if let Err(error) = &read {
        tracing::error!(%error, "the table of encoders cannot be read");
    }
    read.ok()
});

/// Where the facts are from.
#[must_use]
pub fn sources() -> &'static [Source] {
    TABLE.as_ref().map_or(&[], |table| &table.sources)
}

/// The encoder of a device; `None` when the table does not know it.
#[must_use]
pub fn encoder_of(vendor: Vendor, model: &str, pci_device: Option<u64>) -> Option<Encoder> {
    let row = row(vendor, model, pci_device)?;
    Some(Encoder { sessions: row.sessions, pooled: row.pooled, codecs: row.codecs.clone() })
}

/// The name of a device whose driver tells none.
#[must_use]
pub fn name_of(vendor: Vendor, pci_device: u64) -> Option<String> {
    row(vendor, "", Some(pci_device))?.name.clone()
}

/// How many sessions the driver allows on all pooled devices of a host
/// together; `None` for a driver whose version cannot be read.
#[must_use]
pub fn nvidia_pool(driver_version: &str) -> Option<u32> {
    let driver = version(driver_version)?;
    let rows = TABLE.as_ref()?.nvidia_pool.iter();
    let older = rows.filter(|row| version(&row.driver_from).is_some_and(|from| from <= driver));
    older.map(|row| row.sessions).next_back()
}

fn row(vendor: Vendor, model: &str, pci_device: Option<u64>) -> Option<&'static DeviceRow> {
    let words: Vec<String> = model
        .split(|c: char| !c.is_ascii_alphanumeric())
        .map(str::to_ascii_lowercase)
        .filter(|word| !word.is_empty())
        .collect();
    let id = pci_device.map(|id| format!("{id:#06x}"));
    TABLE.as_ref()?.devices.iter().filter(|row| row.vendor == vendor.word()).find(|row| {
        id.as_ref().is_some_and(|id| row.pci.contains(id))
            || row.models.iter().any(|pattern| matches(pattern, &words))
    })
}

/// Whether the words of a pattern follow one another in a model.
fn matches(pattern: &str, words: &[String]) -> bool {
    let pattern: Vec<String> = pattern.split(' ').map(str::to_ascii_lowercase).collect();
    words.windows(pattern.len()).any(|window| {
        window.iter().zip(&pattern).all(|(word, wanted)| {
            wanted.strip_suffix('*').map_or(word == wanted, |begin| word.starts_with(begin))
        })
    })
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().split('.');
    let major = parts.next()?.parse().ok()?;
    Some((major, parts.next().and_then(|minor| minor.parse().ok()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_reads_and_every_fact_has_a_source() {
        let table = TABLE.as_ref().expect("encoders.json reads");
        assert!(!table.sources.is_empty());
        for source in &table.sources {
            let said = [&source.document, &source.publisher, &source.says];
            assert!(said.iter().all(|text| !text.is_empty()), "{source:?}");
            assert!(source.compared.as_ref().is_none_or(|day| day.len() == 10), "{source:?}");
        }
        for row in &table.devices {
            assert!(!row.models.is_empty() || !row.pci.is_empty(), "{row:?} matches nothing");
            assert_eq!(row.sessions == 0, row.codecs.is_empty(), "{row:?}");
            let vendors = [Vendor::Nvidia, Vendor::Amd, Vendor::Intel];
            assert!(vendors.iter().any(|vendor| vendor.word() == row.vendor), "{row:?}");
            assert!(!row.pooled || row.vendor == "nvidia", "only that driver counts for a host");
            let hex = |id: &String| id.len() == 6 && u64::from_str_radix(&id[2..], 16).is_ok();
            assert!(row.pci.iter().all(hex), "{row:?}");
        }
        let drivers: Vec<_> =
            table.nvidia_pool.iter().map(|row| version(&row.driver_from).unwrap()).collect();
        assert!(drivers.is_sorted() && drivers[0] == (0, 0));
    }

    #[test]
    fn sessions_by_model() {
        let sessions = |model: &str| {
            encoder_of(Vendor::Nvidia, model, None).map(|found| (found.sessions, found.pooled))
        };
        assert_eq!(sessions("NVIDIA A100-SXM4-80GB"), Some((0, false)));
        assert_eq!(sessions("NVIDIA H100 80GB HBM3"), Some((0, false)));
        assert_eq!(sessions("NVIDIA H200"), Some((0, false)));
        assert!(sessions("NVIDIA GeForce RTX 4090").unwrap().1);
        assert_eq!(sessions("NVIDIA GeForce MX450"), Some((0, false)));
        assert!(!sessions("NVIDIA L4").unwrap().1);
        assert!(sessions("NVIDIA L40S").unwrap().0 > sessions("NVIDIA L4").unwrap().0);
        assert!(!sessions("NVIDIA RTX A6000").unwrap().1);
        assert!(sessions("NVIDIA A10").unwrap().0 > 0, "not A100");
        assert_eq!(sessions("NVIDIA Frobnicator 9"), None);
        assert_eq!(sessions(""), None);
        let av1 = |model: &str| {
            encoder_of(Vendor::Nvidia, model, None).unwrap().codecs.contains(&EncoderCodec::Av1)
        };
        assert!(av1("NVIDIA GeForce RTX 4060") && !av1("NVIDIA GeForce RTX 3060"));
        assert!(av1("NVIDIA RTX 4000 Ada Generation") && !av1("NVIDIA RTX A4000"));
    }

    #[test]
    fn sessions_by_device_id_where_the_driver_names_none() {
        let amd = encoder_of(Vendor::Amd, "AMD 0x744c", Some(0x744c)).unwrap();
        assert!(amd.sessions > 0 && !amd.pooled);
        assert_eq!(encoder_of(Vendor::Amd, "", Some(0x74a1)).unwrap().sessions, 0, "MI300X");
        assert_eq!(encoder_of(Vendor::Amd, "AMD 0x9999", Some(0x9999)), None);
        assert_eq!(encoder_of(Vendor::Intel, "", Some(0x744c)), None, "another vendor's id");
        assert!(name_of(Vendor::Intel, 0x56a0).unwrap().contains("A770"));
    }

    #[test]
    fn the_pool_follows_the_driver() {
        assert_eq!(nvidia_pool("525.147.05"), Some(3));
        assert_eq!(nvidia_pool("530.30.02"), Some(5));
        assert_eq!(nvidia_pool("535.183.01"), Some(5));
        assert_eq!(nvidia_pool("550.54.14"), Some(8));
        assert_eq!(nvidia_pool("570.1"), Some(8));
        assert_eq!(nvidia_pool(""), None);
    }
}
