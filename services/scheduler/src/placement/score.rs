//! How good a fit is. Scores are comparable only among the hosts of one answer.

use wolfpack_types::capacity::{Demand, Free, Grant};

use super::filter::Strategy;
use super::host::Host;

/// Goods that are looked at: cpu, memory, disk, desktop slots, GPU thousandths.
const GOODS: usize = 5;

/// What a host would have left, beside all it has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    left: [u64; GOODS],
    all: [u64; GOODS],
}

impl Left {
    pub(super) fn after(host: &Host, demand: &Demand) -> Self {
        let capacity = host.ledger.capacity();
        let Free { cpu_milli, memory_bytes, disk_bytes, desktop_slots, gpu_milli, .. } =
            host.ledger.free();
        let gpu_wanted =
            demand.gpu.as_ref().map_or(0, |gpu| u64::from(gpu.count) * u64::from(gpu.share_milli));
        let left = |free: Option<u64>, wanted: u64| free.unwrap_or(0).saturating_sub(wanted);
        Self {
            left: [
                left(cpu_milli, demand.cpu_milli),
                left(memory_bytes, demand.memory_bytes),
                left(disk_bytes, demand.disk_bytes),
                left(Some(desktop_slots), u64::from(demand.desktop)),
                left(Some(gpu_milli), gpu_wanted),
            ],
            all: [
                capacity.cpu_milli.unwrap_or(0),
                capacity.memory_bytes.unwrap_or(0),
                capacity.disk_bytes.unwrap_or(0),
                u64::from(capacity.desktop_slots),
                capacity.devices.len() as u64 * 1000,
            ],
        }
    }
}

/// What scores are measured against: the largest leftover of each good among
/// the hosts of one answer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Scale {
    largest: [u64; GOODS],
}

impl Scale {
    pub(super) fn of<'a>(candidates: impl Iterator<Item = &'a Left>) -> Self {
        candidates.fold(Self::default(), |mut scale, candidate| {
            for (largest, left) in scale.largest.iter_mut().zip(candidate.left) {
                *largest = (*largest).max(left);
            }
            scale
        })
    }
}

/// The score of one host, from 0 to 1; higher is better. Where encoders are
/// preferred, any host that gives them is above all that do not.
pub(super) fn score(
    strategy: Strategy,
    demand: &Demand,
    grant: &Grant,
    scale: &Scale,
    host: &Left,
) -> f64 {
    let score = match strategy {
        Strategy::Pack => pack(demand, scale, host),
        Strategy::Spread => spread(demand, host),
    };
    if demand.encoder.is_none() {
        return score;
    }
    if grant.encoder.is_some() { 0.5 + score / 2.0 } else { score * 0.49 }
}

/// Best fit: the less is left the better. GPUs and desktop slots count although
/// the demand may not want any, which keeps plain work off the hosts that have
/// them.
fn pack(demand: &Demand, scale: &Scale, host: &Left) -> f64 {
    let counted = [true, true, demand.disk_bytes > 0, true, true];
    let (mut sum, mut count) = (0.0, 0.0);
    for (index, counted) in counted.into_iter().enumerate() {
        if counted {
            sum += ratio(host.left[index], scale.largest[index]);
            count += 1.0;
        }
    }
    1.0 - sum / count
}

/// Least loaded: the smallest free share of the goods that the demand takes.
fn spread(demand: &Demand, host: &Left) -> f64 {
    let counted = [
        demand.cpu_milli > 0,
        demand.memory_bytes > 0,
        demand.disk_bytes > 0,
        demand.desktop,
        demand.gpu.is_some(),
    ];
    counted
        .into_iter()
        .enumerate()
        .filter(|(_, counted)| *counted)
        .map(|(index, _)| ratio(host.left[index], host.all[index]))
        .fold(1.0, f64::min)
}

#[allow(clippy::cast_precision_loss, reason = "a score needs no more than 52 bits")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
