//! How every process starts and stops: config, telemetry, signals, supervised tasks.
