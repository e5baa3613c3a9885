//! The suites of the whole system live in this package's test targets; what
//! they share lives in `wolfpack-testkit`.
