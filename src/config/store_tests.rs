//! What the configuration says of the store, from the file and from the names of the old services.

use super::*;

fn with(file: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("fathom.toml");
    fs::write(&path, file).expect("written");
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load(Some(&path), environment, &[], &KnownVenue::all())
}

fn with_env(environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    with("", environment)
}

fn refusal(result: Result<Config, ConfigError>) -> String {
    result.expect_err("must be refused").to_string()
}

/// Kind, address with its password, and what is shown of it.
fn server(config: &Config) -> (StoreKind, &str, &str) {
    let server = config.store.server.as_ref().expect("a server");
    (config.store.kind, server.url.expose(), &server.shown)
}

#[test]
fn a_database_address_says_which_store() {
    use StoreKind::{Mariadb, Mysql, Postgres, Timescale};
    let cases = [
        ("postgresql+asyncpg://u:hunter2@h/db", "", Postgres, "postgres://u:hunter2@h/db"),
        ("postgres://u:hunter2@h:1/db", "timescale", Timescale, "postgres://u:hunter2@h:1/db"),
        ("mysql+aiomysql://u:hunter2@h/db", "", Mysql, "mysql://u:hunter2@h/db"),
        ("mysql://u:hunter2@h/db", "mariadb", Mariadb, "mysql://u:hunter2@h/db"),
        ("mariadb://u:hunter2@h/db", "postgres", Mariadb, "mysql://u:hunter2@h/db"),
    ];
    for (address, kind, wanted, url) in cases {
        let file = match kind {
            "" => String::new(),
            kind => format!("[store]\nkind = \"{kind}\"\nhost = \"other\"\n"),
        };
        let config = with(&file, &[("DATABASE_URL", address)]).expect(address);
        assert_eq!((server(&config).0, server(&config).1), (wanted, url));
        assert!(!format!("{config:?}{}", config.store.shown()).contains("hunter2"));
    }
}

#[test]
fn the_parts_of_an_address_name_a_server() {
    let all = [
        ("DB_HOST", "db"),
        ("DB_PORT", "5433"),
        ("DB_NAME", "market"),
        ("DB_USER", "me"),
        ("DB_PASSWORD", "p@ss/1"),
    ];
    let config = with_env(&all).expect("valid");
    let url = "postgres://me:p%40ss%2F1@db:5433/market";
    assert_eq!(server(&config), (StoreKind::Postgres, url, "db:5433/market"));
    assert!(config.notes.is_empty(), "{:?}", config.notes);
    let config = with("[store]\nkind = \"mariadb\"\nurl = \"mysql://a@b/c\"\n", &all[..1]).expect("valid");
    assert_eq!(server(&config), (StoreKind::Mariadb, "mysql://fathom@db/fathom", "db/fathom"));
    let config = with_env(&all[2..3]).expect("valid");
    assert_eq!(server(&config).2, "localhost/market");
    let config = with_env(&all[3..]).expect("valid");
    assert_eq!((config.store.kind, config.notes.len()), (StoreKind::Sqlite, 2));
}

#[test]
fn an_address_in_a_file_is_read_and_stays_hidden() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("url");
    std::fs::write(&path, "postgres://u:hunter2@h/db\n").expect("written");
    let file = format!("[store]\nkind = \"timescale\"\nurl_file = {path:?}\n");
    let config = with(&file, &[]).expect("valid");
    assert_eq!(server(&config), (StoreKind::Timescale, "postgres://u:hunter2@h/db", "h/db"));
    std::fs::write(&path, "mysql://u:hunter2@h/db").expect("written");
    let message = refusal(with(&file, &[]));
    assert!(
        message.starts_with("store.url_file = \"[hidden]\"") && !message.contains("hunter2"),
        "{message}"
    );
}

#[test]
fn contradictions_about_the_store_are_refused_by_name() {
    let cases = [
        ("url = \"postgres://u:hunter2@h/db\"", "store.url", "no server"),
        ("kind = \"postgres\"", "missing key store.url", ""),
        ("kind = \"postgres\"\nurl = \"mysql://u:hunter2@h/db\"", "store.url", "postgres://"),
        (
            "kind = \"postgres\"\nurl = \"postgres://u:hunter2@h/db\"\nhost = \"h\"",
            "store.host",
            "store.url says",
        ),
        (
            "kind = \"mysql\"\nurl = \"mysql://h/db\"\npassword = \"hunter2\"",
            "store.password",
            "store.url says",
        ),
        ("kind = \"mysql\"\nhost = \"h\"\nspool = \"never\"", "store.spool", "can be away"),
        ("kind = \"mysql\"\nhost = \"h\"\npool = 0", "store.pool", "1 to 200"),
    ];
    for (text, key, reason) in cases {
        let message = refusal(with(&format!("[store]\n{text}\n"), &[]));
        assert!(message.starts_with(key) && message.contains(reason), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
    let both = [("DATABASE_URL", "postgres://u:hunter2@h/db"), ("DB_HOST", "other")];
    let message = refusal(with_env(&both));
    assert!(message.contains("store.host") && message.contains("DB_HOST"), "{message}");
}
