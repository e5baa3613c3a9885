//! The tables as sea-orm sees them. Times are microseconds since 1970 in UTC,
//! so both engines compare them as numbers.

#![allow(unreachable_pub, reason = "sea-orm's macros make every part of an entity public")]

pub(crate) mod compaction;
pub(crate) mod label;
pub(crate) mod removed;
pub(crate) mod sandbox;
