//! The life of sandboxes: create, reconcile, exec, desktop.
