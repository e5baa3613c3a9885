//! Contract, integration, simulation, end-to-end and security suites.
