//! SIGTERM and SIGINT: the first is told, the second ends the process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::EXIT_SECOND_SIGNAL;

/// Tells the first signal.
#[derive(Debug)]
pub struct Signals {
    first: watch::Receiver<Option<&'static str>>,
}

/// Begins to listen. From here on the second signal exits with 130, whatever
/// the process is doing. Inside the async runtime only.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn watch() -> io::Result<Signals> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (tell, first) = watch::channel(None);
    // Outside the supervisor on purpose: it must outlive every shutdown.
    tokio::spawn(async move {
        let name = either(&mut terminate, &mut interrupt).await;
        let _ = tell.send(Some(name));
        either(&mut terminate, &mut interrupt).await;
        eprintln!("second signal: exiting at once");
        std::process::exit(i32::from(EXIT_SECOND_SIGNAL));
    });
    Ok(Signals { first })
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

impl Signals {
    /// Resolves with the first signal's name, also when asked again.
    pub async fn first(&mut self) -> &'static str {
        match self.first.wait_for(Option::is_some).await {
            Ok(name) => name.unwrap_or("a signal"),
            // The listener is gone with the runtime; nothing more will come.
            Err(_) => std::future::pending().await,
        }
    }
}
