//! What a broker decides, without IO.

pub mod access;
pub mod exposure;
pub mod hello;
pub mod target;
