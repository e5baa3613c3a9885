//! Instances of GPUs that are cut into several (MIG). The management library's
//! binding does not list them, so the vendor's tool is asked.

use std::path::Path;

use super::toolkit::run;

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MigInstance {
    /// UUID of the GPU it is of.
    pub(super) parent: String,
    /// `MIG-...`
    pub(super) uuid: String,
    /// Such as `1g.5gb`.
    pub(super) profile: String,
}

impl MigInstance {
    /// Its memory in bytes, by the size in its profile's name. What is usable is
    /// a little less than the name says, so five in a hundred are left out.
    #[must_use]
    pub(super) fn memory_bytes(&self) -> Option<u64> {
        let size = self.profile.split('.').find_map(|part| part.strip_suffix("gb"))?;
        let gigabytes: u64 = size.parse().ok()?;
        Some(gigabytes * 1_000_000_000 / 100 * 95).filter(|bytes| *bytes > 0)
    }
}

/// Every instance of the host, by `nvidia-smi -L`.
pub(super) async fn instances(program: &Path) -> Vec<MigInstance> {
    run(program, &["-L"]).await.map(|told| parse(&told)).unwrap_or_default()
}

fn parse(told: &str) -> Vec<MigInstance> {
    let mut parent = None;
    let mut found = Vec::new();
    for line in told.lines() {
        let uuid = line
            .split_once("UUID:")
            .map(|(_, rest)| rest.trim().trim_end_matches(')').trim().to_owned());
        let Some(uuid) = uuid.filter(|uuid| !uuid.is_empty()) else { continue };
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), &parent) {
            (Some("GPU"), _, _) => parent = Some(uuid),
            (Some("MIG"), Some(profile), Some(parent)) => found.push(MigInstance {
                parent: parent.clone(),
                uuid,
                profile: profile.to_owned(),
            }),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_read_with_their_gpu() {
        let told = "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa)\n  MIG 3g.20gb     Device  0: (UUID: MIG-1111)\n  MIG 1g.5gb+me   Device  1: (UUID: MIG-2222)\nGPU 1: NVIDIA L4 (UUID: GPU-bbbb)\n";
        let found = parse(told);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].parent.as_str(), found[0].uuid.as_str()), ("GPU-aaaa", "MIG-1111"));
        assert_eq!(found[0].memory_bytes(), Some(19_000_000_000));
        assert_eq!(found[1].profile, "1g.5gb+me");
        assert_eq!(found[1].memory_bytes(), None, "a name that is not understood is no size");
        assert_eq!(parse("No devices found.\n"), []);
        assert_eq!(parse("  MIG 1g.5gb Device 0: (UUID: MIG-3)\n"), [], "of no GPU");
    }
}
