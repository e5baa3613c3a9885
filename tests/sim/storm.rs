//! Many agents that lose their broker at once.

use std::time::Duration;

use wolfpack_runtime::Context;
use wolfpack_tunnel_broker::state::Limits;

use crate::world::{BROKER, Wolves, World, agent, broker, network, same_story, until};

const AGENTS: usize = 200;
const PER_SECOND: u32 = 50;
/// The most that may knock within a tenth of a second. The first wait is spread
/// over half a second: a fifth of them on average.
const MOST_AT_ONCE: usize = AGENTS / 3;
/// By when all must be back: 200 at 50 a second, the longest wait that a broker
/// which is away for two seconds leads to, and a turn missed.
const BACK: u64 = 22 + 10;

fn name(at: usize) -> String {
    format!("wolf-{at:03}")
}

/// The broker dies at 20 s and is there again two seconds later.
fn simulate(seed: u64) -> World {
    let world = World { wolves: Wolves::new((0..AGENTS).map(name)), ..World::default() };
    // In which order the tasks of one host run in one moment is tokio's secret: the
    // times of 200 agents' messages must not depend on whose came first.
    let mut sim = network(seed, 20..=20);
    let shared = world.clone();
    sim.host(BROKER, move || {
        let limits = Limits { attaches_per_second: PER_SECOND, ..Limits::default() };
        broker(shared.clone(), limits)
    });
    let shared = world.clone();
    sim.host("agents", move || {
        let world = shared.clone();
        async move {
            let context = Context::quiet("agents");
            for at in 0..AGENTS {
                let own = seed * 1000 + at as u64;
                agent(&world, "agent", &name(at), Duration::ZERO, own, &context.supervisor);
            }
            std::future::pending().await
        }
    });
    until(&mut sim, 20);
    sim.crash(BROKER);
    until(&mut sim, 22);
    sim.bounce(BROKER);
    until(&mut sim, 62);
    world
}

#[test]
fn two_hundred_agents_come_back_spread_out_and_no_faster_than_the_broker_admits() {
    let world = same_story(|| simulate(5));
    let seconds = Duration::from_secs;
    let attached: Vec<Duration> = (0..AGENTS)
        .flat_map(|at| world.trace.times(&format!("broker: Attached {}", name(at))))
        .collect();
    // Both times: nobody knew anybody at the start either.
    for (from, to) in [(0, 10), (22, BACK)] {
        let back = attached.iter().filter(|at| (seconds(from)..=seconds(to)).contains(*at)).count();
        assert!(back >= AGENTS, "{back} attached between {from} and {to} s");
    }
    // As many at once as in a second, and then as many a second.
    let mut sorted = attached.clone();
    sorted.sort();
    for (at, first) in sorted.iter().enumerate() {
        let within = sorted[at..].iter().take_while(|other| **other < *first + seconds(1)).count();
        assert!(within <= 2 * PER_SECOND as usize + 1, "{within} in a second from {first:?}");
    }
    // Each knocks at a time of its own, though all learned of it together: without
    // jitter they would all be back in the same moment.
    let knocks = world.trace.times("agent: connects");
    let after: Vec<Duration> = knocks.into_iter().filter(|at| *at >= seconds(20)).collect();
    assert!(after.len() >= AGENTS, "{}", after.len());
    for first in &after {
        let window = *first..*first + Duration::from_millis(100);
        let at_once = after.iter().filter(|at| window.contains(*at)).count();
        assert!(at_once <= MOST_AT_ONCE, "{at_once} knock within 100 ms of {first:?}");
    }
}
