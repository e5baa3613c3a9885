//! The tunnel: a listener agents accept() from, and a byte stream dialers hold.
