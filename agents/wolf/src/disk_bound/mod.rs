//! Keeps sandboxes from filling the wolf's disk, from outside of them: whoever
//! is root in a sandbox can end whatever watches in there.
//!
//! Where the engine keeps layers and volumes to a quota there is nothing to
//! watch. Elsewhere what each sandbox wrote is measured, the more often the
//! more it may matter, and a sandbox that goes beyond its disk is ended.

mod decide;
mod deleted;
mod due;
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wolfpack_types::Reason;
use wolfpack_types::sandbox_boot::DOCKER_DATA;

use crate::config::ImagesConfig;
use crate::engine::{ContainerState, EngineUsage, Written};
use crate::images::{DiskSource, Space, bytes};
use crate::lifecycle::{Lifecycle, Observed, Ready};
use crate::metrics::Metrics;
use crate::sandbox::{directory, labels};
use decide::{Rule, Use, decide};
use due::{Disk, Last};

/// How often the free space is looked at, which costs nothing.
const TICK: Duration = Duration::from_secs(1);
/// The longest that one tree is walked at a time; what was not reached by then
/// is not counted, and said to be so.
const WALK: Duration = Duration::from_secs(20);
/// The longest that the open files of all processes are looked through.
const PROCESSES: Duration = Duration::from_secs(5);
/// The longest that a look goes on walking; the others have their turn at the
/// next one.
const LOOK: Duration = Duration::from_secs(30);
/// Between two counts of the engine's own, which walk all it has: that often,
/// and at most one part of the time in so many.
const COUNT: Duration = Duration::from_secs(60);
const COUNT_SHARE: u32 = 10;

/// How patient the watch is with a disk below its reserve.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// So long the disk must stay below: pulls are given up and unused images
    /// go first.
    pub patience: Duration,
    /// After one was ended for want of space its data is on its way out so
    /// long, and no other is ended for it.
    pub settle: Duration,
    /// The same while its owner has not removed it yet.
    pub unfreed: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(8),
            settle: Duration::from_secs(15),
            unfreed: Duration::from_secs(120),
        }
    }
}

/// What the watch is made of.
pub struct Parts {
    /// The sandboxes.
    pub lifecycle: Lifecycle,
    /// Measures free space.
    pub disk: Arc<dyn DiskSource>,
    /// How much of the disk stays free.
    pub config: ImagesConfig,
    /// The sandboxes' directories.
    pub root: PathBuf,
    /// Counts what is ended.
    pub metrics: Metrics,
    /// How patient it is.
    pub pace: Pace,
}

/// Watches what sandboxes write, and ends those that write too much.
pub struct DiskBound {
    parts: Parts,
}

/// What is known between two looks.
#[derive(Default)]
pub struct Known {
    sandboxes: BTreeMap<String, Sandbox>,
    /// The engine's own count, with when and how long it took.
    counted: Option<(Instant, Duration, EngineUsage)>,
    told_of_count: bool,
    below_since: Option<Instant>,
    ended_for_space: Option<Instant>,
}

/// One sandbox's container.
#[derive(Default)]
struct Sandbox {
    written: Option<Written>,
    /// Whether its files cannot be read here, so that the engine must count.
    by_engine: bool,
    last: Option<Last>,
    counted: Counted,
    /// Bytes of deleted files that it has open.
    deleted: u64,
    bound: u64,
}

impl Sandbox {
    /// Its volumes and the rest have the bound each, as by quota. Where deleted
    /// files are cannot be seen: they count where they count most.
    fn used(&self) -> Use {
        let most = self.counted.volumes.max(self.counted.own).saturating_add(self.deleted);
        Use { bound: self.bound, most, hidden: self.counted.hidden }
    }
}

