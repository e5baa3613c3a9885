//! Pool, transaction helper, migrations runner, idempotency table, leases.
