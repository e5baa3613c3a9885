//! When agents that were refused should come again.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Of what is let in, the part that is given out as turns. The rest lets in who
/// comes without one, and takes up those who come a moment late.
const GIVEN_OUT: f64 = 0.9;
/// The latest turn, from now. A longer queue begins over: whoever has no turn is
/// told to come within the second half of this.
const LATEST: Duration = Duration::from_secs(60);

/// Turns, one after the other: those who are refused come back as fast as they
/// are let in, and neither all at once nor after everybody has gone. A turn is
/// no place that is kept: who comes at another time takes what is free.
pub(super) struct Turns {
    /// From one to the next.
    every: Duration,
    /// The last one that was given out.
    last: Mutex<Option<Instant>>,
}

impl Turns {
    /// For `per_second` that are let in.
    pub(super) fn new(per_second: u32) -> Self {
        let given_out = f64::from(per_second.max(1)) * GIVEN_OUT;
        Self { every: Duration::from_secs_f64(1.0 / given_out), last: Mutex::default() }
    }

    /// How long from `now` to the next turn, at most a minute. `random`, in
    /// `0.0..1.0`, spreads those for whom the queue is too long.
    pub(super) fn next(&self, now: Instant, random: f64) -> Duration {
        let mut last = self.last.lock();
        let turn = last.map_or(now, |last| last.max(now)) + self.every;
        let wait = turn.duration_since(now);
        if wait > LATEST {
            return LATEST.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0));
        }
        *last = Some(turn);
        wait
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use governor::clock::FakeRelativeClock;
    use governor::{Quota, RateLimiter};
    use rand::{Rng as _, SeedableRng as _};
    use wolfpack_tunnel::protocol::Backoff;

    use super::*;

    const RATE: u32 = 500;

    /// Agents that all lost their broker at 0 and come back to one that is there;
    /// the times, in ms, at which each is let in.
    fn come_back(agents: usize) -> Vec<u64> {
        let mut random = rand::rngs::StdRng::seed_from_u64(7);
        let start = Instant::now();
        let clock = FakeRelativeClock::default();
        let quota = Quota::per_second(RATE.try_into().unwrap());
        let limiter = RateLimiter::direct_with_clock(quota, clock.clone());
        let turns = Turns::new(RATE);
        let mut backoffs: Vec<Backoff> = (0..agents).map(|_| Backoff::default()).collect();
        let mut knocks: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
        let ms = |wait: Duration| u64::try_from(wait.as_millis()).unwrap();
        for (agent, backoff) in backoffs.iter_mut().enumerate() {
            knocks.push(Reverse((ms(backoff.next_wait(random.random(), None)), agent)));
        }
        let (mut now, mut let_in) = (0, Vec::new());
        while let Some(Reverse((at, agent))) = knocks.pop() {
            clock.advance(Duration::from_millis(at - now));
            now = at;
            if limiter.check().is_ok() {
                let_in.push(at);
                continue;
            }
            let turn = turns.next(start + Duration::from_millis(at), random.random());
            let wait = backoffs[agent].turn(random.random(), turn);
            // What the way there and back takes.
            let way = random.random_range(1..50);
            knocks.push(Reverse((at + ms(wait) + way, agent)));
        }
        let_in
    }

    #[test]
    fn ten_thousand_come_back_nearly_as_fast_as_they_are_let_in() {
        let let_in = come_back(10_000);
        assert_eq!(let_in.len(), 10_000);
        let last = *let_in.last().unwrap();
        // (10,000 - 500 at once) / 500 a second is 19 s; a tenth is not given out.
        assert!((19_000..25_000).contains(&last), "the last one after {last} ms");
        for (at, first) in let_in.iter().enumerate() {
            let within = let_in[at..].iter().take_while(|other| **other < first + 1000).count();
            assert!(within <= 2 * RATE as usize + 1, "{within} in a second from {first} ms");
        }
    }

    #[test]
    fn more_than_have_a_turn_within_a_minute_come_back_too() {
        let let_in = come_back(60_000);
        let last = *let_in.last().unwrap();
        // 119 s at the rate.
        assert!((119_000..180_000).contains(&last), "the last one after {last} ms");
    }

    #[test]
    fn turns_follow_each_other_and_the_past_is_forgotten() {
        let turns = Turns::new(10);
        let start = Instant::now();
        let ms = |at: u64, random| {
            turns.next(start + Duration::from_millis(at), random).as_secs_f64() * 1000.0
        };
        let near = |is: f64, wanted: f64| assert!((is - wanted).abs() < 1.0, "{is}, not {wanted}");
        near(ms(0, 0.0), 111.1);
        near(ms(0, 0.0), 222.2);
        near(ms(100, 0.0), 233.3);
        near(ms(5000, 0.0), 111.1);
        for _ in 0..537 {
            assert!(ms(5000, 0.0) <= 60_000.0);
        }
        near(ms(5000, 0.0), 59_888.9);
        near(ms(5000, 0.0), 60_000.0);
        near(ms(5000, 0.0), 30_000.0);
        near(ms(5000, 0.5), 45_000.0);
        near(ms(5200, 0.0), 59_911.1);
    }
}
