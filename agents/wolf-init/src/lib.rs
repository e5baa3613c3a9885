//! PID 1 of the wolf image.
