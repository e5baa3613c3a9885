//! Known holes in what containers run on, as data.

/// A hole that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vulnerability {
    /// Its number.
    pub(super) id: &'static str,
    /// What has it, as engines name their parts.
    pub(super) component: &'static str,
    /// The first version without it, of each branch that was mended.
    pub(super) fixed: &'static [Version],
    /// Whether a container alone can use it; else only where `what` says.
    pub(super) by_any_container: bool,
    /// What it lets happen.
    pub(super) what: &'static str,
    /// Who says so.
    pub(super) source: &'static str,
}

/// Major, minor, patch.
pub(super) type Version = [u32; 3];

/// The part that NVIDIA adds.
pub(super) const TOOLKIT: &str = "nvidia-container-toolkit";

/// Read off the advisories of each project; `source` is the page.
const TABLE: &[Vulnerability] = &[
    Vulnerability {
        id: "CVE-2024-21626",
        component: "runc",
        fixed: &[[1, 1, 12]],
        by_any_container: true,
        what: "a container's working directory is a folder of the machine",
        source: "https://github.com/opencontainers/runc/security/advisories/GHSA-xr7r-f8xq-vfvv",
    },
    Vulnerability {
        id: "CVE-2025-31133",
        component: "runc",
        fixed: &[[1, 2, 8], [1, 3, 3], [1, 4, 0]],
        by_any_container: true,
        what: "masked paths are swapped while they are mounted",
        source: "https://github.com/opencontainers/runc/security/advisories/GHSA-9493-h29p-rfm2",
    },
    Vulnerability {
        id: "CVE-2025-52565",
        component: "runc",
        fixed: &[[1, 2, 8], [1, 3, 3], [1, 4, 0]],
        by_any_container: true,
        what: "the console is swapped while it is mounted",
        source: "https://github.com/opencontainers/runc/security/advisories/GHSA-qw9x-cqr3-wc7r",
    },
    Vulnerability {
        id: "CVE-2025-52881",
        component: "runc",
        fixed: &[[1, 2, 8], [1, 3, 3], [1, 4, 0]],
        by_any_container: true,
        what: "writes below /proc are led elsewhere",
        source: "https://github.com/opencontainers/runc/security/advisories/GHSA-cgrx-mc8f-2prm",
    },
    Vulnerability {
        id: "CVE-2024-25621",
        component: "containerd",
        fixed: &[[1, 7, 29], [2, 0, 7], [2, 1, 5], [2, 2, 0]],
        by_any_container: false,
        what: "other accounts of the machine read and run what containers hold",
        source: "https://github.com/containerd/containerd/security/advisories/GHSA-pwhc-rpq9-4c8w",
    },
    Vulnerability {
        id: "CVE-2024-23653",
        component: "Engine",
        fixed: &[[24, 0, 9], [25, 0, 2]],
        by_any_container: false,
        what: "a build from a hostile frontend runs with the machine's rights",
        source: "https://github.com/moby/buildkit/security/advisories/GHSA-wr6v-9f75-vh2g",
    },
    Vulnerability {
        id: "CVE-2024-41110",
        component: "Engine",
        fixed: &[[23, 0, 15], [25, 0, 6], [26, 1, 5], [27, 1, 1]],
        by_any_container: false,
        what: "a request passes an authorization plugin, where one is used",
        source: "https://github.com/moby/moby/security/advisories/GHSA-v23v-6jw2-98fq",
    },
    Vulnerability {
        id: "CVE-2026-34040",
        component: "Engine",
        fixed: &[[29, 3, 1]],
        by_any_container: false,
        what: "a large request passes an authorization plugin, where one is used",
        source: "https://github.com/moby/moby/security/advisories/GHSA-x744-4wpc-v9h2",
    },
    Vulnerability {
        id: "CVE-2024-0132",
        component: TOOLKIT,
        fixed: &[[1, 16, 2]],
        by_any_container: true,
        what: "an image mounts the machine's files into its container",
        source: "https://nvidia.custhelp.com/app/answers/detail/a_id/5582",
    },
    Vulnerability {
        id: "CVE-2025-23266",
        component: TOOLKIT,
        fixed: &[[1, 17, 8]],
        by_any_container: true,
        what: "an image's environment runs code as the machine's root",
        source: "https://nvidia.custhelp.com/app/answers/detail/a_id/5659",
    },
];

