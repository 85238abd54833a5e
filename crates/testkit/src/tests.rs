//! Servers are really started here; where one is not installed its test is left out.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use sqlx::{Connection as _, Executor as _, MySqlConnection, PgConnection, Row as _};

use super::*;

const WITHIN: Duration = Duration::from_secs(20);

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < WITHIN, "not within {WITHIN:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A number from a server of either kind.
async fn number(server: Server, url: &str, sql: &'static str) -> Result<i64, sqlx::Error> {
    match server {
        Server::Mariadb => {
            let mut connection = MySqlConnection::connect(url).await?;
            connection.fetch_one(sql).await?.try_get(0)
        }
        _ => {
            let mut connection = PgConnection::connect(url).await?;
            connection.fetch_one(sql).await?.try_get(0)
        }
    }
}

async fn write(server: Server, url: &str, sql: &'static str) {
    match server {
        Server::Mariadb => {
            MySqlConnection::connect(url).await.unwrap().execute(sql).await.unwrap();
        }
        _ => {
            PgConnection::connect(url).await.unwrap().execute(sql).await.unwrap();
        }
    }
}

async fn survives_kills(server: Server) {
    let Some(mut private) = Private::start(server) else { return };
    let database = Database::at(server, private.url());
    let url = database.url();
    write(server, &url, "create table held (n bigint)").await;
    for kill in 1..=2 {
        write(server, &url, "insert into held values (1)").await;
        private.kill();
        assert!(!listens(private.port()), "it listens after its end");
        assert!(number(server, &url, "select count(*) from held").await.is_err());
        private.restart();
        // What was committed is there, at the same address.
        assert_eq!(number(server, &url, "select count(*) from held").await.unwrap(), kill);
    }
    let folder = private.folder().to_owned();
    drop(database);
    drop(private);
    assert!(!folder.exists(), "its folder stays");
}

#[tokio::test]
async fn a_private_postgres_holds_what_was_committed_when_it_is_killed() {
    survives_kills(Server::Postgres).await;
}

#[tokio::test]
async fn a_private_mariadb_holds_what_was_committed_when_it_is_killed() {
    survives_kills(Server::Mariadb).await;
}

fn ping(port: u16) -> std::io::Result<[u8; 5]> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).map(|()| answer)
}

#[test]
fn a_stopped_server_takes_connections_and_does_not_answer() {
    let Some(mut private) = Private::start(Server::Redis) else { return };
    assert_eq!(ping(private.port()).unwrap(), *b"+PONG");
    private.stop_cont(true);
    assert!(listens(private.port()) && ping(private.port()).is_err());
    private.stop_cont(false);
    assert_eq!(ping(private.port()).unwrap(), *b"+PONG");
    private.stop_cont(true);
    private.kill();
    private.restart();
    assert_eq!(ping(private.port()).unwrap(), *b"+PONG");
}

#[tokio::test]
async fn a_stopped_postgres_stops_its_open_sessions_too() {
    let Some(private) = Private::start(Server::Postgres) else { return };
    let mut connection = PgConnection::connect(&private.url()).await.unwrap();
    private.stop_cont(true);
    let asked = tokio::time::timeout(Duration::from_millis(300), connection.fetch_one("select 1")).await;
    assert!(asked.is_err(), "a stopped server answered");
    private.stop_cont(false);
    let mut connection = PgConnection::connect(&private.url()).await.unwrap();
    assert_eq!(connection.fetch_one("select 1").await.unwrap().get::<i32, _>(0), 1);
}

async fn is_dropped(server: Server) {
    let (Some(one), Some(other)) = (Database::fresh(server), Database::fresh(server)) else { return };
    assert_ne!(one.url(), other.url());
    let url = one.url();
    write(server, &url, "create table held (n bigint)").await;
    assert!(number(server, &other.url(), "select count(*) from held").await.is_err(), "both are one");
    drop(one);
    assert!(number(server, &url, "select count(*) from held").await.is_err(), "it is there after its end");
}

#[tokio::test]
async fn every_test_has_a_database_of_its_own() {
    is_dropped(Server::Postgres).await;
    is_dropped(Server::Mariadb).await;
}

#[test]
fn an_address_keeps_all_but_the_database() {
    let database = |admin: &str| database::address(admin, "fathom_1_2");
    assert_eq!(database("postgres://me:pw@host:1/postgres"), "postgres://me:pw@host:1/fathom_1_2");
    assert_eq!(database("mysql://root@host/mysql?ssl-mode=off"), "mysql://root@host/fathom_1_2?ssl-mode=off");
    assert_eq!(database("postgres://host"), "postgres://host/fathom_1_2");
}

#[test]
fn what_is_missing_is_named_with_the_test_that_is_left_out() {
    let said = std::panic::catch_unwind(|| Server::Redis.left_out::<()>("it is not installed"));
    match said {
        Ok(left_out) => assert!(!required() && left_out.is_none()),
        Err(why) => {
            let why = why.downcast_ref::<String>().unwrap();
            assert!(required(), "{why}");
            assert!(why.contains("redis-server") && why.contains("FATHOM_TEST_REDIS_URL"), "{why}");
            assert!(why.contains("what_is_missing_is_named"), "{why}");
        }
    }
}

/// A test for another process: see [`a_server_ends_with_the_process_that_started_it`].
#[test]
fn starts_a_server_and_is_killed() {
    let Some(file) = std::env::var_os("FATHOM_TESTKIT_ENDS") else { return };
    let launched = Launched::new(Server::Redis, Sync::Off).unwrap();
    let said = format!("{} {} {}", launched.pid().unwrap(), launched.port(), launched.folder().display());
    std::fs::write(file, said).unwrap();
    loop {
        std::thread::sleep(WITHIN);
    }
}

#[test]
fn a_server_ends_with_the_process_that_started_it() {
    if programs::find(&["redis-server"]).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("said");
    let mut tests = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::starts_a_server_and_is_killed"])
        .env("FATHOM_TESTKIT_ENDS", &file)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = String::new();
    eventually("the server is started", || {
        said = std::fs::read_to_string(&file).unwrap_or_default();
        said.split(' ').count() == 3
    });
    let [pid, port, folder] = said.split(' ').collect::<Vec<_>>()[..] else { panic!("{said}") };
    assert!(listens(port.parse().unwrap()));
    tests.kill().unwrap();
    tests.wait().unwrap();
    eventually("the server has ended and its folder is gone", || {
        !Path::new(&format!("/proc/{pid}")).exists() && !Path::new(folder).exists()
    });
}

#[test]
fn a_server_that_is_started_is_shared_by_the_tests_of_a_process() {
    if programs::find(&["redis-server"]).is_none() {
        return;
    }
    let (one, other) = (shared(Server::Redis).unwrap(), shared(Server::Redis).unwrap());
    assert_eq!(one, other);
    let port = one.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
    assert_eq!(ping(port).unwrap(), *b"+PONG");
}
