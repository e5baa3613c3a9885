//! Statements by hand, for what needs `ON CONFLICT ... RETURNING` with the
//! database's own clock in it. Both engines take `$1`.

use sea_orm::{ConnectionTrait, QueryResult, Statement, Value};

use crate::engine::Engine;
use crate::error::StoreError;

/// Runs `sql`, in which `{now}` is the database's clock in microseconds, and
/// answers its row if it has one.
pub(crate) async fn one<C: ConnectionTrait>(
    connection: &C,
    sql: &str,
    values: impl IntoIterator<Item = Value> + Send,
) -> Result<Option<QueryResult>, StoreError> {
    Ok(connection.query_one_raw(statement(connection, sql, values)).await?)
}

/// Runs `sql` and answers how many rows it changed.
pub(crate) async fn execute<C: ConnectionTrait>(
    connection: &C,
    sql: &str,
    values: impl IntoIterator<Item = Value> + Send,
) -> Result<u64, StoreError> {
    Ok(connection.execute_raw(statement(connection, sql, values)).await?.rows_affected())
}

fn statement<C: ConnectionTrait>(
    connection: &C,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Statement {
    let engine = Engine::of_backend(connection.get_database_backend());
    Statement::from_sql_and_values(
        engine.backend(),
        sql.replace("{now}", engine.now_micros()),
        values,
    )
}
