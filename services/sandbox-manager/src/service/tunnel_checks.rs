//! How good the way to a wolf is: measured by calls that answer with bytes.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::{StreamExt as _, stream};
use tonic::Status;
use wolfpack_proto::agent::v1::EchoRequest;
use wolfpack_proto::agent::v1::wolf_doctor_service_client::WolfDoctorServiceClient;
use wolfpack_proto::sandbox::v1::{Check, CheckOutcome};
use wolfpack_rpc::RpcChannel;

type Doctor = WolfDoctorServiceClient<RpcChannel>;

/// Round trips that are measured, after one that opens the way.
const TRIPS: usize = 9;
/// A round trip from which on typing in a sandbox feels slow.
const SLOW: Duration = Duration::from_millis(250);
/// Bytes of one message of a throughput measurement.
const MESSAGE: usize = 512 * 1024;
/// Messages that are under way at a time.
const AHEAD: usize = 4;
/// How long each direction is measured, and the most that is sent.
const MEASURED: Duration = Duration::from_secs(3);
const MESSAGES: usize = 64;
/// Bytes a second below which a desktop does not work well.
const NARROW: u64 = 1 << 20;
/// From which difference of clocks on certificates and tokens are at risk, and
/// from which on they fail.
const SKEWED: (i128, i128) = (1_000_000_000, 30_000_000_000);

/// Round trips to a wolf.
pub(super) struct Trips {
    sorted: Vec<Duration>,
    /// The wolf's clock less ours, in nanoseconds, by the fastest trip.
    skew: i128,
    /// How far off that may be.
    unsure: Duration,
}

/// Measures round trips.
pub(super) async fn round_trips(doctor: &mut Doctor) -> Result<Trips, Status> {
    doctor.echo(EchoRequest::default()).await?;
    let mut trips = Vec::with_capacity(TRIPS);
    let mut best: Option<(Duration, i128)> = None;
    for _ in 0..TRIPS {
        let (begun, begun_at) = (Instant::now(), unix_nanos());
        let theirs = doctor.echo(EchoRequest::default()).await?.into_inner().unix_nanos;
        let took = begun.elapsed();
        trips.push(took);
        if best.is_none_or(|(fastest, _)| took < fastest) {
            let middle = begun_at + i128::try_from(took.as_nanos() / 2).unwrap_or(0);
            best = Some((took, i128::from(theirs) - middle));
        }
    }
    trips.sort();
    let (fastest, skew) = best.unwrap_or_default();
    Ok(Trips { sorted: trips, skew, unsure: fastest / 2 })
}

impl Trips {
    /// What they say.
    pub(super) fn checks(&self) -> [Check; 2] {
        [self.round_trip(), self.clock()]
    }

    fn round_trip(&self) -> Check {
        let at = |share: usize| {
            let last = self.sorted.len().saturating_sub(1);
            self.sorted.get(last * share / 100).copied().unwrap_or_default()
        };
        let (median, worst) = (at(50), at(100));
        let slow = median > SLOW;
        Check {
            id: "tunnel.round-trip".to_owned(),
            outcome: if slow { CheckOutcome::Warn } else { CheckOutcome::Pass }.into(),
            message: format!("{median:.1?} through the tunnel, {worst:.1?} at most"),
            fix: if slow {
                "programs and desktops will feel slow: use a wolf or a broker that is nearer"
                    .to_owned()
            } else {
                String::new()
            },
            facts: [
                ("median_us".to_owned(), median.as_micros().to_string()),
                ("max_us".to_owned(), worst.as_micros().to_string()),
            ]
            .into(),
        }
    }

    fn clock(&self) -> Check {
        let sure = i128::try_from(self.unsure.as_nanos()).unwrap_or(0);
        let off = (self.skew.abs() - sure).max(0);
        let (outcome, fix) = match off {
            off if off >= SKEWED.1 => {
                (CheckOutcome::Fail, "certificates and tokens will be refused: run an NTP client")
            }
            off if off >= SKEWED.0 => (CheckOutcome::Warn, "run an NTP client on the wolf"),
            _ => (CheckOutcome::Pass, ""),
        };
        Check {
            id: "clock.skew".to_owned(),
            outcome: outcome.into(),
            message: format!(
                "the wolf's clock is {} ms {} of the manager's, give or take {:.1?}",
                self.skew.abs() / 1_000_000,
                if self.skew < 0 { "behind" } else { "ahead" },
                self.unsure
            ),
            fix: fix.to_owned(),
            facts: [("skew_ns".to_owned(), self.skew.to_string())].into(),
        }
    }
}