/// The holes that this version of a part has, as far as its number says.
pub(super) fn of(component: &str, version: &str) -> Vec<&'static Vulnerability> {
    let Some((number, early)) = parse(version) else { return Vec::new() };
    let older = |than: &Version| number < *than || (number == *than && early);
    TABLE
        .iter()
        .filter(|hole| hole.component == component)
        .filter(|hole| {
            let branch = hole.fixed.iter().find(|fixed| fixed[..2] == number[..2]);
            // A branch that was never mended has it, unless it came later.
            branch.or_else(|| hole.fixed.last()).is_some_and(older)
        })
        .collect()
}

/// The number, and whether it is a candidate for that version only.
pub(super) fn parse(version: &str) -> Option<(Version, bool)> {
    let from = version.find(|c: char| c.is_ascii_digit())?;
    let plain = &version[from..];
    let end = plain.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(plain.len());
    let mut numbers = plain[..end].split('.').map(|part| part.parse().ok());
    let number = [
        numbers.next()??,
        numbers.next().flatten().unwrap_or(0),
        numbers.next().flatten().unwrap_or(0),
    ];
    Some((number, plain[end..].contains("rc") || plain[end..].contains("beta")))
}

/// Whether a distribution made it: those mend old versions without changing
/// the number.
pub(super) fn packaged(version: &str) -> bool {
    version.contains(['+', '~'])
        || ["ubuntu", "debian", "dfsg", ".el", ".fc", "amzn", "suse"]
            .iter()
            .any(|mark| version.contains(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(component: &str, version: &str) -> Vec<&'static str> {
        of(component, version).into_iter().map(|hole| hole.id).collect()
    }

    #[test]
    fn versions_are_read_as_engines_write_them() {
        assert_eq!(parse("20.10.24+dfsg1"), Some(([20, 10, 24], false)));
        assert_eq!(parse("v1.7.29"), Some(([1, 7, 29], false)));
        assert_eq!(parse("1.4.0-rc.2"), Some(([1, 4, 0], true)));
        assert_eq!(parse("29.3"), Some(([29, 3, 0], false)));
        assert_eq!(parse("dev"), None);
        assert!(packaged("1.1.5+ds1") && packaged("1.6.20~ds1") && packaged("24.0.7-0ubuntu4"));
        assert!(!packaged("1.1.12") && !packaged("27.1.1"));
    }

    #[test]
    fn holes_are_those_of_the_branch() {
        assert!(ids("runc", "1.1.11").contains(&"CVE-2024-21626"));
        assert!(!ids("runc", "1.1.12").contains(&"CVE-2024-21626"));
        assert!(!ids("runc", "1.2.0").contains(&"CVE-2024-21626"));
        for (version, has) in [
            ("1.1.15", true),
            ("1.2.7", true),
            ("1.2.8", false),
            ("1.3.0", true),
            ("1.3.3", false),
            ("1.4.0-rc.2", true),
            ("1.4.0", false),
        ] {
            for id in ["CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"] {
                assert_eq!(ids("runc", version).contains(&id), has, "{id} {version}");
            }
        }
        for (version, has) in [
            ("20.10.24", true),
            ("25.0.5", true),
            ("25.0.6", false),
            ("26.0.2", true),
            ("27.1.1", false),
            ("28.0.0", false),
        ] {
            assert_eq!(ids("Engine", version).contains(&"CVE-2024-41110"), has, "{version}");
        }
        assert_eq!(ids(TOOLKIT, "1.17.7"), ["CVE-2025-23266"]);
        assert_eq!(ids(TOOLKIT, "1.16.1"), ["CVE-2024-0132", "CVE-2025-23266"]);
        assert!(ids(TOOLKIT, "1.17.8").is_empty());
        assert!(ids("containerd", "2.2.0").is_empty());
        assert_eq!(ids("containerd", "1.6.20~ds1"), ["CVE-2024-25621"]);
        assert!(ids("runc", "unknown").is_empty());
    }

    #[test]
    fn every_entry_says_where_it_is_from() {
        for hole in TABLE {
            assert!(hole.id.starts_with("CVE-") && hole.source.starts_with("https://"), "{hole:?}");
            assert!(hole.fixed.is_sorted() && !hole.fixed.is_empty(), "{hole:?}");
        }
    }
}
