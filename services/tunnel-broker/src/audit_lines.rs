//! What a test reads of the audit lines.

use std::fmt::Debug;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// Lines as `audit key=value ...`, in their order.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    /// A subscriber whose lines these are.
    pub(crate) fn dispatch(&self) -> Dispatch {
        Dispatch::new(tracing_subscriber::registry().with(self.clone()))
    }

    /// Those that came so far, which are forgotten.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        if !line.audit.is_empty() {
            self.0.lock().push(format!("{}{}", line.audit, line.rest));
        }
    }
}

#[derive(Default)]
struct Line {
    audit: String,
    rest: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => {}
            "audit" => self.audit = format!("{value:?}").trim_matches('"').to_owned(),
            name => self.rest.push_str(&format!(" {name}={value:?}")),
        }
    }
}

/// The audit lines of what `work` does on this thread.
pub(crate) fn of(work: impl FnOnce()) -> Vec<String> {
    let lines = Lines::default();
    tracing::dispatcher::with_default(&lines.dispatch(), work);
    lines.take()
}
