//! Networks that break in the middle, one way or both.

use std::time::Duration;

use wolfpack_runtime::Context;
use wolfpack_tunnel_broker::state::Limits;

use crate::world::{
    ANYTHING, BROKER, Wolves, World, agent, broker, dial, network, same_story, until,
};

const AGENT: &str = "wolf";

/// Which way is cut.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Both,
    ToBroker,
    ToAgent,
}

/// At 20 s the network between agent and broker breaks, at 60 s it is whole again.
/// At 21 s two dials are made: one with the patience for it, and one without.
fn simulate(cut: Cut, seed: u64) -> World {
    let world = World { wolves: Wolves::new([AGENT.to_owned()]), ..World::default() };
    let mut sim = network(seed, ANYTHING);
    let shared = world.clone();
    sim.host(BROKER, move || broker(shared.clone(), Limits::default()));
    let shared = world.clone();
    sim.host(AGENT, move || {
        let world = shared.clone();
        async move {
            let context = Context::quiet("agent");
            agent(&world, AGENT, AGENT, Duration::ZERO, seed, &context.supervisor);
            std::future::pending().await
        }
    });
    let shared = world.clone();
    sim.host("caller", move || {
        let world = shared.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(21)).await;
            let patient = dial(world.clone(), AGENT, Duration::from_secs(120));
            tokio::join!(patient, dial(world, AGENT, Duration::from_secs(5)));
            std::future::pending().await
        }
    });
    until(&mut sim, 20);
    match cut {
        Cut::Both => sim.partition(AGENT, BROKER),
        Cut::ToBroker => sim.partition_oneway(AGENT, BROKER),
        Cut::ToAgent => sim.partition_oneway(BROKER, AGENT),
    }
    until(&mut sim, 60);
    match cut {
        Cut::Both => sim.repair(AGENT, BROKER),
        Cut::ToBroker => sim.repair_oneway(AGENT, BROKER),
        Cut::ToAgent => sim.repair_oneway(BROKER, AGENT),
    }
    until(&mut sim, 150);
    world
}

fn found_and_mended(cut: Cut) {
    let world = same_story(|| simulate(cut, 11));
    let trace = &world.trace;
    let within = |what: &str, from: u64, to: u64| {
        let times = trace.times(what);
        let (from, to) = (Duration::from_secs(from), Duration::from_secs(to));
        let inside = times.iter().any(|at| (from..=to).contains(at));
        assert!(inside, "{cut:?}: {what:?} at {times:?}: {:#?}", trace.story());
    };
    within("wolf: attached", 0, 5);
    // Both sides find out within 15 s of silence, and a second to look.
    within("broker: Detached wolf", 20, 37);
    within("wolf: away", 20, 37);
    // And are together again within a back-off.
    within("broker: Attached wolf", 60, 95);
    within("wolf: attached", 60, 95);
    // A dial to a dead session is not lost with it: it waits for the next one
    // until its own deadline.
    within("dial of 5s: DIAL_TIMEOUT", 26, 27);
    within("dial of 120s: served", 60, 95);
}

#[test]
fn a_partition_is_found_by_both_sides_and_mended() {
    found_and_mended(Cut::Both);
}

#[test]
fn a_broker_that_hears_nothing_finds_out_though_its_agent_hears_it() {
    found_and_mended(Cut::ToBroker);
}

#[test]
fn an_agent_that_hears_nothing_finds_out_though_its_broker_hears_it() {
    found_and_mended(Cut::ToAgent);
}
