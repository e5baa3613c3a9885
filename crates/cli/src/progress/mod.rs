//! How a sandbox comes up, stage by stage: a spinner on a terminal, plain
//! lines off it. Always on stderr; stdout belongs to the result.

mod pull;

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use wolfpack_proto::sandbox::v1::{PullStatus, SandboxState};

pub(crate) use pull::PullText;
use pull::{Layers, Steps};

/// The stages, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Placing,
    Pulling,
    Starting,
    Attaching,
}

impl Stage {
    fn as_str(self) -> &'static str {
        match self {
            Self::Placing => "placing",
            Self::Pulling => "pulling",
            Self::Starting => "starting",
            Self::Attaching => "attaching",
        }
    }
}

/// The stages that a state begins: a container that was made has been started,
/// and its agent attaches.
fn stages(state: SandboxState) -> &'static [Stage] {
    match state {
        SandboxState::Pending | SandboxState::Scheduling => &[Stage::Placing],
        SandboxState::Pulling => &[Stage::Pulling],
        SandboxState::Starting => &[Stage::Starting, Stage::Attaching],
        _ => &[],
    }
}

/// Shows the stages of one sandbox.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    began: Instant,
    shown: Option<Stage>,
    /// The last that was said about a state.
    said: String,
    steps: Steps,
    layers: Layers,
}

impl Progress {
    pub(crate) fn start(name: &str) -> Self {
        let target = ProgressDrawTarget::stderr();
        let all = MultiProgress::with_draw_target(target);
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = all.add(ProgressBar::new_spinner());
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} {prefix}: {msg} {elapsed:.dim}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self {
            bar,
            began: Instant::now(),
            shown: None,
            said: String::new(),
            steps: Steps::default(),
            layers: Layers::new(all),
        }
    }

    /// Tells a state, what is said about it, and how far its image is.
    pub(crate) fn state(&mut self, state: SandboxState, message: &str, pull: Option<&PullStatus>) {
        for stage in stages(state) {
            match &self.bar {
                Some(bar) if message.is_empty() => bar.set_message(stage.as_str()),
                Some(bar) => bar.set_message(format!("{} ({message})", stage.as_str())),
                // A stage may come again when a wolf refused; a line tells it once.
                None if !message.is_empty() && message != self.said => {
                    tell(&format!("{}: {message}", stage.as_str()));
                }
                None if self.shown.is_none_or(|shown| shown < *stage) => tell(stage.as_str()),
                None => {}
            }
            self.shown = self.shown.max(Some(*stage));
            message.clone_into(&mut self.said);
        }
        match pull.filter(|_| state == SandboxState::Pulling) {
            Some(pull) => self.pull(pull),
            None => self.layers.clear(),
        }
    }

    fn pull(&mut self, pull: &PullStatus) {
        match &self.bar {
            Some(bar) => {
                let text = PullText::whole(pull);
                if !text.is_empty() {
                    bar.set_message(format!("{} {text}", Stage::Pulling.as_str()));
                }
                self.layers.show(pull);
            }
            None => {
                if let Some(line) = self.steps.line(pull) {
                    tell(&format!("{}: {line}", Stage::Pulling.as_str()));
                }
            }
        }
    }

    /// The last that was said about its state; empty when nothing was.
    pub(crate) fn said(&self) -> &str {
        &self.said
    }

    /// Ends it with a last line.
    pub(crate) fn running(mut self) {
        self.layers.clear();
        let took = format!("{:.2} s", self.began.elapsed().as_secs_f64());
        match self.bar {
            Some(bar) => {
                let line = format!("{}: running after {took}", bar.prefix());
                bar.finish_and_clear();
                tell(&line);
            }
            None => tell(&format!("running after {took}")),
        }
    }

    /// Ends it without a word: an error follows.
    pub(crate) fn clear(mut self) {
        self.layers.clear();
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A line on stderr; a reader that has gone does not stop the waiting.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_of_a_life_come_in_order_and_each_is_there() {
        let life = [
            SandboxState::Pending,
            SandboxState::Scheduling,
            SandboxState::Pulling,
            SandboxState::Starting,
        ];
        let mut seen: Vec<Stage> = life.into_iter().flat_map(stages).copied().collect();
        seen.dedup();
        assert_eq!(seen, [Stage::Placing, Stage::Pulling, Stage::Starting, Stage::Attaching]);
        assert!(seen.is_sorted());
    }
}
