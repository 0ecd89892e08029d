//! The two databases: how they are opened, and the few words that differ.
//!
//! One SQL text serves both, through sqlx's `Any` driver: `$1` is a placeholder to SQLite too, and text and 64-bit integers are all
//! that the tables hold, which is all that `Any` can carry. A second set of statements would be a second catalog to keep
//! right. What `Any` cannot do is done here: options beyond the URL are pragmas on each new connection, and
//! [`super::sql::Sql`] numbers its placeholders, since `QueryBuilder` writes `?`, which PostgreSQL does not read.
//!
//! Sources: <https://sqlite.org/wal.html>, <https://sqlite.org/lang_transaction.html>,
//! <https://www.postgresql.org/docs/15/explicit-locking.html>. SQLite: WAL mode, every commit synced; a transaction that writes
//! takes the write lock first, so that what it reads is what it changes. PostgreSQL: READ COMMITTED; a transaction locks the row of
//! its operation or image first, and the admission of new ones takes a lock of its own, as it looks at more than one row. Listings
//! by name have the order of the database's collation.

use std::{
    fs::File,
    io,
    os::unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    path::Path,
    str::FromStr,
};

use sqlx::{
    Any, AnyConnection, AnyPool, ConnectOptions as _, Executor as _, Transaction,
    any::{AnyConnectOptions, AnyPoolOptions},
    sqlite::SqliteConnectOptions,
};

use super::CatalogError;
use crate::limits;

pub(super) type Tx = Transaction<'static, Any>;

/// Which database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    fn of(connection: &AnyConnection) -> Self {
        if connection.backend_name() == "PostgreSQL" { Self::Postgres } else { Self::Sqlite }
    }

    /// Begins a transaction that writes.
    pub(super) const fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }

    /// The database's clock, microseconds since 1970: the one clock that all servers share.
    pub(super) const fn now(self) -> &'static str {
        match self {
            Self::Sqlite => "CAST((julianday('now') - 2440587.5) * 86400000000.0 AS BIGINT)",
            Self::Postgres => "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)",
        }
    }

    /// Appended to a SELECT: the row stays as it is until the transaction ends. In SQLite the whole database does.
    pub(super) const fn for_update(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR UPDATE",
        }
    }

    /// Appended to a SELECT: as [`Dialect::for_update`], of rows that nobody else has locked.
    pub(super) const fn skip_locked(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR UPDATE SKIP LOCKED",
        }
    }

    /// One transaction at a time gets beyond it.
    pub(super) const fn admission(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => None,
            // Any number that no other program on the database uses.
            Self::Postgres => Some("SELECT pg_advisory_xact_lock(7310033816229)"),
        }
    }
}

/// The lock that goes with reading a row inside a transaction that writes.
pub(super) fn for_update(tx: &Tx) -> &'static str {
    Dialect::of(tx).for_update()
}

/// Opens the database that a URL names, and makes it where it is a file that is missing.
pub(super) async fn open(url: &str) -> Result<(AnyPool, Dialect), CatalogError> {
    sqlx::any::install_default_drivers();
    let unreadable = CatalogError::database("read the database URL");
    if url.starts_with("sqlite:") {
        open_sqlite(SqliteConnectOptions::from_str(url).map_err(unreadable)?).await
    } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        let options = AnyConnectOptions::from_str(url).map_err(unreadable)?;
        let pool = AnyPoolOptions::new().max_connections(limits::CATALOG_CONNECTIONS).after_connect(
            |connection, _| {
                Box::pin(async move {
                    // A server that stands still inside a transaction must not stop all others: its locks go before its leases do.
                    let (idle, lock) = (limits::CATALOG_IDLE.as_millis(), limits::CATALOG_BUSY.as_millis());
                    for (setting, millis) in
                        [("idle_in_transaction_session_timeout", idle), ("lock_timeout", lock)]
                    {
                        connection.execute(sqlx::AssertSqlSafe(format!("SET {setting} = {millis}"))).await?;
                    }
                    Ok(())
                })
            },
        );
        Ok((connect(pool, options).await?, Dialect::Postgres))
    } else {
        Err(CatalogError::UnsupportedUrl)
    }
}

/// Opens the database in a file.
pub(super) async fn open_file(path: &Path) -> Result<(AnyPool, Dialect), CatalogError> {
    sqlx::any::install_default_drivers();
    open_sqlite(SqliteConnectOptions::new().filename(path)).await
}

async fn open_sqlite(options: SqliteConnectOptions) -> Result<(AnyPool, Dialect), CatalogError> {
    let unusable = |error| CatalogError::database("make the catalog")(sqlx::Error::Io(error));
    let mut options = options.create_if_missing(true);
    let path = options.get_filename().to_owned();
    // A database in memory has the name that the driver gives it.
    if !path.as_os_str().as_bytes().starts_with(b"file:") {
        make_private(&path).map_err(unusable)?;
        options = options.filename(std::path::absolute(&path).map_err(unusable)?);
    }
    let url = options.to_url_lossy();
    let options =
        AnyConnectOptions::from_url(&url).map_err(CatalogError::database("read the database URL"))?;
    let pool = AnyPoolOptions::new().max_connections(4).after_connect(|connection, _| {
        Box::pin(async move {
            let busy = limits::CATALOG_BUSY.as_millis();
            let pragmas =
                format!("PRAGMA busy_timeout = {busy}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
            connection.execute(sqlx::AssertSqlSafe(pragmas)).await?;
            Ok(())
        })
    });
    Ok((connect(pool, options).await?, Dialect::Sqlite))
}

async fn connect(pool: AnyPoolOptions, options: AnyConnectOptions) -> Result<AnyPool, CatalogError> {
    let pool = pool.acquire_timeout(limits::CATALOG_BUSY);
    pool.connect_with(options).await.map_err(CatalogError::database("open the catalog"))
}

/// Makes the file, where it is missing, for the owner alone: pre-signed URLs stand in it. SQLite gives what it makes beside it
/// the same mode.
fn make_private(path: &Path) -> io::Result<()> {
    match File::options().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}