impl DiskBound {
    /// A watch; nothing is done before [`DiskBound::keep`].
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self { parts }
    }

    #[cfg(test)]
    pub(crate) fn pace(&mut self, pace: Pace) {
        self.parts.pace = pace;
    }

    /// Watches until stopped.
    pub async fn keep(&self, stop: CancellationToken) {
        let mut known = Known::default();
        loop {
            tokio::select! {
                () = self.look(&mut known) => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Looks once: measures what is due and ends what goes too far.
    pub async fn look(&self, known: &mut Known) {
        let Some(ready) = self.parts.lifecycle.ready_now() else { return };
        let all = self.parts.lifecycle.observer().snapshot();
        let unfreed = all.iter().any(|seen| seen.reason == Some(Reason::SandboxDiskExceeded));
        let running: Vec<Observed> = all
            .into_iter()
            .filter(|seen| seen.container.state == ContainerState::Running)
            .collect();
        known.sandboxes.retain(|id, _| running.iter().any(|seen| seen.container.id == *id));
        let disk = self.disk(&ready).await;
        let mut due: Vec<&Observed> = Vec::new();
        for seen in &running {
            let sandbox = known.sandboxes.entry(seen.container.id.clone()).or_default();
            sandbox.bound = bound(seen);
            if due::due(sandbox.last.as_ref(), Instant::now(), disk, sandbox.bound) {
                due.push(seen);
            }
        }
        // Who waited longest first, so that no slow one keeps others unseen.
        due.sort_by_key(|seen| known.last_of(seen));
        let began = Instant::now();
        let mut ended = 0;
        for seen in due {
            if began.elapsed() >= LOOK {
                break;
            }
            let used = self.measure(known, seen, &ready, disk).await;
            if goes(used, Rule::Bound)
                && self.end_again_seen(known, seen, &ready, Rule::Bound).await
            {
                ended += 1;
            }
        }
        // What was measured took its time.
        let disk = self.disk(&ready).await;
        if disk.free >= disk.reserve {
            known.below_since = None;
            return;
        }
        let pace = self.parts.pace;
        let below = known.below_since.get_or_insert_with(Instant::now).elapsed();
        let settling = known.ended_for_space.is_some_and(|at| {
            at.elapsed() < pace.settle || (unfreed && at.elapsed() < pace.unfreed)
        });
        if ended > 0 || settling || below < pace.patience {
            return;
        }
        let uses: Vec<Use> = running.iter().map(|seen| known.used(seen)).collect();
        let worst = decide(&uses, true, false).into_iter().find(|(_, rule)| *rule == Rule::Space);
        if let Some(seen) = worst.and_then(|(at, _)| running.get(at))
            && self.end_again_seen(known, seen, &ready, Rule::Space).await
        {
            known.ended_for_space = Some(Instant::now());
        }
    }

    /// Ends a sandbox when a second count says the same: files that moved while
    /// they were counted count twice, and what it wrote may be gone by now.
    async fn end_again_seen(
        &self,
        known: &mut Known,
        seen: &Observed,
        ready: &Ready,
        rule: Rule,
    ) -> bool {
        let disk = self.disk(ready).await;
        let used = self.measure(known, seen, ready, disk).await;
        goes(used, rule) && self.end(seen, used, rule).await
    }

    async fn disk(&self, ready: &Ready) -> Disk {
        let (source, root) = (self.parts.disk.clone(), ready.engine.data_root.clone());
        let looked =
            tokio::task::spawn_blocking(move || root.and_then(|root| source.space(&root))).await;
        // One that is not seen is not short.
        let space = looked.ok().flatten();
        let device = space.map_or(0, |space| space.device);
        let free = space.map_or(u64::MAX, |space: Space| space.free);
        let reserve = space.map_or(0, |space| self.parts.config.reserve(space.total));
        Disk { free, reserve, short: reserve.saturating_mul(2), device }
    }

    /// What a sandbox has of deleted files, which no folder shows.
    async fn deleted(&self, id: &str, disk: Disk) -> u64 {
        let ids = [id.to_owned()];
        let until = std::time::Instant::now() + PROCESSES;
        let counting = tokio::task::spawn_blocking(move || {
            deleted::count(Path::new("/proc"), &ids, disk.device, until)
        });
        counting.await.ok().and_then(|found| found.get(id).copied()).unwrap_or(0)
    }

    /// Counts what one wrote. What it deletes meanwhile is in neither count
    /// rather than in both: the deleted files are counted first.
    async fn measure(&self, known: &mut Known, seen: &Observed, ready: &Ready, disk: Disk) -> Use {
        let id = &seen.container.id;
        let began = Instant::now();
        let by_quota = ready.quota.containers && ready.quota.volumes;
        let deleted = if by_quota { 0 } else { self.deleted(id, disk).await };
        let before = known.used(seen).most;
        if let Some(sandbox) = known.sandboxes.get_mut(id) {
            // Also of one that cannot be measured now: it is tried again as others are.
            let (ended, took) = (began, Duration::ZERO);
            sandbox.last = Some(Last { ended, took, used: before, free: disk.free });
        }
        if let Some(counted) = self.counted(known, seen, ready, disk).await
            && let Some(sandbox) = known.sandboxes.get_mut(id)
        {
            (sandbox.counted, sandbox.deleted) = (counted, deleted);
            let (used, ended) = (sandbox.used().most, Instant::now());
            sandbox.last = Some(Last { ended, took: ended - began, used, free: disk.free });
        }
        known.used(seen)
    }

    /// What the folders of one hold; `None` when that is not known now.
    async fn counted(
        &self,
        known: &mut Known,
        seen: &Observed,
        ready: &Ready,
        disk: Disk,
    ) -> Option<Counted> {
        let id = &seen.container.id;
        let sandbox = known.sandboxes.get_mut(id)?;
        if sandbox.written.is_none() {
            match self.parts.lifecycle.engine().written(id).await {
                Ok(written) => sandbox.written = written,
                Err(error) => tracing::debug!(%error, "where a sandbox writes is not known"),
            }
        }
        let written = sandbox.written.clone()?;
        if !sandbox.by_engine {
            let (places, until) =
                (self.places(seen, &written, ready), std::time::Instant::now() + WALK);
            match tokio::task::spawn_blocking(move || places.count(until)).await {
                Ok(Ok(counted)) => return Some(counted),
                Ok(Err(error)) if self.is_out_of_reach(&error, ready).await => {
                    sandbox.by_engine = true;
                    if !std::mem::replace(&mut known.told_of_count, true) {
                        tracing::warn!(%error, "the files of the engine cannot be read here: it counts by itself what sandboxes write, which is seldom and slow; run the agent as root on the engine's host");
                    }
                }
                // It is being removed.
                Ok(Err(_)) => return None,
                Err(error) => {
                    tracing::warn!(%error, "what a sandbox wrote was not measured");
                    return None;
                }
            }
        }
        self.count(known, disk).await;
        let (_, _, usage) = known.counted.as_ref()?;
        let volumes = written.volumes.iter().filter(|it| watched(&it.target, ready, seen));
        let volumes = volumes.filter_map(|it| usage.volumes.get(&it.name)).sum();
        let layer = usage.layers.get(id).copied().filter(|_| !kept(ready.quota.containers, seen));
        Some(Counted { volumes, own: layer.unwrap_or(0), hidden: false })
    }

    /// Whether nothing of the engine's can be read here, not only what is going
    /// away just now.
    async fn is_out_of_reach(&self, error: &std::io::Error, ready: &Ready) -> bool {
        if error.kind() != std::io::ErrorKind::NotFound {
            return true;
        }
        let Some(root) = ready.engine.data_root.clone() else { return true };
        tokio::fs::metadata(root).await.is_err()
    }

    /// Has the engine count, when its last count is old enough.
    async fn count(&self, known: &mut Known, disk: Disk) {
        let hurries = disk.free < disk.short;
        let fresh = known.counted.as_ref().is_some_and(|(at, took, _)| {
            let pause = if hurries { COUNT / 6 } else { COUNT };
            at.elapsed() < pause.max(*took * COUNT_SHARE)
        });
        if fresh {
            return;
        }
        let began = Instant::now();
        match self.parts.lifecycle.engine().usage().await {
            Ok(usage) => known.counted = Some((Instant::now(), began.elapsed(), usage)),
            Err(error) => {
                tracing::warn!(%error, "the engine does not count what sandboxes write");
                let usage = known.counted.take().map(|(_, _, usage)| usage).unwrap_or_default();
                known.counted = Some((Instant::now(), began.elapsed(), usage));
            }
        }
    }

    fn places(&self, seen: &Observed, written: &Written, ready: &Ready) -> Places {
        let volumes = written.volumes.iter().filter(|it| watched(&it.target, ready, seen));
        let layer = written.layer.clone().filter(|_| !kept(ready.quota.containers, seen));
        Places {
            volumes: volumes.map(|it| it.path.clone()).collect(),
            layer,
            directory: directory::path(&self.parts.root, &seen.identity.sandbox),
        }
    }

    async fn end(&self, seen: &Observed, used: Use, rule: Rule) -> bool {
        let why = match rule {
            Rule::Bound => "it wrote more than its disk".to_owned(),
            Rule::Space => "the wolf's disk is below its reserve, and it had the most".to_owned(),
        };
        let of = if used.bound > 0 { bytes(used.bound) } else { "no bound".to_owned() };
        let words = format!("{why}: {} of {of}", bytes(used.most));
        let sandbox = &seen.identity.sandbox;
        let ended =
            self.parts.lifecycle.end(seen, Reason::SandboxDiskExceeded, words.clone()).await;
        match ended {
            Ok(true) => {
                self.parts.metrics.ended_for_disk(rule.as_str());
                tracing::warn!(%sandbox, used = used.most, bound = used.bound, rule = rule.as_str(), words, "ended a sandbox for what it wrote");
                true
            }
            Ok(false) => false,
            Err(error) => {
                tracing::warn!(%sandbox, %error, "a sandbox that wrote too much is not ended; it is tried again");
                false
            }
        }
    }
}

impl Known {
    fn used(&self, seen: &Observed) -> Use {
        self.sandboxes.get(&seen.container.id).map(Sandbox::used).unwrap_or_default()
    }

    fn last_of(&self, seen: &Observed) -> Option<Instant> {
        Some(self.sandboxes.get(&seen.container.id)?.last.as_ref()?.ended)
    }
}

/// Whether this use alone is reason enough. Who is beyond its bound goes for
/// want of space as well.
fn goes(used: Use, rule: Rule) -> bool {
    !decide(&[used], rule == Rule::Space, false).is_empty()
}

/// Bytes that a sandbox may write, by what it holds; 0 for no bound.
fn bound(seen: &Observed) -> u64 {
    labels::read(&seen.container.labels).map_or(0, |(_, goods)| goods.holding.disk_bytes)
}

/// Whether the engine keeps this to the sandbox's size by itself.
fn kept(by_quota: bool, seen: &Observed) -> bool {
    by_quota && bound(seen) > 0
}

/// Whether the volume at this place of a sandbox must be watched.
fn watched(target: &str, ready: &Ready, seen: &Observed) -> bool {
    target != DOCKER_DATA || !kept(ready.quota.volumes, seen)
}

/// Where a sandbox's bytes are.
struct Places {
    volumes: Vec<PathBuf>,
    layer: Option<PathBuf>,
    directory: PathBuf,
}

/// How many there are.
#[derive(Debug, Default)]
struct Counted {
    volumes: u64,
    own: u64,
    hidden: bool,
}

impl Places {
    /// Walks all of it. Blocking, to the deadline at most.
    fn count(&self, until: std::time::Instant) -> std::io::Result<Counted> {
        let mut counted = Counted::default();
        for volume in &self.volumes {
            let found = tree::count(volume, until)?;
            counted.volumes = counted.volumes.saturating_add(found.bytes);
            counted.hidden |= found.hidden;
        }
        for place in self.layer.iter().chain([&self.directory]) {
            let found = match tree::count(place, until) {
                Err(_) if *place == self.directory => continue,
                found => found?,
            };
            counted.own = counted.own.saturating_add(found.bytes);
            counted.hidden |= found.hidden;
        }
        Ok(counted)
    }
}
