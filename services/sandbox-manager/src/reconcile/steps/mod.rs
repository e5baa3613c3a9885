//! The steps that act on the world. Each is safe to repeat.

mod await_agent;
mod clear;
mod create;
mod logs;
mod place;
