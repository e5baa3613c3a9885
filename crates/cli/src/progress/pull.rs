//! How far an image is: in words, and as a bar for each layer under way.

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use wolfpack_proto::sandbox::v1::{LayerProgress, PullStatus};

use crate::output::amount;

/// Bars at a time; engines fetch three layers at once and unpack one.
const BARS: usize = 8;
/// Off a terminal a line is told for each such part of the whole, in percent.
const STEP: u64 = 10;

/// An image's progress in words.
pub(crate) struct PullText;

impl PullText {
    /// All of it on a line; empty while nothing is known.
    pub(crate) fn whole(pull: &PullStatus) -> String {
        let mut parts = Vec::new();
        match (pull.current_bytes, pull.total_bytes) {
            (_, 0) => {}
            (current, total) => parts.push(format!(
                "{} of {} ({} %)",
                amount(current.min(total)),
                amount(total),
                percent(pull)
            )),
        }
        if !pull.layers.is_empty() {
            let done = pull.layers.iter().filter(|layer| is_done(layer)).count();
            parts.push(format!("{done} of {} layers", pull.layers.len()));
        }
        if pull.bytes_per_second > 0 {
            parts.push(format!("{}/s", amount(pull.bytes_per_second)));
        }
        parts.join(", ")
    }
}

fn percent(pull: &PullStatus) -> u64 {
    let total = u128::from(pull.total_bytes.max(1));
    let part = u128::from(pull.current_bytes.min(pull.total_bytes)) * 100 / total;
    u64::try_from(part).unwrap_or(100)
}

/// As engines say it.
fn is_done(layer: &LayerProgress) -> bool {
    matches!(layer.state.as_str(), "Pull complete" | "Already exists")
}

/// Says when a line is due off a terminal.
#[derive(Debug, Default)]
pub(super) struct Steps {
    next: u64,
}

impl Steps {
    /// A line, when the image came as far as that since the last one.
    pub(super) fn line(&mut self, pull: &PullStatus) -> Option<String> {
        let percent = percent(pull);
        if pull.total_bytes == 0 || percent < self.next {
            return None;
        }
        self.next = percent - percent % STEP + STEP;
        Some(PullText::whole(pull))
    }
}

/// The bars of layers under way.
pub(super) struct Layers {
    all: MultiProgress,
    bars: BTreeMap<String, ProgressBar>,
}

impl Layers {
    pub(super) fn new(all: MultiProgress) -> Self {
        Self { all, bars: BTreeMap::new() }
    }

    pub(super) fn show(&mut self, pull: &PullStatus) {
        let under_way = |layer: &&LayerProgress| !is_done(layer) && layer.total_bytes > 0;
        let shown: Vec<_> = pull.layers.iter().filter(under_way).take(BARS).collect();
        self.bars.retain(|id, bar| {
            let stays = shown.iter().any(|layer| layer.id == *id);
            if !stays {
                bar.finish_and_clear();
            }
            stays
        });
        for layer in shown {
            let bar = self.bars.entry(layer.id.clone()).or_insert_with(|| self.all.add(bar(layer)));
            bar.set_length(layer.total_bytes);
            bar.set_position(layer.current_bytes.min(layer.total_bytes));
            bar.set_message(layer.state.clone());
        }
    }

    pub(super) fn clear(&mut self) {
        for bar in std::mem::take(&mut self.bars).into_values() {
            bar.finish_and_clear();
        }
    }
}

fn bar(layer: &LayerProgress) -> ProgressBar {
    let bar = ProgressBar::new(layer.total_bytes);
    let style = "  {prefix} {bar:24} {bytes:>11}/{total_bytes:11} {msg}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.set_prefix(layer.id.chars().take(12).collect::<String>());
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pull(current: u64, total: u64) -> PullStatus {
        let layer = |id: &str, state: &str| LayerProgress {
            id: id.into(),
            state: state.into(),
            current_bytes: 1 << 20,
            total_bytes: 2 << 20,
        };
        PullStatus {
            current_bytes: current,
            total_bytes: total,
            bytes_per_second: 12 << 20,
            layers: vec![
                layer("a", "Pull complete"),
                layer("b", "Downloading"),
                layer("c", "Already exists"),
            ],
        }
    }

    #[test]
    fn the_whole_is_told_with_layers_and_speed() {
        assert_eq!(
            PullText::whole(&pull(25 << 20, 100 << 20)),
            "25.00 MiB of 100.00 MiB (25 %), 2 of 3 layers, 12.00 MiB/s"
        );
        assert_eq!(PullText::whole(&PullStatus::default()), "");
        assert!(PullText::whole(&pull(9, 0)).starts_with("2 of 3 layers"));
    }

    #[test]
    fn a_line_comes_with_each_tenth_and_not_more_often() {
        let mut steps = Steps::default();
        let mut lines = 0;
        for current in 0..=1000 {
            lines += usize::from(steps.line(&pull(current, 1000)).is_some());
        }
        assert_eq!(lines, 11);
        assert!(steps.line(&pull(1000, 1000)).is_none());
        assert!(Steps::default().line(&pull(5, 0)).is_none(), "nothing is known yet");
    }

    #[test]
    fn bars_are_those_of_layers_under_way() {
        let all = MultiProgress::with_draw_target(indicatif::ProgressDrawTarget::hidden());
        let mut layers = Layers::new(all);
        layers.show(&pull(1, 2));
        assert_eq!(layers.bars.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(layers.bars["b"].position(), 1 << 20);
        layers.show(&PullStatus::default());
        assert!(layers.bars.is_empty());
    }
}
