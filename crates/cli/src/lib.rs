//! The wolfpack binary: the CLI, and wolfpack dev (everything in one process).
