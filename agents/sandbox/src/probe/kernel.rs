//! The host's kernel: what it runs, loads and shows.

use std::path::Path;

use nix::errno::Errno;
use nix::kmod::ModuleInitFlags;

use super::opening::{any, for_reading, for_writing};
use super::{Facts, Finding};

const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

pub(super) fn core_pattern(_: &Facts) -> Finding {
    any(&["/proc/sys/kernel/core_pattern"], for_writing, "writing")
}

pub(super) fn helpers(_: &Facts) -> Finding {
    let paths = [
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/hotplug",
        "/proc/sys/kernel/poweroff_cmd",
        "/proc/sys/fs/binfmt_misc/register",
        "/sys/kernel/uevent_helper",
    ];
    any(&paths, for_writing, "writing")
}

pub(super) fn sysrq(_: &Facts) -> Finding {
    any(&["/proc/sysrq-trigger"], for_writing, "writing")
}

pub(super) fn memory(_: &Facts) -> Finding {
    any(&["/proc/kcore", "/dev/mem", "/dev/kmem", "/dev/port"], for_reading, "reading")
}

/// The kernel asks for the right to load before it looks at what is given, and
/// a pipe is never a module.
pub(super) fn module_load(_: &Facts) -> Finding {
    let Ok((pipe, _writer)) = std::io::pipe() else {
        return Finding::unknown("no descriptor is left for a pipe");
    };
    match nix::kmod::finit_module(&pipe, c"", ModuleInitFlags::empty()) {
        Ok(()) => Finding::allowed("finit_module took a pipe for a module"),
        Err(Errno::ENOSYS) => Finding::blocked("finit_module: this kernel loads no modules"),
        Err(errno @ (Errno::EPERM | Errno::EACCES)) => {
            Finding::blocked(format!("finit_module: {}", errno.desc()))
        }
        Err(errno) => Finding::allowed(format!(
            "finit_module may load: it only refused the pipe it was given ({})",
            errno.desc()
        )),
    }
}

/// bpf(2) has no safe form, so this is judged by what the kernel asks for.
pub(super) fn bpf(facts: &Facts) -> Finding {
    let setting = "/proc/sys/kernel/unprivileged_bpf_disabled";
    let disabled = std::fs::read_to_string(setting);
    let disabled = disabled.as_deref().map_or("unknown", str::trim);
    judge_bpf(facts, disabled, Path::new("/proc/sys/kernel/bpf_stats_enabled").exists())
}

fn judge_bpf(facts: &Facts, disabled: &str, known: bool) -> Finding {
    let privileged = facts.host_root
        && (facts.has(CAP_SYS_ADMIN) || (facts.has(CAP_BPF) && facts.has(CAP_PERFMON)));
    let evidence = format!(
        "observed, not tried: capabilities {}, root here is {}the host's, unprivileged_bpf_disabled \
         {disabled}, seccomp {}",
        facts.capabilities,
        if facts.host_root { "" } else { "not " },
        facts.seccomp
    );
    let unfiltered = facts.seccomp == "0";
    if privileged || (unfiltered && disabled == "0") {
        Finding::allowed(evidence)
    } else if unfiltered && disabled == "unknown" && known {
        Finding::unknown(evidence)
    } else {
        Finding::blocked(evidence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Verdict;

    #[test]
    fn programs_in_the_kernel_need_the_hosts_root_or_a_lax_kernel() {
        let facts = |host_root, capabilities: &str, seccomp: &str| Facts {
            host_root,
            capabilities: capabilities.to_owned(),
            seccomp: seccomp.to_owned(),
            ..Facts::default()
        };
        let admin = "0000000000200000";
        let verdict = |facts, disabled| judge_bpf(&facts, disabled, true).verdict;
        assert_eq!(verdict(facts(true, admin, "2"), "2"), Verdict::Allowed);
        assert_eq!(verdict(facts(false, admin, "0"), "2"), Verdict::Blocked);
        assert_eq!(verdict(facts(false, admin, "0"), "0"), Verdict::Allowed);
        assert_eq!(verdict(facts(false, "0", "2"), "0"), Verdict::Blocked);
        assert_eq!(verdict(facts(false, "0", "0"), "unknown"), Verdict::Unknown);
    }

    #[test]
    fn a_pipe_is_never_loaded() {
        let finding = module_load(&Facts::default());
        assert!(finding.evidence.contains("finit_module"), "{finding:?}");
        assert!(!finding.evidence.contains("took a pipe"), "{finding:?}");
    }
}
