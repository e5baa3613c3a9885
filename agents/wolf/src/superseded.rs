//! How the process ends when a newer agent of its wolf took over: with an exit
//! code of its own, by which whoever keeps it leaves it ended. Started again it
//! would be the newer one, and the two would cut each other off for ever.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wolfpack_runtime::BoxError;
use wolfpack_types::Fault;

/// The exit code: a newer agent of this wolf took over.
pub const EXIT_SUPERSEDED: u8 = 66;

/// A newer agent of this wolf took over.
#[derive(Debug, thiserror::Error)]
#[error(
    "another agent of this wolf took over, and this one stays away ({0}); stop one of the two hosts, \
     or join one of them anew"
)]
pub(crate) struct Superseded(pub(crate) Fault);

/// Whether the agent ended so.
#[derive(Debug, Clone, Default)]
pub struct Watched(Arc<AtomicBool>);

impl Watched {
    /// Looks at how the agent ended, and passes it on.
    ///
    /// # Errors
    /// As it ended.
    pub fn see(&self, ended: Result<(), BoxError>) -> Result<(), BoxError> {
        if ended.as_ref().is_err_and(|error| error.is::<Superseded>()) {
            self.0.store(true, Ordering::Relaxed);
        }
        ended
    }

    /// The exit code of the process, which would otherwise be `code`.
    #[must_use]
    pub fn code(&self, code: ExitCode) -> ExitCode {
        if self.0.load(Ordering::Relaxed) { ExitCode::from(EXIT_SUPERSEDED) } else { code }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_types::Reason;

    #[test]
    fn only_one_that_was_superseded_ends_with_the_code_for_it() {
        let code = |ended: Result<(), BoxError>| {
            let watched = Watched::default();
            let code = ExitCode::from(u8::from(watched.see(ended).is_err()));
            format!("{:?}", watched.code(code))
        };
        let is = |code: u8| format!("{:?}", ExitCode::from(code));
        let fault = Fault::new(Reason::Superseded, "a newer one");
        assert_eq!(code(Err(Superseded(fault).into())), is(EXIT_SUPERSEDED));
        assert_eq!(code(Err("something else".into())), is(1));
        assert_eq!(code(Ok(())), is(0));
    }
}
