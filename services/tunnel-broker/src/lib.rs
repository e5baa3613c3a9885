//! Tunnels and routes: agents attach, callers dial.
