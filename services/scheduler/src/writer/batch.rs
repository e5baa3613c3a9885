//! One batch: what it changes and whom it answers.

use wolfpack_types::{Fault, ReservationId};

use super::Reply;
use crate::domain::{Change, Record};

/// What a caller is told once the batch is written.
#[derive(Debug)]
pub(super) enum Answer {
    /// This.
    Ready(Box<Result<Record, Fault>>),
    /// What the store says of a reservation that is not live.
    Ended(ReservationId, Purpose),
}

/// Why an ended reservation is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To confirm it, which is too late.
    Confirm,
    /// To release it, which happened already.
    Release,
}

/// Decisions that wait for one commit.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) changes: Vec<Change>,
    pub(super) answers: Vec<(Reply, Answer)>,
}

impl Batch {
    pub(super) fn answer(&mut self, reply: Reply, answer: Result<Record, Fault>) {
        self.answers.push((reply, Answer::Ready(Box::new(answer))));
    }

    pub(super) fn look_up(&mut self, reply: Reply, id: ReservationId, purpose: Purpose) {
        self.answers.push((reply, Answer::Ended(id, purpose)));
    }

    /// Nothing was written: everybody is told why, also those whose answer
    /// needed no write, because it was made on top of what did not happen.
    pub(super) fn fail(self, fault: &Fault) {
        for (reply, _) in self.answers {
            let _ = reply.send(Err(fault.clone()));
        }
    }
}
