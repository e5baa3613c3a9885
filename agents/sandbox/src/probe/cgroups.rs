//! Version 1 cgroups, by which a container could allow itself devices or have
//! the host run a program.

use std::path::{Path, PathBuf};

use nix::mount::MsFlags;

use super::opening::{Opening, for_writing};
use super::{Facts, Finding, private, target};

/// A hierarchy that this process is in.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    /// As mount options name it: `cpu,cpuacct` or `name=systemd`.
    options: String,
    /// This process's cgroup in it.
    path: String,
}

pub(super) fn devices_allow(_: &Facts) -> Finding {
    ask("devices.allow", |hierarchy| hierarchy.options.split(',').any(|name| name == "devices"))
}

pub(super) fn release_agent(_: &Facts) -> Finding {
    ask("release_agent", |_| true)
}

/// Looks for the file in what is mounted, then in the same hierarchies mounted
/// afresh. Only hierarchies that exist are named: another name would make one.
fn ask(file: &str, wanted: impl Fn(&Hierarchy) -> bool) -> Finding {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let hierarchies: Vec<Hierarchy> = parse(&text).into_iter().filter(wanted).collect();
    if hierarchies.is_empty() {
        return Finding::blocked(format!(
            "no version 1 hierarchy is in use, so there is no {file}"
        ));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut evidence = Vec::new();
    for place in mounted(&mounts) {
        for candidate in candidates(&place, &hierarchies, file) {
            match for_writing(&candidate) {
                Opening::Opened => {
                    return Finding::allowed(format!("{} opens for writing", candidate.display()));
                }
                Opening::Refused(why) => evidence.push(format!("{}: {why}", candidate.display())),
                Opening::Absent => {}
            }
        }
    }
    match afresh(&hierarchies, file) {
        Ok(Finding { verdict: super::Verdict::Allowed, evidence }) => Finding::allowed(evidence),
        Ok(finding) => {
            evidence.push(finding.evidence);
            evidence.retain(|words| !words.is_empty());
            if evidence.is_empty() {
                evidence.push(format!("no {file} in what is mounted or can be mounted afresh"));
            }
            Finding::blocked(evidence.join("; "))
        }
        Err(private::Refused(why)) => {
            evidence.push(format!("a fresh mount: {why}"));
            Finding::blocked(evidence.join("; "))
        }
    }
}

fn afresh(hierarchies: &[Hierarchy], file: &str) -> Result<Finding, private::Refused> {
    let Some(at) = target::directory() else {
        return Ok(Finding::blocked("no directory to mount on"));
    };
    let mut last = Ok(Finding::blocked(String::new()));
    // With the host's cgroup namespace first: a mount shows all of it then.
    for own in [false, true] {
        last = private::mounts(own, || {
            let mut evidence = Vec::new();
            for hierarchy in hierarchies {
                let options = Some(hierarchy.options.as_str());
                let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
                match nix::mount::mount(Some("cgroup"), &at, Some("cgroup"), flags, options) {
                    Err(errno) => {
                        evidence.push(format!("mount of {}: {}", hierarchy.options, errno.desc()));
                        continue;
                    }
                    Ok(()) => {
                        let found = candidates(&at, std::slice::from_ref(hierarchy), file);
                        let answers = found.iter().map(|path| (path, for_writing(path)));
                        for (path, answer) in answers {
                            match answer {
                                Opening::Opened => {
                                    let _ = nix::mount::umount(&at);
                                    return Finding::allowed(format!(
                                        "{} of a fresh mount of {} opens for writing",
                                        path.display(),
                                        hierarchy.options
                                    ));
                                }
                                Opening::Refused(why) => evidence.push(format!(
                                    "{file} of a fresh {}: {why}",
                                    hierarchy.options
                                )),
                                Opening::Absent => {}
                            }
                        }
                        let _ = nix::mount::umount(&at);
                    }
                }
            }
            Finding::blocked(evidence.join("; "))
        });
        if matches!(&last, Ok(finding) if finding.verdict == super::Verdict::Allowed) {
            return last;
        }
    }
    last
}

/// `4:cpu,cpuacct:/docker/abc`; the line of version 2 has number 0.
fn parse(text: &str) -> Vec<Hierarchy> {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (number, options, path) = (parts.next()?, parts.next()?, parts.next()?);
            (number != "0" && !options.is_empty())
                .then(|| Hierarchy { options: options.to_owned(), path: path.to_owned() })
        })
        .collect()
}

/// Where version 1 hierarchies are mounted.
fn mounted(mountinfo: &str) -> Vec<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            (after.split(' ').next()? == "cgroup").then_some(())?;
            Some(PathBuf::from(before.split(' ').nth(4)?))
        })
        .collect()
}

/// The file at the mount's top and where this process's cgroup may be below.
fn candidates(mount: &Path, hierarchies: &[Hierarchy], file: &str) -> Vec<PathBuf> {
    let mut found = vec![mount.join(file)];
    for hierarchy in hierarchies {
        let below = hierarchy.path.trim_start_matches('/');
        if !below.is_empty() && !below.starts_with("..") {
            found.push(mount.join(below).join(file));
        }
    }
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_and_their_mounts_are_read() {
        let text = "11:cpu,cpuacct:/docker/a\n5:name=systemd:/x\n4:devices:/\n0::/y\n";
        let found = parse(text);
        let options: Vec<&str> = found.iter().map(|h| h.options.as_str()).collect();
        assert_eq!(options, ["cpu,cpuacct", "name=systemd", "devices"]);
        let mounts = "\
30 29 0:26 /docker/a /sys/fs/cgroup/devices ro - cgroup cgroup rw,devices\n\
31 29 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted(mounts), [Path::new("/sys/fs/cgroup/devices")]);
        let paths = candidates(Path::new("/m"), &found, "devices.allow");
        assert_eq!(paths.len(), 3);
        assert_eq!(paths[1], Path::new("/m/docker/a/devices.allow"));
        assert!(parse("0::/\n").is_empty());
    }
}
