//! The agent inside a sandbox: PID 1, exec, desktop, its own tunnel.
