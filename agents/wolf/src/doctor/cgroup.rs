//! Control groups: what keeps sandboxes to their limits.

use std::collections::BTreeSet;

use wolfpack_dockerd::place::mounts::Mount;

use super::check::Found;
use super::place::Look;

/// Without these, limits of sandboxes mean nothing.
const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];

#[derive(Debug, PartialEq, Eq)]
enum Kind<'m> {
    /// All in one tree.
    Two(&'m Mount),
    /// A tree for each controller.
    One(Vec<&'m Mount>),
    None,
}

fn kind(mounts: &[Mount]) -> Kind<'_> {
    let below: Vec<&Mount> =
        mounts.iter().filter(|mount| mount.target.starts_with("/sys/fs/cgroup")).collect();
    let trees: Vec<&Mount> =
        below.iter().copied().filter(|mount| mount.fs_type == "cgroup").collect();
    if !trees.is_empty() {
        return Kind::One(trees);
    }
    match below.into_iter().rev().find(|mount| mount.fs_type == "cgroup2") {
        Some(tree) => Kind::Two(tree),
        None => Kind::None,
    }
}

pub(super) fn version(look: &Look) -> Found {
    match kind(&look.mounts) {
        Kind::Two(_) => Found::pass("cgroup v2").fact("version", 2),
        Kind::One(_) => Found::warn(
            "cgroup v1: it works, and engines in sandboxes cannot set limits of their own",
            "boot with systemd.unified_cgroup_hierarchy=1: engines and systemd give v1 up",
        )
        .fact("version", 1),
        Kind::None => Found::fail(
            "no cgroups are mounted at /sys/fs/cgroup: sandboxes would have no limits",
            "mount them, or start the wolf as its documentation says",
        ),
    }
}

pub(super) fn delegation(look: &Look) -> Found {
    match kind(&look.mounts) {
        Kind::Two(tree) if tree.read_only => read_only("/sys/fs/cgroup"),
        Kind::Two(_) => delegated_2(look),
        Kind::One(trees) => delegated_1(&trees),
        Kind::None => Found::skip("no cgroups are mounted"),
    }
}

fn delegated_2(look: &Look) -> Found {
    let words = |file: &str| -> Option<BTreeSet<String>> {
        let text = look.place.text(&format!("sys/fs/cgroup/{file}"))?;
        Some(text.split_ascii_whitespace().map(str::to_owned).collect())
    };
    let Some(there) = words("cgroup.controllers") else {
        return Found::skip("/sys/fs/cgroup/cgroup.controllers cannot be read");
    };
    let missing = |of: &BTreeSet<String>| -> Vec<&str> {
        NEEDED.into_iter().filter(|needed| !of.contains(*needed)).collect()
    };
    let listed = there.iter().cloned().collect::<Vec<_>>().join(" ");
    let lacking = missing(&there);
    if !lacking.is_empty() {
        return Found::fail(
            format!("the controllers {} are not handed to this wolf", lacking.join(", ")),
            "delegate them: Delegate=cpu memory pids in the unit that starts the wolf's engine",
        )
        .fact("controllers", listed);
    }
    let enabled = words("cgroup.subtree_control").unwrap_or_default();
    let off = missing(&enabled);
    if off.is_empty() {
        return Found::pass("cpu, memory and pids are handed on to sandboxes")
            .fact("controllers", listed);
    }
    Found::warn(
        format!("the controllers {} are here, and not turned on for what is below", off.join(", ")),
        "restart the wolf: its init moves processes aside and turns them on, as engines do",
    )
    .fact("controllers", listed)
}

fn delegated_1(trees: &[&Mount]) -> Found {
    let of = |controller: &str| {
        trees.iter().rev().find(|tree| tree.super_options.iter().any(|option| option == controller))
    };
    let missing: Vec<&str> = NEEDED.into_iter().filter(|needed| of(needed).is_none()).collect();
    if !missing.is_empty() {
        return Found::fail(
            format!("the controllers {} are not mounted", missing.join(", ")),
            "boot with cgroup_enable=memory where the kernel leaves them off, and mount them",
        );
    }
    match NEEDED.into_iter().filter_map(of).find(|tree| tree.read_only) {
        Some(tree) => read_only(&tree.target.display().to_string()),
        None => Found::pass("cpu, memory and pids can be written"),
    }
}

fn read_only(target: &str) -> Found {
    Found::fail(
        format!("{target} is mounted read-only: the engine can set no limits"),
        "restart the wolf: its init mounts it for writing, and needs SYS_ADMIN for that",
    )
}
