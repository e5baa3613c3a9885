//! What has to be looked after in the life of a connection, beside its streams.

use std::task::{Context, Poll};
use std::time::Duration;

use h2::PingPong;
use wolfpack_runtime::rarely::Rarely;

use super::alive::{Heard, dead};
use super::{ByteBudget, Settings};

/// How long a peer may open streams once it is told not to. It is told the last
/// one that counts only when it has acknowledged that, which it may put off.
const HEARS: Duration = Duration::from_secs(5);

/// How long a peer may take to acknowledge other windows, up to twice that where
/// they change meanwhile. They count from then on
/// only, so one that never does would send ahead as far as ever.
const ACKNOWLEDGES: Duration = Duration::from_secs(60);

enum Chore {
    Dead,
    Nothing,
    Leave,
    Refuse,
    Window(u32),
    /// The time to acknowledge the so manieth change is over.
    Late(u64),
}

/// A peer that does not acknowledge other windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deaf;

/// The rare events of a connection: the peer is dead, we are to leave, the budget
/// changes the windows.
pub(super) struct Chores {
    rare: Rarely<'static, Chore>,
    budget: ByteBudget,
    /// A window that the peer was not told of yet.
    due: Option<u32>,
    /// What it was told last, and how often it was told.
    told: (u32, u64),
    /// Its time to acknowledge that runs.
    timed: bool,
    /// It had its time.
    late: bool,
}

/// What the connection must do.
pub(super) enum Duty {
    /// The peer is dead, or nobody: end.
    End,
    /// Say that no more streams are taken.
    Leave,
    /// Take no more of them: the peer had its time to hear of it.
    Refuse,
}

impl Chores {
    /// `window` is what the connection begins with.
    pub(super) fn new(
        heard: Heard,
        ping: Option<PingPong>,
        settings: &Settings,
        budget: &ByteBudget,
        window: u32,
    ) -> Self {
        let rare = Rarely::new();
        let times = (settings.keepalive, settings.keepalive_timeout);
        let (budget, of) = (budget.clone(), budget.clone());
        rare.add(async move {
            dead(heard, ping, times, || of.settle()).await;
            Chore::Dead
        });
        let chores = Self { rare, budget, due: None, told: (window, 0), timed: false, late: false };
        chores.follow(window);
        chores
    }

    /// Leaves once `leave` ends.
    pub(super) fn leave_after(&self, leave: impl Future<Output = ()> + Send + 'static) {
        self.rare.add(async move {
            leave.await;
            Chore::Leave
        });
    }

    /// Ends the connection where `end` says so.
    pub(super) fn end_if(&self, end: impl Future<Output = bool> + Send + 'static) {
        self.rare.add(async move { if end.await { Chore::Dead } else { Chore::Nothing } });
    }

    /// What there is to do now, but for a change of windows, which is
    /// [`Chores::tell`]'s.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Duty> {
        while let Poll::Ready(chore) = self.rare.poll(cx) {
            match chore {
                Chore::Dead => return Poll::Ready(Duty::End),
                Chore::Nothing => {}
                Chore::Leave => {
                    self.rare.add(async {
                        tokio::time::sleep(HEARS).await;
                        Chore::Refuse
                    });
                    return Poll::Ready(Duty::Leave);
                }
                Chore::Refuse => return Poll::Ready(Duty::Refuse),
                Chore::Window(window) => {
                    self.due = Some(window);
                    self.follow(window);
                }
                // Of one before the last: that was acknowledged, as another could be told.
                Chore::Late(of) if of != self.told.1 => {
                    self.timed = false;
                    self.give_time();
                }
                Chore::Late(_) => (self.timed, self.late) = (false, true),
            }
        }
        Poll::Pending
    }

    /// Tells the peer of other windows by `set`, which refuses while the change
    /// before is not acknowledged. To be called after the connection was polled,
    /// which is when an acknowledgement is seen; true when it is to be polled again,
    /// to send what was set.
    ///
    /// # Errors
    /// When the peer had a minute to acknowledge a change, and did not: h2 tells only
    /// by refusing another one.
    pub(super) fn tell(
        &mut self,
        set: impl FnOnce(u32) -> Result<(), h2::Error>,
    ) -> Result<bool, Deaf> {
        let late = std::mem::take(&mut self.late);
        let Some(window) = self.due.or_else(|| late.then_some(self.told.0)) else {
            return Ok(false);
        };
        if set(window).is_err() {
            if late {
                return Err(Deaf);
            }
            // It may be the one that was set to find out that is not acknowledged.
            self.give_time();
            return Ok(false);
        }
        if self.due.take().is_some() {
            self.told = (window, self.told.1 + 1);
            self.give_time();
        }
        Ok(true)
    }

    /// One timer, however often there is something to acknowledge: one that finds
    /// another change than it was set for begins anew.
    fn give_time(&mut self) {
        if !std::mem::replace(&mut self.timed, true) {
            let count = self.told.1;
            self.rare.add(async move {
                tokio::time::sleep(ACKNOWLEDGES).await;
                Chore::Late(count)
            });
        }
    }

    fn follow(&self, window: u32) {
        let change = self.budget.clone().changed(window);
        self.rare.add(async move { Chore::Window(change.await) });
    }
}