/// Measures throughput in both directions.
pub(super) async fn throughput(doctor: &mut Doctor) -> Check {
    let up = EchoRequest { payload: vec![0; MESSAGE].into(), answer_bytes: 0 };
    let size = u32::try_from(MESSAGE).unwrap_or(u32::MAX);
    let down = EchoRequest { payload: Default::default(), answer_bytes: size };
    let (up, down) = (one_way(doctor, &up).await, one_way(doctor, &down).await);
    let id = "tunnel.throughput".to_owned();
    let (up, down) = match (up, down) {
        (Ok(up), Ok(down)) => (up, down),
        (Err(status), _) | (_, Err(status)) => {
            return Check {
                id,
                outcome: CheckOutcome::Fail.into(),
                message: format!("the tunnel broke while it was measured: {}", status.message()),
                fix: "look at the network between the wolf and the broker".to_owned(),
                facts: Default::default(),
            };
        }
    };
    let narrow = up.min(down) < NARROW;
    let mib = |speed: u64| speed / (1 << 20);
    Check {
        id,
        outcome: if narrow { CheckOutcome::Warn } else { CheckOutcome::Pass }.into(),
        message: format!("{} MiB/s to the wolf, {} MiB/s from it", mib(up), mib(down)),
        fix: if narrow {
            "desktops and image uploads will be slow: look at the network between the wolf and \
             the broker"
                .to_owned()
        } else {
            String::new()
        },
        facts: [
            ("to_wolf_bytes_per_second".to_owned(), up.to_string()),
            ("from_wolf_bytes_per_second".to_owned(), down.to_string()),
        ]
        .into(),
    }
}

/// Bytes a second of such calls.
async fn one_way(doctor: &Doctor, request: &EchoRequest) -> Result<u64, Status> {
    let begun = Instant::now();
    let calls = stream::iter(0..MESSAGES)
        .take_while(|_| std::future::ready(begun.elapsed() < MEASURED))
        .map(|_| {
            let (mut doctor, request) = (doctor.clone(), request.clone());
            async move { doctor.echo(request).await }
        })
        .buffer_unordered(AHEAD);
    let mut calls = std::pin::pin!(calls);
    let mut bytes = 0u64;
    while let Some(answer) = calls.next().await {
        answer?;
        bytes += MESSAGE as u64;
    }
    let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
    Ok(bytes.saturating_mul(1_000_000) / micros)
}

fn unix_nanos() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trips(millis: &[u64], skew_millis: i128) -> Trips {
        let mut sorted: Vec<_> = millis.iter().map(|it| Duration::from_millis(*it)).collect();
        sorted.sort();
        let unsure = sorted[0] / 2;
        Trips { sorted, skew: skew_millis * 1_000_000, unsure }
    }

    #[test]
    fn a_far_wolf_is_slow_and_one_outlier_is_not() {
        let near = trips(&[1, 2, 2, 2, 900], 0).round_trip();
        assert_eq!(near.outcome(), CheckOutcome::Pass);
        assert_eq!(near.facts["median_us"], "2000");
        assert_eq!(near.facts["max_us"], "900000");
        let far = trips(&[300, 310, 320], 0).round_trip();
        assert_eq!(far.outcome(), CheckOutcome::Warn);
        assert!(!far.fix.is_empty());
    }

    #[test]
    fn clocks_are_off_only_by_more_than_the_trip_explains() {
        assert_eq!(trips(&[2], 900).clock().outcome(), CheckOutcome::Pass);
        assert_eq!(trips(&[2], -1_500).clock().outcome(), CheckOutcome::Warn);
        assert_eq!(trips(&[4_000], 1_500).clock().outcome(), CheckOutcome::Pass);
        let off = trips(&[2], -60_000).clock();
        assert_eq!(off.outcome(), CheckOutcome::Fail);
        assert!(off.message.contains("60000 ms behind"), "{}", off.message);
    }
}
