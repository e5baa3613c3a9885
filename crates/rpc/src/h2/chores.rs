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

enum Chore {
    Dead,
    Leave,
    Refuse,
    Window(u32),
}

/// The rare events of a connection: the peer is dead, we are to leave, the budget
/// changes the windows.
pub(super) struct Chores {
    rare: Rarely<'static, Chore>,
    budget: ByteBudget,
    /// A window that the peer was not told of yet.
    due: Option<u32>,
}

/// What the connection must do.
pub(super) enum Duty {
    /// The peer is dead: end.
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
        let (interval, timeout) = (settings.keepalive, settings.keepalive_timeout);
        rare.add(async move {
            dead(heard, ping, interval, timeout).await;
            Chore::Dead
        });
        let chores = Self { rare, budget: budget.clone(), due: None };
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

    /// What there is to do now, but for a change of windows, which is
    /// [`Chores::tell`]'s.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Duty> {
        while let Poll::Ready(chore) = self.rare.poll(cx) {
            match chore {
                Chore::Dead => return Poll::Ready(Duty::End),
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
            }
        }
        Poll::Pending
    }

    /// Tells the peer of other windows by `set`, which refuses while the change
    /// before is not acknowledged. To be called after the connection was polled,
    /// which is when an acknowledgement is seen; true when it is to be polled again,
    /// to send what was set.
    pub(super) fn tell(&mut self, set: impl FnOnce(u32) -> Result<(), h2::Error>) -> bool {
        let told = self.due.is_some_and(|window| set(window).is_ok());
        if told {
            self.due = None;
        }
        told
    }

    fn follow(&self, window: u32) {
        let change = self.budget.clone().changed(window);
        self.rare.add(async move { Chore::Window(change.await) });
    }
}
