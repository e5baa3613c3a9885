//! When agents come back from a broker that leaves.

use std::time::Duration;

/// The longest time over which agents spread.
pub const MOST_SPREAD: Duration = Duration::from_secs(30);
/// The shortest: a few agents are no herd.
pub const LEAST_SPREAD: Duration = Duration::from_secs(1);
/// The longest an agent waits before its own part of the spread.
const MOST_WAIT: Duration = Duration::from_secs(60);

/// Over how long a time the agents of a broker should spread their return:
/// long enough that they take at most half of what a broker admits in a second,
/// as the agents of others may come, too, and at most 30 s.
#[must_use]
pub fn spread(agents: usize, admitted_per_second: u32) -> Duration {
    let agents = u32::try_from(agents).unwrap_or(u32::MAX);
    let seconds = 2.0 * f64::from(agents) / f64::from(admitted_per_second.max(1));
    Duration::from_secs_f64(seconds.min(MOST_SPREAD.as_secs_f64())).max(LEAST_SPREAD)
}

/// How long one agent waits. `random` is in `0.0..1.0`. A broker that names no
/// spread has its agents spread over as long as they wait anyway. Never more
/// than 90 s, whatever a broker says.
#[must_use]
pub fn wait(retry_after: Duration, spread: Option<Duration>, random: f64) -> Duration {
    let retry_after = retry_after.min(MOST_WAIT);
    let spread = spread.unwrap_or(retry_after).min(MOST_SPREAD);
    retry_after + spread.mul_f64(random.clamp(0.0, 1.0))
}

/// Where an agent goes from its broker `at`, which leaves: to the first of the
/// `alternatives` that is among its `own` brokers, else to the next of its own;
/// back to the same one when there is no other. What it does not know already
/// it never goes to, whatever a broker says.
#[must_use]
pub fn elsewhere(own: &[String], at: usize, alternatives: &[String]) -> usize {
    let known = |address: &String| {
        own.iter().enumerate().position(|(other, own)| other != at && own == address)
    };
    alternatives.iter().find_map(known).unwrap_or_else(|| (at + 1) % own.len().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{Rng as _, SeedableRng as _};

    #[test]
    fn a_few_agents_come_soon_and_many_over_half_a_minute() {
        let seconds = |agents| spread(agents, 500).as_secs_f64();
        assert_eq!(
            [0, 1, 250, 1000, 5000, 7500, 1_000_000].map(seconds),
            [1.0, 1.0, 1.0, 4.0, 20.0, 30.0, 30.0]
        );
        assert_eq!(
            wait(Duration::from_secs(1), None, 1.0),
            Duration::from_secs(2),
            "an old broker"
        );
    }

    #[test]
    fn five_thousand_agents_never_come_faster_than_a_broker_admits_them() {
        let (agents, admitted) = (5000_usize, 500_u32);
        let spread = spread(agents, admitted);
        let mut random = rand::rngs::StdRng::seed_from_u64(7);
        let mut seconds = [0_u32; 40];
        for _ in 0..agents {
            let wait = wait(Duration::from_secs(1), Some(spread), random.random());
            seconds[usize::try_from(wait.as_secs()).unwrap()] += 1;
        }
        assert!(seconds.iter().all(|came| *came <= admitted), "{seconds:?}");
        assert_eq!(seconds.iter().sum::<u32>(), 5000);
    }

    #[test]
    fn an_agent_goes_only_where_its_own_configuration_says() {
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let own = names(&["a", "b", "c"]);
        assert_eq!(elsewhere(&own, 0, &names(&["c", "b"])), 2, "the best first");
        assert_eq!(elsewhere(&own, 0, &names(&["evil", "b"])), 1);
        assert_eq!(elsewhere(&own, 0, &names(&["evil", "a"])), 1, "the next of its own");
        assert_eq!(elsewhere(&own, 2, &[]), 0);
        assert_eq!(elsewhere(&names(&["a"]), 0, &names(&["evil"])), 0, "it has no other");
    }

    proptest! {
        #[test]
        fn a_wait_is_bounded_and_begins_with_what_was_asked(
            after in 0_u64..1000, spread in prop::option::of(0_u64..1000), random in -1.0_f64..2.0,
        ) {
            let wait = wait(Duration::from_secs(after), spread.map(Duration::from_secs), random);
            prop_assert!(wait >= Duration::from_secs(after).min(MOST_WAIT));
            prop_assert!(wait <= MOST_WAIT + MOST_SPREAD);
        }
    }
}
