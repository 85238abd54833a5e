//! A store of a kind, empty and migrated, and its tables read beside it as anybody may.

use std::path::PathBuf;

use fathom_market::{
    batch::{Batch, Column},
    table::{ColumnKind, Table},
};
use fathom_storage::{
    MysqlConfig, MysqlStore, PostgresConfig, PostgresStore, SqliteConfig, SqliteStore, Store, Timescale,
    WriteOutcome,
};
use fathom_testkit::{Database, Server};
use rust_decimal::Decimal;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, MySqlConnection, PgConnection, Row as _,
    sqlite::SqliteConnectOptions,
};
use tempfile::TempDir;

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
    Timescale,
    Mariadb,
}

/// The rows of a question as text.
pub(crate) type Texts = Vec<Vec<Option<String>>>;

/// Where a store keeps its rows; they go with this.
pub(crate) enum Place {
    Folder(TempDir),
    Database(Database),
}

/// A store and what it stands on.
pub(crate) struct Stand {
    pub(crate) kind: Kind,
    pub(crate) store: Box<dyn Store>,
    place: Place,
}

/// Runs a test on a migrated store of a kind; where there is none it is left out.
pub(crate) async fn on(kind: Kind, test: impl AsyncFnOnce(&Stand)) {
    let Some(stand) = Stand::empty(kind).await else { return };
    stand.migrated().await;
    test(&stand).await;
    stand.store.close().await;
}

pub(crate) const fn committed(inserted: u64, duplicate: u64) -> WriteOutcome {
    WriteOutcome::Committed { inserted, duplicate }
}

impl Place {
    pub(crate) fn fresh(kind: Kind) -> Option<Self> {
        let server = match kind {
            Kind::Sqlite => return Some(Self::Folder(tempfile::tempdir().unwrap())),
            Kind::Postgres => Server::Postgres,
            Kind::Timescale => Server::Timescale,
            Kind::Mariadb => Server::Mariadb,
        };
        Some(Self::Database(Database::fresh(server)?))
    }

    pub(crate) async fn open(&self, kind: Kind) -> Box<dyn Store> {
        let postgres = |url: &Database, timescale| {
            let config = PostgresConfig { timescale, ..PostgresConfig::new(url.url()) };
            async move { Box::new(PostgresStore::open(&config).await.unwrap()) }
        };
        match (self, kind) {
            (Self::Folder(folder), _) => {
                Box::new(SqliteStore::open(&SqliteConfig::new(file(folder))).await.unwrap())
            }
            (Self::Database(database), Kind::Timescale) => postgres(database, Timescale::Require).await,
            (Self::Database(database), Kind::Mariadb) => {
                Box::new(MysqlStore::open(&MysqlConfig::new(database.url())).await.unwrap())
            }
            (Self::Database(database), _) => postgres(database, Timescale::Never).await,
        }
    }

    /// The rows of a question whose columns are text.
    async fn texts(&self, kind: Kind, sql: &str) -> Texts {
        let text = AssertSqlSafe(sql.to_owned());
        let read = match (self, kind) {
            (Self::Folder(folder), _) => {
                let options = SqliteConnectOptions::new().filename(file(folder)).read_only(true);
                let mut connection = options.connect().await.unwrap();
                let rows = sqlx::query(text).fetch_all(&mut connection).await;
                rows.map(|rows| {
                    rows.iter().map(|row| (0..row.len()).map(|at| row.get(at)).collect()).collect()
                })
            }
            (Self::Database(database), Kind::Mariadb) => {
                let mut connection = MySqlConnection::connect(&database.url()).await.unwrap();
                let rows = sqlx::query(text).fetch_all(&mut connection).await;
                rows.map(|rows| {
                    rows.iter().map(|row| (0..row.len()).map(|at| row.get(at)).collect()).collect()
                })
            }
            (Self::Database(database), _) => {
                let mut connection = PgConnection::connect(&database.url()).await.unwrap();
                let rows = sqlx::query(text).fetch_all(&mut connection).await;
                rows.map(|rows| {
                    rows.iter().map(|row| (0..row.len()).map(|at| row.get(at)).collect()).collect()
                })
            }
        };
        read.unwrap_or_else(|error| panic!("{kind:?}: {sql}: {error}"))
    }
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("fathom.db")
}

