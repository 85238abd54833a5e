//! A database of one test.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection, PgConnection};

use crate::Server;

const WITHIN: Duration = Duration::from_secs(60);

/// An empty database with a name of its own; it is dropped with this.
pub struct Database {
    server: Server,
    admin: String,
    name: String,
}

impl Database {
    /// On the server that is to be had: see [`Server::url`]. `None` leaves the test out.
    ///
    /// # Panics
    /// When the database cannot be made.
    pub fn fresh(server: Server) -> Option<Self> {
        Some(Self::at(server, server.url()?))
    }

    /// On the server with this address, whose user may create databases.
    ///
    /// # Panics
    /// When the database cannot be made.
    pub fn at(server: Server, admin: impl Into<String>) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("fathom_{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let admin = admin.into();
        // A process that was killed may have left one of the same name.
        run(server, &admin, &[dropping(server, &name), creating(server, &name)])
            .unwrap_or_else(|error| panic!("{server:?}: database {name} cannot be made: {error}"));
        Self { server, admin, name }
    }

    /// Its address.
    pub fn url(&self) -> String {
        address(&self.admin, &self.name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The server may be dead, and dropping must not fail a second time.
        if let Err(error) = run(self.server, &self.admin, &[dropping(self.server, &self.name)]) {
            eprintln!("{:?}: database {} stays: {error}", self.server, self.name);
        }
    }
}

/// An administrator's address with another database.
pub(crate) fn address(admin: &str, name: &str) -> String {
    let (front, query) =
        admin.split_once('?').map_or((admin, String::new()), |(front, query)| (front, format!("?{query}")));
    let host = front.find("://").map_or(0, |at| at + 3);
    let end = front[host..].find('/').map_or(front.len(), |at| host + at);
    format!("{}/{name}{query}", &front[..end])
}

fn dropping(server: Server, name: &str) -> String {
    match server {
        Server::Postgres | Server::Timescale => format!("drop database if exists {name} with (force)"),
        Server::Mariadb | Server::Redis => format!("drop database if exists {name}"),
    }
}

fn creating(server: Server, name: &str) -> String {
    match server {
        Server::Postgres | Server::Timescale => format!("create database {name}"),
        Server::Mariadb | Server::Redis => format!("create database {name} character set utf8mb4"),
    }
}

/// On a thread of its own, since the caller may be inside a runtime.
fn run(server: Server, url: &str, statements: &[String]) -> Result<(), String> {
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let done =
            runtime.block_on(async { tokio::time::timeout(WITHIN, execute(server, url, statements)).await });
        done.map_err(|_| format!("not within {WITHIN:?}"))?.map_err(|error| error.to_string())
    };
    std::thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|_| Err("it fell".to_owned())))
}

async fn execute(server: Server, url: &str, statements: &[String]) -> Result<(), sqlx::Error> {
    match server {
        Server::Postgres | Server::Timescale => {
            let mut connection = PgConnection::connect(url).await?;
            for statement in statements {
                connection.execute(AssertSqlSafe(statement.clone())).await?;
            }
            connection.close().await
        }
        Server::Mariadb => {
            let mut connection = MySqlConnection::connect(url).await?;
            for statement in statements {
                connection.execute(AssertSqlSafe(statement.clone())).await?;
            }
            connection.close().await
        }
        Server::Redis => Err(sqlx::Error::Configuration("Redis has no databases with names".into())),
    }
}
