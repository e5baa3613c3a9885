//! A Docker engine of one's own, for a wolf and for a sandbox that asked for
//! one: what stands around it is read, its networks are planned so that they
//! never overlap what is there, the place is prepared, dockerd is run and
//! watched, and names are resolved for its containers.

pub mod daemon;
pub mod dns;
pub mod outer;
pub mod place;
pub mod plan;
pub mod status;
