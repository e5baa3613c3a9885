//! One look over the fleet: who fits, how well, and why the others do not.

use std::collections::BTreeMap;
use std::sync::Arc;

use wolfpack_types::capacity::Grant;

use super::filter::{Order, Refusal, check};
use super::host::Host;
use super::score::{Left, Scale, score};

/// A host that takes the order.
#[derive(Debug, Clone)]
pub struct Fit<'a> {
    /// The host.
    pub host: &'a Host,
    /// The devices it would give.
    pub grant: Grant,
    /// How well it fits; higher is better.
    pub score: f64,
    /// Whether it holds the image.
    pub holds_image: bool,
}

/// Every host that the tenant sees, each exactly once.
#[derive(Debug, Default)]
pub struct Ranking<'a> {
    /// Hosts that fit, best first; of equal scores those that hold the image
    /// come first, then by id.
    pub fits: Vec<Fit<'a>>,
    /// The others, in the order they were given.
    pub refused: Vec<(&'a Host, Refusal<'a>)>,
}

impl Ranking<'_> {
    /// How many hosts each blocker refuses.
    #[must_use]
    pub fn blocked_by(&self) -> BTreeMap<&'static str, u32> {
        let mut counts = BTreeMap::new();
        for (_, refusal) in &self.refused {
            *counts.entry(refusal.blocker()).or_default() += 1;
        }
        counts
    }
}

/// No host takes the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoFit {
    /// How many hosts the tenant sees.
    pub seen: u32,
    /// How many of them each blocker refuses; adds up to `seen`.
    pub blocked_by: BTreeMap<&'static str, u32>,
    /// The refusal that most hosts share, in words, if there are hosts.
    pub example: Option<String>,
}

/// Judges every host that the tenant sees.
#[must_use]
pub fn rank<'a>(hosts: &'a [Arc<Host>], order: &'a Order) -> Ranking<'a> {
    let mut ranking = Ranking::default();
    let mut candidates: Vec<(&Host, Grant, Left)> = Vec::new();
    for host in hosts.iter().map(AsRef::as_ref).filter(|host| order.tenant.sees(host)) {
        match check(host, order) {
            Ok(grant) => candidates.push((host, grant, Left::after(host, &order.demand))),
            Err(refusal) => ranking.refused.push((host, refusal)),
        }
    }
    let scale = Scale::of(candidates.iter().map(|(_, _, left)| left));
    ranking.fits = candidates
        .into_iter()
        .map(|(host, grant, left)| Fit {
            host,
            score: score(order.strategy, &order.demand, &grant, &scale, &left),
            grant,
            holds_image: host.offer.holds(&order.image),
        })
        .collect();
    ranking.fits.sort_by(|one, other| {
        let by_score = other.score.total_cmp(&one.score);
        let by_image = || other.holds_image.cmp(&one.holds_image);
        by_score.then_with(by_image).then_with(|| one.host.id.cmp(&other.host.id))
    });
    ranking
}

/// The best host for the order.
///
/// # Errors
/// When none takes it.
pub fn best<'a>(hosts: &'a [Arc<Host>], order: &'a Order) -> Result<Fit<'a>, NoFit> {
    let mut ranking = rank(hosts, order);
    if !ranking.fits.is_empty() {
        return Ok(ranking.fits.swap_remove(0));
    }
    let blocked_by = ranking.blocked_by();
    let most = blocked_by.iter().max_by_key(|(_, count)| **count).map(|(blocker, _)| *blocker);
    let example = ranking
        .refused
        .iter()
        .find(|(_, refusal)| Some(refusal.blocker()) == most)
        .map(|(_, refusal)| refusal.to_string());
    let seen = u32::try_from(ranking.refused.len()).unwrap_or(u32::MAX);
    Err(NoFit { seen, blocked_by, example })
}
