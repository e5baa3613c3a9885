//! What the process exits with. A step has a code of its own, so that whoever
//! sees only the code knows what failed.

/// Drained in time.
pub(crate) const DRAINED: u8 = 0;
/// Drained, but something had to be killed; or the check found it unhealthy.
pub(crate) const CUT_OFF: u8 = 1;
/// The check found it unhealthy.
pub(crate) const UNHEALTHY: u8 = 1;
/// The configuration, or the agent's, has faults.
pub(crate) const CONFIG: u8 = 64;
/// PID 1 itself could not go on.
pub(crate) const INTERNAL: u8 = 65;
/// Only the agent's, never the init's own: a newer agent of its wolf took over.
/// `wolfpack_wolf_agent::superseded::EXIT_SUPERSEDED`.
pub(crate) const SUPERSEDED: u8 = 66;

/// Steps and their codes, in the order in which they are done.
pub(crate) const STEPS: [(&str, u8); 11] = [
    ("isolate", 70),
    ("unmask", 71),
    ("sys", 72),
    ("cgroup", 73),
    ("forwarding", 74),
    ("storage", 75),
    ("network", 76),
    ("iptables", 77),
    ("engine", 78),
    ("dns", 79),
    ("agent", 80),
];

/// The code of a step that failed.
pub(crate) fn code(step: &str) -> u8 {
    STEPS.iter().find(|(name, _)| *name == step).map_or(INTERNAL, |(_, code)| *code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_a_code_of_its_own() {
        let mut codes: Vec<u8> = STEPS.iter().map(|(name, _)| code(name)).collect();
        codes.extend([DRAINED, CUT_OFF, CONFIG, INTERNAL, SUPERSEDED]);
        let all = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), all);
        assert_eq!(code("no such step"), INTERNAL);
    }
}
