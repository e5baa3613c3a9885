//! A thread with a runtime of its own, for work that is better left on one core
//! than moved about.

use std::io;
use std::thread;

use tokio::runtime::{Builder, EnterGuard, Handle};

use crate::service::Context;

/// A thread that runs tasks of one service on a current-thread runtime until the
/// service's supervisor stops.
#[derive(Debug, Clone)]
pub struct DataThread {
    handle: Handle,
}

impl DataThread {
    /// Starts it. Tasks end with the runtime, which goes on for as long as the
    /// supervisor has tasks, but not past its shutdown.
    ///
    /// # Errors
    /// When the thread or its runtime cannot be made.
    pub fn start(name: &str, context: &Context) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (telemetry, supervisor) = (context.telemetry.clone(), context.supervisor.clone());
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _own = telemetry.own_thread();
            runtime.block_on(supervisor.ended());
        })?;
        Ok(Self { handle })
    }

    /// What is spawned while the guard lives is spawned there.
    pub fn enter(&self) -> EnterGuard<'_> {
        self.handle.enter()
    }
}
