//! Which uploads are under way: one of a digest at a time, the newest call.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wolfpack_types::{Fault, Reason};

/// The most uploads at a time.
const AT_A_TIME: usize = 4;
/// How long a newer call waits for the older one to end: that may be unpacking
/// already, which is not given up.
const PATIENCE: Duration = Duration::from_secs(600);

/// The images that an upload ended with, by name or id.
pub(super) type Loaded = Vec<String>;

#[derive(Clone, Default)]
pub(super) struct Uploads {
    under_way: Arc<Mutex<HashMap<String, Entry>>>,
}

struct Entry {
    superseded: CancellationToken,
    outcome: watch::Receiver<Option<Loaded>>,
}

/// The place of one upload; given up when dropped.
pub(super) struct Turn {
    digest: String,
    uploads: Uploads,
    outcome: watch::Sender<Option<Loaded>>,
    /// Cancelled when a newer call of the same digest came.
    pub(super) superseded: CancellationToken,
}

/// What a call finds.
pub(super) enum Entered {
    /// It is its turn.
    Turn(Turn),
    /// An older call loaded it meanwhile.
    Loaded(Loaded),
}

impl Turn {
    /// Tells a newer call that waits that it is done.
    pub(super) fn loaded(&self, images: Loaded) {
        self.outcome.send_replace(Some(images));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.uploads.under_way.lock().remove(&self.digest);
    }
}

impl Uploads {
    /// Digests that are under way.
    pub(super) fn active(&self) -> HashSet<String> {
        self.under_way.lock().keys().cloned().collect()
    }

    /// Takes the turn of a digest, after the older call that had it.
    ///
    /// # Errors
    /// `OVERLOADED` when too many uploads are under way; `SUPERSEDED` when the
    /// older call does not end.
    pub(super) async fn enter(&self, digest: &str) -> Result<Entered, Fault> {
        loop {
            let mut outcome = {
                let mut under_way = self.under_way.lock();
                match under_way.get(digest) {
                    Some(entry) => {
                        entry.superseded.cancel();
                        entry.outcome.clone()
                    }
                    None if under_way.len() >= AT_A_TIME => {
                        return Err(Fault::new(
                            Reason::Overloaded,
                            "the wolf takes as many uploads as it can; try again shortly",
                        )
                        .retry_in(Duration::from_secs(5)));
                    }
                    None => return Ok(Entered::Turn(self.turn(digest, &mut under_way))),
                }
            };
            let ended = tokio::time::timeout(PATIENCE, outcome.wait_for(Option::is_some)).await;
            match ended {
                Ok(Ok(images)) => return Ok(Entered::Loaded(images.clone().unwrap_or_default())),
                Ok(Err(_)) => {}
                Err(_) => {
                    return Err(Fault::new(
                        Reason::Superseded,
                        "an older upload of the same archive is being unpacked and does not end",
                    ));
                }
            }
        }
    }

    fn turn(&self, digest: &str, under_way: &mut HashMap<String, Entry>) -> Turn {
        let superseded = CancellationToken::new();
        let (outcome, seen) = watch::channel(None);
        let entry = Entry { superseded: superseded.clone(), outcome: seen };
        under_way.insert(digest.to_owned(), entry);
        Turn { digest: digest.to_owned(), uploads: self.clone(), outcome, superseded }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(entered: Entered) -> Turn {
        match entered {
            Entered::Turn(turn) => turn,
            Entered::Loaded(images) => panic!("already loaded: {images:?}"),
        }
    }

    #[tokio::test]
    async fn a_newer_call_takes_over_and_hears_what_the_older_one_loaded() {
        let uploads = Uploads::default();
        let first = turn(uploads.enter("d").await.unwrap());
        let (again, waiting) = (uploads.clone(), uploads.clone());
        let second = tokio::spawn(async move { again.enter("d").await });
        first.superseded.cancelled().await;
        drop(first);
        let second = turn(second.await.unwrap().unwrap());
        let third = tokio::spawn(async move { waiting.enter("d").await });
        second.superseded.cancelled().await;
        second.loaded(vec!["x:1".into()]);
        drop(second);
        assert!(
            matches!(third.await.unwrap().unwrap(), Entered::Loaded(images) if images == ["x:1"])
        );
        assert!(uploads.active().is_empty());
    }

    #[tokio::test]
    async fn only_so_many_at_a_time() {
        let uploads = Uploads::default();
        let mut held = Vec::new();
        for digest in 0..AT_A_TIME {
            held.push(turn(uploads.enter(&digest.to_string()).await.unwrap()));
        }
        let full = uploads.enter("more").await.err().unwrap();
        assert_eq!(full.reason, Reason::Overloaded);
        held.pop();
        assert!(uploads.enter("more").await.is_ok());
    }
}
