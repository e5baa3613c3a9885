//! When agents attached, as their process tells it.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;

const SECOND: Duration = Duration::from_secs(1);

/// Every attach since it was told to forget.
pub(super) struct Attaches {
    heard: Arc<std::sync::Mutex<Vec<Duration>>>,
}

impl Attaches {
    /// Listens to a fleet that was started with its output piped, to its end.
    pub(super) fn of(fleet: &mut Child) -> anyhow::Result<Self> {
        let output = fleet.stdout.take().context("the fleet tells nothing")?;
        let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
        let list = heard.clone();
        // Ends with the fleet's output.
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let at = line.strip_prefix("attached ").and_then(|ms| ms.parse().ok());
                if let (Some(at), Ok(mut list)) = (at, list.lock()) {
                    list.push(Duration::from_millis(at));
                }
            }
        });
        Ok(Self { heard })
    }

    pub(super) fn forget(&self) {
        if let Ok(mut heard) = self.heard.lock() {
            heard.clear();
        }
    }

    /// The most of them within any one second.
    pub(super) fn most_in_a_second(&self) -> usize {
        self.heard.lock().map(|heard| most_in_a_second(heard.clone())).unwrap_or_default()
    }
}

fn most_in_a_second(mut times: Vec<Duration>) -> usize {
    times.sort_unstable();
    let mut first = 0;
    let mut most = 0;
    for (at, time) in times.iter().enumerate() {
        while *time - times[first] >= SECOND {
            first += 1;
        }
        most = most.max(at + 1 - first);
    }
    most
}

/// Passes on to standard output what agents send, a line for each.
pub(super) fn tell(attached: &Receiver<Duration>) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    for at in attached {
        // Nobody listens any more: the benchmark is over.
        if writeln!(out, "attached {}", at.as_millis()).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_second_counts_not_only_whole_ones() {
        let times = |ms: &[u64]| ms.iter().map(|ms| Duration::from_millis(*ms)).collect();
        assert_eq!(most_in_a_second(times(&[])), 0);
        assert_eq!(most_in_a_second(times(&[900, 0, 1100, 1850, 3000])), 3);
        assert_eq!(most_in_a_second(times(&[0, 1000, 2000])), 1);
    }
}
