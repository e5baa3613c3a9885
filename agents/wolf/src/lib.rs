//! The agent of a wolf: runs sandboxes on its Docker engine, reached only through its tunnel.
