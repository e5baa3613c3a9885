//! For tests: in-process fleet, fake engine, fault relay, test CA.