impl Stand {
    /// A store without a schema.
    pub(crate) async fn empty(kind: Kind) -> Option<Self> {
        let place = Place::fresh(kind)?;
        let store = place.open(kind).await;
        Some(Self { kind, store, place })
    }

    /// The file of an embedded store.
    pub(crate) fn file(&self) -> PathBuf {
        let Place::Folder(folder) = &self.place else { panic!("{:?} has no file", self.kind) };
        file(folder)
    }

    /// Another store on the same rows, as another process would have.
    pub(crate) async fn beside(&self) -> Box<dyn Store> {
        self.place.open(self.kind).await
    }

    pub(crate) async fn migrated(&self) {
        let done = self.store.migrate().await;
        done.unwrap_or_else(|error| panic!("{:?} cannot be migrated: {error}", self.kind));
    }

    /// Whether rows of a table are taken.
    pub(crate) fn takes(&self, table: Table) -> bool {
        self.kind != Kind::Mariadb || !fathom_storage::mysql::unsupported_tables().contains(&table)
    }

    /// The tables that are taken.
    pub(crate) fn tables(&self) -> Vec<Table> {
        Table::ALL.iter().copied().filter(|table| self.takes(*table)).collect()
    }

    /// Writes what has to be stored whole.
    pub(crate) async fn write(&self, batch: &Batch) -> WriteOutcome {
        let outcome = self.store.write(batch).await;
        let table = batch.schema().name;
        assert!(matches!(outcome, WriteOutcome::Committed { .. }), "{:?}: {table}: {outcome:?}", self.kind);
        outcome
    }

    /// Columns of a question as text, in the order that it gives.
    pub(crate) async fn select(&self, columns: &[&str], from: &str) -> Texts {
        let kind = if self.kind == Kind::Mariadb { "char" } else { "text" };
        let columns: Vec<_> = columns.iter().map(|column| format!("cast({column} as {kind})")).collect();
        self.place.texts(self.kind, &format!("select {} from {from}", columns.join(", "))).await
    }

    pub(crate) async fn count(&self, table: Table) -> u64 {
        self.store.history().count(table).await.unwrap()
    }

    /// The stored rows of a table, sorted as text, which every store does alike.
    pub(crate) async fn dump(&self, table: Table) -> Texts {
        let schema = table.schema();
        let quote = if self.kind == Kind::Mariadb { '`' } else { '"' };
        let names: Vec<_> =
            schema.columns.iter().map(|column| format!("{quote}{}{quote}", column.name)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut rows = self.select(&names, schema.name).await;
        for cell in rows.iter_mut().flat_map(|row| row.iter_mut().zip(schema.columns)) {
            if let (Some(text), spec) = cell {
                *text = canonical(spec.kind, text);
            }
        }
        rows.sort();
        rows
    }
}

/// A value as every store means it.
fn canonical(kind: ColumnKind, text: &str) -> String {
    match kind {
        ColumnKind::Dec | ColumnKind::OptDec => number(text).to_string(),
        ColumnKind::Flag => matches!(text, "1" | "true" | "t").to_string(),
        _ => text.to_owned(),
    }
}

/// A number of a view, whatever the store writes it as.
pub(crate) fn number(text: &str) -> Decimal {
    let read = text.parse().or_else(|_| Decimal::from_scientific(text));
    read.unwrap_or_else(|error| panic!("{text:?} is no number: {error}")).normalize()
}

/// The rows of a batch as [`Stand::dump`] gives them.
pub(crate) fn expected(batch: &Batch) -> Texts {
    let dec = |value: Decimal| value.normalize().to_string();
    let cell = |column: &Column, row: usize| match column {
        Column::Int(values) => Some(values[row].to_string()),
        Column::OptInt(values) => values[row].map(|value| value.to_string()),
        Column::Text(values) => Some(values[row].clone()),
        Column::OptText(values) => values[row].clone(),
        Column::Dec(values) => Some(dec(values[row])),
        Column::OptDec(values) => values[row].map(dec),
        Column::Flag(values) => Some(values[row].to_string()),
    };
    let row = |row: usize| batch.columns().iter().map(|column| cell(column, row)).collect();
    let mut rows: Texts = (0..batch.len()).map(row).collect();
    rows.sort();
    rows
}
