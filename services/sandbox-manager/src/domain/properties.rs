//! Whatever happens, in whatever order: only legal transitions, no dead end,
//! and nothing left behind.

use proptest::prelude::*;
use wolfpack_types::SandboxState;

use super::world::{Happening, Luck, World};
use super::*;

fn luck() -> impl Strategy<Value = Luck> {
    prop_oneof![
        4 => Just(Luck::Fine),
        2 => Just(Luck::Fails),
        2 => Just(Luck::CrashAfter),
        1 => Just(Luck::Refused),
    ]
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        20 => Just(Happening::Nothing),
        2 => Just(Happening::WolfOffline),
        3 => Just(Happening::WolfBack),
        1 => Just(Happening::WolfGone),
        1 => Just(Happening::ContainerExits),
        1 => Just(Happening::ContainerVanishes),
        1 => Just(Happening::ReservationExpires),
        2 => Just(Happening::AgentReady),
        1 => Just(Happening::Overdue),
        1 => Just(Happening::Delete),
    ]
}

fn story() -> impl Strategy<Value = Vec<(Luck, Happening)>> {
    prop::collection::vec((luck(), happening()), 0..120)
}

fn play(story: &[(Luck, Happening)]) -> World {
    let mut world = World::new();
    for (luck, happening) in story {
        world.happen(*happening);
        world.turn(*luck);
        world.sweep();
    }
    world
}

/// Turns without trouble until nothing is to be done; panics when that never
/// comes.
fn settle(world: &mut World) {
    for _ in 0..100 {
        if !world.turn(Luck::Fine) {
            world.sweep();
            return;
        }
    }
    panic!("does not converge: {:?}", world.record);
}

fn assert_nothing_left(world: &World) {
    // What was never bound expires by itself; only bound goods can leak.
    let leaked: Vec<_> = world.reservations.iter().filter(|it| it.live && it.bound).collect();
    assert!(leaked.is_empty(), "reservations are left: {leaked:?} of {:?}", world.record);
    assert!(world.containers.is_empty(), "containers are left: {:?}", world.containers);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_transition_is_in_the_table(story in story()) {
        let world = play(&story);
        for pair in world.record.transitions.windows(2) {
            let (from, to) = (pair[0].state, pair[1].state);
            prop_assert!(from.may_become(to), "{from} to {to}");
        }
    }

    #[test]
    fn without_trouble_it_always_settles(story in story()) {
        let mut world = play(&story);
        world.happen(Happening::WolfBack);
        settle(&mut world);
        let state = world.record.state;
        prop_assert!(state.is_settled(), "stands in {state}");
        if state == SandboxState::Running {
            let boot = world.record.boot.as_ref().unwrap();
            prop_assert!(boot.confirmed && boot.holds.container && boot.abandoned.is_none());
            prop_assert_eq!(world.containers.len(), 1);
        } else {
            assert_nothing_left(&world);
        }
    }

    #[test]
    fn what_takes_too_long_ends_though_nothing_is_ever_bound(story in story()) {
        let mut world = play(&story);
        world.happen(Happening::WolfBack);
        world.binds = false;
        for _ in 0..50 {
            world.turn(Luck::Fine);
        }
        for _ in 0..50 {
            world.happen(Happening::Overdue);
            if !world.turn(Luck::Fine) {
                break;
            }
        }
        let state = world.record.state;
        prop_assert!(state.is_settled(), "stands in {state}: {:?}", world.record.boot);
        if state == SandboxState::Failed {
            prop_assert!(world.record.reason.is_some() && !world.record.message.is_empty());
            world.sweep();
            assert_nothing_left(&world);
        }
    }

    #[test]
    fn delete_always_ends_and_leaves_nothing(story in story()) {
        let mut world = play(&story);
        world.happen(Happening::Delete);
        world.happen(Happening::WolfBack);
        settle(&mut world);
        prop_assert_eq!(world.record.state, SandboxState::Deleted);
        prop_assert!(world.record.holds_nothing());
        prop_assert!(world.valid_tokens.is_empty(), "tokens are left");
        assert_nothing_left(&world);
    }

    #[test]
    fn goods_are_never_given_back_while_their_container_may_run(story in story()) {
        let mut world = World::new();
        for (luck, happening) in story {
            world.happen(happening);
            let step = decide(&world.record, &world.facts());
            if let Step::Release(_) = step {
                let boot = world.record.boot.as_ref().unwrap();
                prop_assert!(!boot.holds.container);
            }
            if step == Step::MarkDeleted {
                prop_assert!(world.record.holds_nothing());
            }
            world.turn(luck);
            world.sweep();
        }
    }

    #[test]
    fn the_sweep_never_takes_the_container_of_a_live_boot(story in story()) {
        let mut world = World::new();
        for (luck, happening) in story {
            world.happen(happening);
            world.turn(luck);
            let before = world.containers.len();
            let claimed = world.record.live_boot().is_some_and(|boot| {
                world.containers.iter().any(|it| it.execution == boot.execution)
            }) && world.record.boot.as_ref().is_some_and(|boot| boot.holds.container);
            world.sweep();
            if claimed {
                let boot = world.record.boot.as_ref().unwrap();
                prop_assert!(world.containers.iter().any(|it| it.execution == boot.execution));
            }
            prop_assert!(world.containers.len() <= before);
        }
    }
}
