//! The kernel.

use super::check::Found;
use super::place::Look;

/// From here on a user namespace may mount overlays: a sandbox's own engine
/// needs that.
const NESTED: (u32, u32) = (5, 11);
/// Engines need this.
const LEAST: (u32, u32) = (4, 18);

pub(super) fn version(look: &Look) -> Found {
    let Some(release) = look.place.text("proc/sys/kernel/osrelease") else {
        return Found::skip("/proc/sys/kernel/osrelease cannot be read");
    };
    let Some(version) = parse(&release) else {
        return Found::skip(format!("{release:?} is no version of Linux"));
    };
    let words = format!("Linux {release}");
    let found = if version < LEAST {
        Found::fail(words, "run Linux 5.11 or newer: engines are not tested on this one")
    } else if version < NESTED {
        let fix = "run Linux 5.11 or newer, or place no sandboxes with an engine of their own \
                   here: older kernels mount no overlay for them";
        Found::warn(words, fix)
    } else {
        Found::pass(words)
    };
    found.fact("release", release)
}

fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

pub(super) fn user_namespaces(look: &Look) -> Found {
    let place = &look.place;
    if !place.at("proc/self/ns/user").exists() {
        return Found::fail(
            "this kernel has no user namespaces",
            "run a kernel with CONFIG_USER_NS: sandboxes' root must not be this machine's",
        );
    }
    let most = place.text("proc/sys/user/max_user_namespaces");
    if most.as_deref() == Some("0") {
        return Found::fail(
            "user namespaces are turned off",
            "sysctl -w user.max_user_namespaces=15000, and keep it in /etc/sysctl.d",
        );
    }
    let set = |path: &str, value: &str| place.text(path).as_deref() == Some(value);
    let found = if set("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        Found::warn(
            "AppArmor keeps programs without privileges from user namespaces",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 where browsers in sandboxes \
             report that they have no sandbox of their own",
        )
    } else if set("proc/sys/kernel/unprivileged_userns_clone", "0") {
        Found::warn(
            "programs without privileges may make no user namespaces",
            "sysctl -w kernel.unprivileged_userns_clone=1 where browsers in sandboxes report that \
             they have no sandbox of their own",
        )
    } else {
        Found::pass("user namespaces can be made")
    };
    match most {
        Some(most) => found.fact("max_user_namespaces", most),
        None => found,
    }
}
