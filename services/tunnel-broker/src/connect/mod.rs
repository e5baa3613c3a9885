//! How a connection comes to be, whoever asks for it: a caller of `Dial` or a
//! socket of an exposure.

mod counting;
mod dialing;
mod head;
mod spliced;

pub(crate) use counting::Counting;
pub(crate) use dialing::{Allowed, Dialing, Opened};
pub(crate) use head::Head;
pub(crate) use spliced::{link, park};
