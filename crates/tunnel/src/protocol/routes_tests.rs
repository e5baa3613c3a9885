use super::*;
use proptest::prelude::*;
use wolfpack_types::WolfId;

const SECOND: Duration = Duration::from_secs(1);

fn wolf() -> Endpoint {
    Endpoint::Wolf(WolfId::new())
}

fn brokers(routes: &[Route]) -> Vec<&str> {
    routes.iter().map(|route| route.broker.as_str()).collect()
}

#[test]
fn a_row_lives_as_long_as_it_is_written_again() {
    let (mut table, wolf, now) = (RouteTable::default(), wolf(), Instant::now());
    table.put(&wolf, "a", "a:1", 1, now).unwrap();
    let mut at = now;
    for _ in 0..10 {
        at += REFRESH;
        table.put(&wolf, "a", "a:1", 1, at).unwrap();
    }
    assert_eq!(brokers(&table.find(&wolf, at + TTL - SECOND)), ["a"]);
    assert!(table.find(&wolf, at + TTL).is_empty());
    table.sweep(at + TTL);
    assert_eq!(table.endpoints.len(), 1, "its generation is remembered");
    table.sweep(at + MEMORY);
    assert_eq!(table.endpoints.len(), 0);
}

#[test]
fn a_late_refresh_of_an_older_instance_loses_and_one_instance_may_be_at_two() {
    let (mut table, wolf, now) = (RouteTable::default(), wolf(), Instant::now());
    table.put(&wolf, "a", "a:1", 1, now).unwrap();
    table.put(&wolf, "b", "b:1", 1, now).unwrap();
    assert_eq!(brokers(&table.find(&wolf, now)), ["a", "b"]);
    table.put(&wolf, "b", "b:1", 2, now).unwrap();
    assert_eq!(brokers(&table.find(&wolf, now)), ["b"], "the older one is nowhere");
    assert_eq!(table.put(&wolf, "a", "a:1", 1, now + SECOND), Err(Stale { newest: 2 }));
    table.remove(&wolf, "b", 1);
    assert_eq!(brokers(&table.find(&wolf, now)), ["b"], "a late farewell, too");
    // Neither does it win once the newer one is away.
    table.remove(&wolf, "b", 2);
    table.sweep(now + 2 * TTL);
    assert!(table.put(&wolf, "a", "a:1", 1, now + 2 * TTL).is_err());
}

fn route(broker: &str, generation: i64, now: Instant) -> Route {
    Route { broker: broker.into(), address: format!("{broker}:1"), generation, expires: now + TTL }
}

#[test]
fn a_dial_goes_to_its_own_session_else_one_hop_and_reads_again_once() {
    let now = Instant::now();
    let (a, b) = (route("a", 1, now), route("b", 1, now));
    let both = [a.clone(), b.clone()];
    assert_eq!(Forwarding::new("a", false).next(true, &both), Next::Own);
    let mut dial = Forwarding::new("a", false);
    assert_eq!(dial.next(false, &both), Next::Forward(b.clone()), "never to itself");
    assert_eq!(dial.next(false, &both), Next::ReadAgain);
    let newer = route("b", 2, now);
    assert_eq!(dial.next(false, std::slice::from_ref(&newer)), Next::Forward(newer.clone()));
    assert_eq!(dial.next(false, &[newer]), Next::Away);
    assert_eq!(dial.next(true, &[]), Next::Own, "it attached here meanwhile");
    assert_eq!(Forwarding::new("b", true).next(false, &[a]), Next::Away, "one hop at most");
}

proptest! {
    /// Writes of two brokers that come in any order leave what the newest
    /// instance wrote, and nothing of an older one.
    #[test]
    fn whatever_the_order_only_the_newest_instance_is_found(
        writes in prop::collection::vec((0_u8..3, 0_i64..5, 0_u64..20, any::<bool>()), 1..60),
    ) {
        let (mut table, wolf, mut now) = (RouteTable::default(), wolf(), Instant::now());
        let mut newest = i64::MIN;
        let mut model: BTreeMap<u8, (i64, Instant)> = BTreeMap::new();
        for (broker, generation, seconds, leaves) in writes {
            now += Duration::from_secs(seconds);
            let name = broker.to_string();
            if leaves {
                table.remove(&wolf, &name, generation);
                if model.get(&broker).is_some_and(|(own, _)| *own == generation) {
                    model.remove(&broker);
                }
            } else {
                let taken = table.put(&wolf, &name, "x:1", generation, now).is_ok();
                prop_assert_eq!(taken, generation >= newest);
                if taken {
                    newest = generation;
                    model.retain(|_, (own, _)| *own == generation);
                    model.insert(broker, (generation, now + TTL));
                }
            }
            model.retain(|_, (_, expires)| *expires > now);
            let found: Vec<(String, i64)> =
                table.find(&wolf, now).into_iter().map(|r| (r.broker, r.generation)).collect();
            let expected: Vec<(String, i64)> =
                model.iter().map(|(broker, (own, _))| (broker.to_string(), *own)).collect();
            prop_assert_eq!(found, expected);
        }
    }

    /// A dial ends whatever rows it is shown, never hops twice to one session,
    /// and reads again at most once.
    #[test]
    fn a_dial_never_goes_round(
        forwarded: bool,
        shown in prop::collection::vec(prop::collection::vec((0_u8..3, 0_i64..3), 0..4), 20),
    ) {
        let now = Instant::now();
        let mut dial = Forwarding::new("0", forwarded);
        let (mut hops, mut reads) = (Vec::new(), 0);
        for rows in shown {
            let rows: Vec<Route> =
                rows.iter().map(|(b, generation)| route(&b.to_string(), *generation, now)).collect();
            match dial.next(false, &rows) {
                Next::Forward(hop) => {
                    prop_assert!(!forwarded && hop.broker != "0");
                    hops.push((hop.broker, hop.generation));
                }
                Next::ReadAgain => reads += 1,
                Next::Away => break,
                Next::Own => prop_assert!(false, "it is not attached here"),
            }
        }
        prop_assert!(reads <= 1);
        let tried = hops.len();
        hops.sort();
        hops.dedup();
        prop_assert_eq!(hops.len(), tried);
    }
}
