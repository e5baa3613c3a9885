//! Two processes that both say they are one wolf.

use std::time::Duration;

use wolfpack_runtime::Context;
use wolfpack_tunnel_broker::state::Limits;

use crate::world::{ANYTHING, BROKER, Wolves, World, agent, broker, network, same_story, until};

const WOLF: &str = "wolf";

/// The old process is there from the start, the new one comes at 20 s; at 60 s
/// the broker dies and forgets everybody; at 100 s a third one wakes up that is
/// older than both.
fn simulate(seed: u64) -> World {
    let world = World { wolves: Wolves::new([WOLF.to_owned()]), ..World::default() };
    let mut sim = network(seed, ANYTHING);
    let shared = world.clone();
    sim.host(BROKER, move || broker(shared.clone(), Limits::default()));
    for (label, age, comes) in [("old", 3600, 0), ("new", 60, 20), ("sleeper", 7200, 100)] {
        let shared = world.clone();
        sim.host(label, move || {
            let world = shared.clone();
            async move {
                tokio::time::sleep(Duration::from_secs(comes)).await;
                let context = Context::quiet(label);
                let age = Duration::from_secs(age);
                agent(&world, label, WOLF, age, seed + comes, &context.supervisor);
                std::future::pending().await
            }
        });
    }
    until(&mut sim, 60);
    sim.crash(BROKER);
    until(&mut sim, 62);
    sim.bounce(BROKER);
    until(&mut sim, 200);
    world
}

#[test]
fn the_newest_wins_the_others_are_told_and_nobody_fights() {
    let world = same_story(|| simulate(3));
    let times = |what: &str| world.trace.times(what);
    let story = || format!("{:#?}", world.trace.story());
    assert_eq!(times("old: ended SUPERSEDED").len(), 1, "{}", story());
    assert_eq!(times("sleeper: ended SUPERSEDED").len(), 1, "{}", story());
    assert!(times("sleeper: attached").is_empty(), "it disturbed nobody: {}", story());
    let told = times("old: ended SUPERSEDED")[0];
    assert!((20..25).contains(&told.as_secs()), "at once, but {told:?}");
    // The old one once, the new one before and after the broker's death.
    assert_eq!(times("broker: Attached wolf").len(), 3, "no ping-pong: {}", story());
    assert_eq!(times("old: attached").len(), 1);
    assert_eq!(times("new: attached").len(), 2);
    assert!(times("new: ended SUPERSEDED").is_empty());
}
