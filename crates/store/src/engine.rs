//! The two engines.

use sea_orm::DbBackend;

/// Which database runs below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Embedded; one process.
    Sqlite,
    /// Shared by replicas.
    Postgres,
}

impl Engine {
    /// The engine of a URL; `None` when it is neither's.
    #[must_use]
    pub fn of_url(url: &str) -> Option<Self> {
        if url.starts_with("sqlite:") {
            Some(Self::Sqlite)
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Some(Self::Postgres)
        } else {
            None
        }
    }

    pub(crate) fn backend(self) -> DbBackend {
        match self {
            Self::Sqlite => DbBackend::Sqlite,
            Self::Postgres => DbBackend::Postgres,
        }
    }

    pub(crate) fn of_backend(backend: DbBackend) -> Self {
        match backend {
            DbBackend::Postgres => Self::Postgres,
            _ => Self::Sqlite,
        }
    }

    /// The database's clock as microseconds since 1970, as an expression. It
    /// reads the clock when it is evaluated, not when the transaction began.
    #[must_use]
    pub fn now_micros(self) -> &'static str {
        match self {
            Self::Sqlite => {
                "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) * 1000"
            }
            Self::Postgres => "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)",
        }
    }
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        })
    }
}
