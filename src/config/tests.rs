//! The configuration as a whole, through [`load`].

use std::{fs, net::IpAddr, time::Duration};

use fathom_market::{
    category::Categories,
    depth::DepthReference,
    ids::{Market, VenueId},
    plan::DepthSpeed,
    timeframe::Timeframe,
};
use fathom_storage::Durability;
use rust_decimal::Decimal;

use super::*;

const BINANCE: VenueId = VenueId::new("binance");

fn known() -> Vec<KnownVenue> {
    vec![
        KnownVenue { id: BINANCE, classes: [vec!["stream"], vec!["public", "market"]] },
        KnownVenue { id: VenueId::new("other"), classes: [vec!["all"], vec!["all"]] },
    ]
}

fn pairs(entries: &[(&str, &str)]) -> Vec<(String, String)> {
    entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn with_env(environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    load(None, pairs(environment), &[], &known())
}

fn with_file(text: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("fathom.toml");
    fs::write(&path, text).expect("written");
    load(Some(&path), [], &[], &known())
}

fn refusal(result: Result<Config, ConfigError>) -> String {
    result.expect_err("must be refused").to_string()
}

#[test]
fn the_defaults_load_and_are_what_the_requirements_say() {
    let config = with_env(&[]).expect("defaults");
    assert_eq!(config.primary_venue, BINANCE);
    assert_eq!((config.http.host.to_string().as_str(), config.http.port), ("127.0.0.1", 8000));
    assert_eq!(config.http.token, None);
    assert_eq!(config.candles.timeframes, Timeframe::DEFAULT);
    assert_eq!(config.candles.publish_every, Duration::from_millis(500));
    let levels = [15, 30, 50, 80, 150, 300].map(|level| Decimal::new(level, 1));
    assert_eq!(config.depth.levels, levels.map(|level| level.normalize()));
    assert_eq!(config.depth.bands.count(), levels.len());
    assert_eq!(config.depth.reference, DepthReference::Mid);
    let tiers = config.tiers.list.iter();
    let tiers: Vec<_> =
        tiers.map(|tier| (tier.symbols, tier.per_shard, tier.snapshot_levels, tier.depth)).collect();
    let (fast, slow) = (DepthSpeed::Fast, DepthSpeed::Slow);
    assert_eq!(tiers, [(20, 5, 5000, fast), (40, 20, 1000, slow), (140, 50, 500, slow)]);
    let shards: usize = config.tiers.list.iter().map(|tier| tier.symbols.div_ceil(tier.per_shard)).sum();
    assert_eq!(shards, 9);
    assert_eq!((config.stream.breaker_failures, config.stream.breaker_open.as_secs()), (5, 60));
    assert_eq!((config.stream.backoff_min.as_secs(), config.stream.backoff_max.as_secs()), (1, 30));
    let silence = (config.stream.silence_floor.as_secs(), config.stream.silence_ceiling.as_secs());
    assert_eq!((silence, config.orderbook.verify_every), ((5, 600), Some(Duration::from_secs(600))));
    let poll = config.stream.poll.expect("on");
    assert_eq!((poll.after.as_secs(), poll.every.as_secs(), poll.levels), (5, 5, 500));
    assert_eq!(config.supervision.ask_deadline, Duration::from_millis(250));
    assert_eq!(config.store.path, std::path::Path::new("data/fathom.sqlite"));
    assert_eq!(config.enabled().count(), 2);
    assert!(config.notes.is_empty());
}

#[test]
fn the_default_categories_are_those_of_the_requirements() {
    let config = with_env(&[]).expect("defaults");
    let found: Vec<_> = config.categories.iter().map(|rule| &*rule.name).collect();
    let standard = Categories::standard();
    assert_eq!(found, standard.iter().map(|rule| &*rule.name).collect::<Vec<_>>());
    for base in ["BTC", "ETH", "SOL", "BNB", "BCH", "BTCDOM", "SOLV", "ETHFI", "1000PEPE"] {
        let of =
            |categories: &Categories| categories.iter().map(|rule| rule.contains(base)).collect::<Vec<_>>();
        assert_eq!(of(&config.categories), of(&standard), "{base}");
    }
}

#[test]
fn the_defaults_suit_the_registry() {
    let config = load(None, [], &[], &KnownVenue::all()).expect("defaults");
    assert_eq!(config.enabled().count(), 2);
}

#[test]
fn every_ageing_table_has_a_default_retention() {
    let config = with_env(&[]).expect("defaults");
    let ageing = fathom_market::table::Table::ALL.iter().filter(|table| table.schema().age.is_some());
    assert_eq!(config.retention.len(), ageing.count());
    let kept = with_file("[retention]\ntrades = \"off\"\n").expect("valid");
    assert_eq!(kept.retention.len() + 1, config.retention.len());
}

#[test]
fn the_production_example_loads_with_a_token_only() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/config/production.toml"));
    let refused = refusal(load(Some(path), [], &[], &known()));
    assert!(refused.contains("http.host = 0.0.0.0") && refused.contains("FATHOM_API_TOKEN"), "{refused}");
    let config = load(Some(path), pairs(&[(TOKEN_VARIABLE, "t0ken")]), &[], &known()).expect("valid");
    assert_eq!(config.tiers.order, TierOrder::Volume);
    assert_eq!(config.store.durability, Durability::Full);
    assert_eq!(config.store.path, Path::new("/var/lib/fathom/fathom.sqlite"));
    assert_eq!(config.venue(BINANCE, Market::Spot).expect("spot").budget_ceiling, Some(4000));
    assert_eq!(config.candles.start_ms, Some(1_704_067_200_000));
}

#[test]
fn polling_and_verification_can_be_switched_off() {
    let off = with_file("[stream]\npoll_every_ms = 0\n[orderbook]\nverify_every = \"off\"\n").expect("valid");
    assert_eq!((off.stream.poll, off.orderbook.verify_every), (None, None));
    let refused = refusal(with_file("[stream]\nsilence_floor_ms = 9000\nsilence_ceiling_ms = 8000\n"));
    assert!(refused.contains("stream.silence_floor_ms"), "{refused}");
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest_right_one() {
    let cases = [
        ("[http]\nprot = 1\n", "unknown key http.prot", "fathom.toml:2", "http.port"),
        ("port = 1\n", "unknown key port", "fathom.toml:1", "http.port"),
        ("[htpp]\nport = 1\n", "unknown key htpp", "fathom.toml:1", "http"),
        ("[tiers.hihg]\nlines = 1\n", "unknown key tiers.hihg", "fathom.toml:1", "tiers.high"),
        ("[[category]]\nnmae = \"X\"\n", "unknown key category[0].nmae", "fathom.toml:2", "category[0].name"),
        ("[retention]\ntrade = \"1d\"\n", "unknown key retention.trade", "fathom.toml:2", "retention.trades"),
        ("[venues.binanse.spot]\n", "unknown key venues.binanse", "fathom.toml:1", "venues.binance"),
        (
            "[venues.binance.swap]\n",
            "unknown key venues.binance.swap",
            "fathom.toml:1",
            "venues.binance.spot",
        ),
        (
            "[venues.binance.futures.endpoints.ws]\npubic = \"ws://x\"\n",
            "unknown key venues.binance.futures.endpoints.ws.pubic",
            "fathom.toml:2",
            "venues.binance.futures.endpoints.ws.public",
        ),
        ("[http]\ntoken = \"s3cret\"\n", "unknown key http.token", "fathom.toml:2", "http.token_file"),
    ];
    for (text, key, place, nearest) in cases {
        let message = refusal(with_file(text));
        assert!(message.starts_with(key), "{message}");
        assert!(message.contains(place), "{message}");
        assert!(message.contains(&format!("the nearest right one is {nearest}")), "{message}");
        assert!(!message.contains("s3cret"), "{message}");
    }
    let message = refusal(with_env(&[("FATHOM__HTTP__PROT", "1")]));
    assert!(message.contains("FATHOM__HTTP__PROT") && message.contains("http.port"), "{message}");
}

#[test]
fn a_bad_value_names_its_key_its_text_and_its_place() {
    let cases = [
        ("[http]\nport = 70000\n", "http.port = \"70000\""),
        ("[http]\nport = \"8000\"\n", "http.port = \"8000\""),
        ("[http]\nhost = \"example.org\"\n", "http.host = \"example.org\""),
        ("http = 5\n", "http = \"5\""),
        ("[depth]\nlevels = [3, 3.0]\n", "depth.levels = \"3, 3.0\""),
        ("[depth]\nlevels = [0.00001]\n", "depth.levels = \"0.00001\""),
        ("[depth]\nlevels = [nan]\n", "depth.levels = \"nan\""),
        ("[depth]\nlevels = []\n", "depth.levels"),
        ("[depth]\nreference = \"top\"\n", "depth.reference = \"top\""),
        ("[candles]\ntimeframes = [\"1m\", \"7m\"]\n", "candles.timeframes = \"1m, 7m\""),
        ("[candles]\nstart_date = \"soon\"\n", "candles.start_date = \"soon\""),
        ("[store]\nkind = \"oracle\"\n", "store.kind = \"oracle\""),
        ("[store]\ninbox_rows = 1\n", "store.inbox_rows = \"1\""),
        ("[retention]\ntrades = \"7\"\n", "retention.trades = \"7\""),
        ("[tiers.low]\nlines = 3\n", "tiers.low.lines = \"3\""),
        ("[stream]\nbackoff_min_ms = 60000\n", "stream.backoff_min_ms = \"60000\""),
        ("[raw]\ntrades = \"yes\"\n", "raw.trades = \"yes\""),
        ("primary_venue = \"nowhere\"\n", "primary_venue = \"nowhere\""),
        ("[[category]]\nname = \"COIN\"\n", "category[0].name = \"COIN\""),
        ("[[category]]\nname = \"A\"\n[[category]]\nname = \"a\"\n", "category[1].name = \"a\""),
        ("[[category]]\nname = \"A\"\nexclude = []\ninclude = []\n", "category[0].include"),
        ("[venues.binance.spot]\nsymbols = \"database\"\n", "venues.binance.spot.symbols = \"database\""),
        ("[venues.binance.spot]\nendpoints.rest = \"api\"\n", "venues.binance.spot.endpoints.rest = \"api\""),
        ("[venues.binance.spot]\nbudget_ceiling = 0\n", "venues.binance.spot.budget_ceiling = \"0\""),
    ];
    for (text, key) in cases {
        let message = refusal(with_file(text));
        assert!(message.starts_with(key), "{message}");
        assert!(message.contains("fathom.toml:") && message.contains(" is not usable: "), "{message}");
    }
}

#[test]
fn old_environment_names_set_their_keys() {
    let config = with_env(&[
        ("DATABASE_URL", "sqlite:///srv/f.db"),
        ("BINANCE_BASE_URL", "http://127.0.0.1:9/"),
        ("SYMBOLS", "btcusdt,ETH/USDT"),
        ("START_DATE", "2024-01-01"),
        ("INTERVAL", "1m"),
        ("BATCH_SIZE", "900"),
        ("RETRY_DELAY", "2"),
        ("MAX_RETRIES", "7"),
        ("REALTIME_INTERVAL", "0.25"),
        ("ORDERBOOK_LEVELS", "10"),
        ("ORDERBOOK_UPDATE_INTERVAL", "2.5"),
        ("ORDERBOOK_RETRY_DELAY", "3"),
        ("ORDERBOOK_MAX_RETRIES", "4"),
        ("DEBUG", "true"),
        ("HOST", "localhost"),
        ("PORT", "8001"),
        ("EXCHANGE_RATE_LIMITS", "{\"binance\": 1200, \"bybit\": 600}"),
    ])
    .expect("valid");
    assert_eq!(config.store.path, Path::new("/srv/f.db"));
    let spot = config.venue(BINANCE, Market::Spot).expect("spot");
    let futures = config.venue(BINANCE, Market::Futures).expect("futures");
    assert_eq!(spot.endpoints.rest.as_deref(), Some("http://127.0.0.1:9"));
    assert_eq!(futures.endpoints.rest, None);
    assert_eq!(spot.symbols, ["BTCUSDT", "ETH/USDT"]);
    assert_eq!(futures.symbols, ["BTCUSDT", "ETH/USDT:USDT"]);
    assert_eq!((spot.budget_ceiling, futures.budget_ceiling), (Some(1200), Some(1200)));
    let candles = &config.candles;
    assert_eq!(candles.timeframes, [Timeframe::M1]);
    assert_eq!((candles.start_ms, candles.request_rows), (Some(1_704_067_200_000), 900));
    assert_eq!((candles.retry_delay, candles.max_retries), (Duration::from_secs(2), 7));
    assert_eq!(candles.publish_every, Duration::from_millis(250));
    let orderbook = config.orderbook;
    assert_eq!((orderbook.levels, orderbook.interval), (10, Duration::from_millis(2500)));
    assert_eq!((orderbook.retry_delay, orderbook.max_retries), (Duration::from_secs(3), 4));
    assert_eq!(config.log.level, LogLevel::Debug);
    assert_eq!((config.http.host, config.http.port), (IpAddr::from([127, 0, 0, 1]), 8001));
    assert_eq!(config.notes.len(), 1, "{:?}", config.notes);
    assert!(config.notes[0].contains("bybit"));
}

const OF_LATER_VERSIONS: [(&str, &str); 3] = [
    ("RABBITMQ_URL", "amqp://u:hunter2@mq/"),
    ("WEBSOCKET_MAX_CONNECTIONS", "100"),
    ("WEBSOCKET_PORT", "8080"),
];

#[test]
fn old_names_of_later_versions_are_accepted_and_reported() {
    let config = with_env(&OF_LATER_VERSIONS).expect("valid");
    assert_eq!(config.notes.len(), OF_LATER_VERSIONS.len());
    for ((name, _), note) in OF_LATER_VERSIONS.iter().zip(&config.notes) {
        assert!(note.starts_with(name) && note.contains("not used by this version"), "{note}");
    }
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn redis_is_off_without_an_address_and_the_one_given_later_counts() {
    let shown = |config: &Config| config.redis.address.as_ref().map(|address| address.shown().to_owned());
    assert_eq!(shown(&with_env(&[]).expect("defaults")), None);
    let ttl = [("CACHE_TTL_TICKER", "2.5"), ("CACHE_TTL_ORDERBOOK", "2"), ("CACHE_TTL_KLINES", "30")];
    let config = with_env(&[("REDIS_HOST", "cache"), ("REDIS_PORT", "7000"), ttl[0], ttl[1], ttl[2]]);
    let config = config.expect("valid");
    assert_eq!(shown(&config).as_deref(), Some("redis://cache:7000/0"));
    let ttl = config.redis.ttl;
    assert_eq!((ttl.ticker.as_millis(), ttl.orderbook.as_secs(), ttl.candles.as_secs()), (2500, 2, 30));
    assert_eq!((ttl.ticks, config.notes.len()), (None, 0));
    let url = ("FATHOM__REDIS__URL", "redis://me:hunter2@other/3");
    let config = with_env(&[("REDIS_HOST", "cache"), url]).expect("valid");
    assert_eq!(shown(&config).as_deref(), Some("redis://other:6379/3"));
    assert!(!format!("{config:?}").contains("hunter2"));
    let file = with_file("[redis]\nurl = \"rediss://me:hunter2@other\"\nhost = \"cache\"\n").expect("valid");
    assert_eq!(shown(&file).as_deref(), Some("rediss://other:6379/0"));
    let refused = refusal(with_file("[redis]\nurl = \"http://me:hunter2@other\"\n"));
    assert!(refused.contains("redis.url") && refused.contains("fathom.toml:2"), "{refused}");
    assert!(!refused.contains("hunter2"), "{refused}");
}

#[test]
fn a_bad_old_value_names_its_variable() {
    let cases = [
        ("DATABASE_URL", "oracle://u:hunter2@h/db"),
        ("DB_PORT", "0"),
        ("REDIS_PORT", "x"),
        ("RABBITMQ_URL", "http://u:hunter2@mq/"),
        ("BINANCE_BASE_URL", "api.binance.com"),
        ("SYMBOLS", "[BTCUSDT"),
        ("START_DATE", "2024-13-01"),
        ("INTERVAL", "1x"),
        ("BATCH_SIZE", "0"),
        ("RETRY_DELAY", "soon"),
        ("MAX_RETRIES", "-1"),
        ("REALTIME_INTERVAL", "0.0001"),
        ("ORDERBOOK_LEVELS", "none"),
        ("ORDERBOOK_UPDATE_INTERVAL", "0"),
        ("ORDERBOOK_RETRY_DELAY", "-1"),
        ("ORDERBOOK_MAX_RETRIES", "many"),
        ("DEBUG", "maybe"),
        ("HOST", "nowhere"),
        ("PORT", "eighty"),
        ("EXCHANGE_RATE_LIMITS", "1200"),
        ("EXCHANGE_RATE_LIMITS", "{\"binance\": -5}"),
        ("WEBSOCKET_MAX_CONNECTIONS", "0"),
        ("WEBSOCKET_PORT", "99999"),
        ("CACHE_TTL_TICKER", "x"),
        ("CACHE_TTL_ORDERBOOK", "-1"),
        ("CACHE_TTL_KLINES", "ten"),
    ];
    for (name, value) in cases {
        let message = refusal(with_env(&[(name, value)]));
        assert!(message.contains(&format!("environment variable {name} ")), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let empty: Vec<_> = old_environment_names().map(|name| (name, " ")).collect();
    let config = with_env(&empty).expect("valid");
    assert!(config.notes.is_empty(), "{:?}", config.notes);
    assert_eq!(with_env(&[("FATHOM__HTTP__PORT", ""), (TOKEN_VARIABLE, "")]).expect("valid").http.port, 8000);
}

#[test]
fn symbols_are_read_in_three_spellings_everywhere() {
    for text in ["BTCUSDT,ETHUSDT", "[\"BTCUSDT\", \"ETHUSDT\"]", "['BTCUSDT', 'ETHUSDT']"] {
        let config = with_env(&[("SYMBOLS", text)]).expect("valid");
        assert_eq!(
            config.venue(BINANCE, Market::Spot).expect("spot").symbols,
            ["BTCUSDT", "ETHUSDT"],
            "{text}"
        );
        let generic = with_env(&[("FATHOM__VENUES__BINANCE__SPOT__SYMBOLS", text)]).expect("valid");
        assert_eq!(
            generic.venue(BINANCE, Market::Spot).expect("spot").symbols,
            ["BTCUSDT", "ETHUSDT"],
            "{text}"
        );
    }
    let file = "[venues.binance.spot]\nsymbols = [\"BTCUSDT\", \"ETHUSDT\", \"BTCUSDT\"]\n";
    let config = with_file(file).expect("valid");
    assert_eq!(config.venue(BINANCE, Market::Spot).expect("spot").symbols, ["BTCUSDT", "ETHUSDT"]);
}

#[test]
fn a_symbols_file_is_taken_from_the_folder_of_the_file_that_names_it() {
    let folder = tempfile::tempdir().expect("folder");
    fs::write(folder.path().join("mine.toml"), "quote = \"USDC\"\nbases = [\"SOL\", \"BTC\"]\n")
        .expect("written");
    let path = folder.path().join("fathom.toml");
    fs::write(&path, "[venues.binance.spot]\nsymbols = \"mine.toml\"\n").expect("written");
    let config = load(Some(&path), [], &[], &known()).expect("valid");
    assert_eq!(config.venue(BINANCE, Market::Spot).expect("spot").symbols, ["SOL/USDC", "BTC/USDC"]);
}

#[test]
fn later_sources_win() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("fathom.toml");
    fs::write(&path, "[http]\nport = 1001\nworkers = 3\n").expect("written");
    let port = |environment: &[(&str, &str)], overrides: &[(&str, &str)]| {
        let config = load(Some(&path), pairs(environment), &pairs(overrides), &known()).expect("valid");
        assert_eq!(config.http.workers, 3);
        config.http.port
    };
    assert_eq!(port(&[], &[]), 1001);
    assert_eq!(port(&[("PORT", "1002")], &[]), 1002);
    assert_eq!(port(&[("PORT", "1002"), ("FATHOM__HTTP__PORT", "1003")], &[]), 1003);
    let all = [("PORT", "1002"), ("FATHOM__HTTP__PORT", "1003")];
    assert_eq!(port(&all, &[("http.port", "1004")]), 1004);
    let listed = load(None, [], &pairs(&[("depth.levels", "[0.5, 2]")]), &known()).expect("valid");
    assert_eq!(listed.depth.levels, [Decimal::new(5, 1), Decimal::TWO]);
}

#[test]
fn decimals_never_pass_through_a_float() {
    // As floats both are 1.1: the second would be accepted, though it has too many decimals for a band.
    for (text, usable) in [("1.1", true), ("1.100000000000000000001", false), ("\"1.1\"", true)] {
        let loaded = with_file(&format!("[depth]\nlevels = [{text}]\n"));
        assert_eq!(loaded.is_ok(), usable, "{text}");
    }
}

#[test]
fn an_open_address_needs_a_token_and_the_token_never_shows() {
    for host in ["0.0.0.0", "192.168.1.5", "::"] {
        let message = refusal(with_env(&[("HOST", host)]));
        assert!(message.contains("HOST") && message.contains("FATHOM_API_TOKEN"), "{message}");
        let config = with_env(&[("HOST", host), (TOKEN_VARIABLE, "s3cret-token")]).expect("valid");
        assert!(config.http.token.as_ref().expect("token").matches("s3cret-token"));
        assert!(!format!("{config:?}").contains("s3cret"));
    }
    for loopback in ["127.0.0.1", "::1", "localhost", "127.3.2.1"] {
        assert!(with_env(&[("HOST", loopback)]).expect("valid").http.token.is_none());
    }
    let message = refusal(with_env(&[(TOKEN_VARIABLE, "s3cret token")]));
    assert!(message.contains(TOKEN_VARIABLE) && !message.contains("s3cret"), "{message}");
}

#[test]
fn a_token_file_counts_as_a_token_and_must_be_readable() {
    let folder = tempfile::tempdir().expect("folder");
    let token = folder.path().join("token");
    let path = folder.path().join("fathom.toml");
    fs::write(&path, "[http]\nhost = \"0.0.0.0\"\ntoken_file = \"token\"\n").expect("written");
    let missing = refusal(load(Some(&path), [], &[], &known()));
    assert!(missing.contains("cannot read") && missing.contains("token"), "{missing}");
    fs::write(&token, "\n").expect("written");
    assert!(refusal(load(Some(&path), [], &[], &known())).starts_with("http.token_file"));
    fs::write(&token, "from-file\n").expect("written");
    let config = load(Some(&path), [], &[], &known()).expect("valid");
    assert!(config.http.token.expect("token").matches("from-file"));
}

#[test]
fn another_venue_needs_no_code_here() {
    let config = with_file("[venues.other.spot]\nsymbols = [\"BTC_USDT\"]\n").expect("valid");
    let other = config.venue(VenueId::new("other"), Market::Spot).expect("configured");
    assert!(other.enabled && other.ticker && !other.raw_trades);
    assert_eq!(config.enabled().count(), 3);
    let off = with_file("[venues.binance.futures]\nenabled = false\n").expect("valid");
    assert_eq!(off.enabled().map(|market| market.market).collect::<Vec<_>>(), [Market::Spot]);
}

#[test]
fn a_missing_file_is_named() {
    let message = refusal(load(Some(Path::new("no/such.toml")), [], &[], &known()));
    assert_eq!(message, "cannot read no/such.toml");
}

#[test]
fn the_environment_example_lists_every_name() {
    let example = include_str!("../../.env.example");
    for name in old_environment_names().chain([TOKEN_VARIABLE]) {
        let listed =
            example.lines().any(|line| line.trim_start_matches(['#', ' ']).starts_with(&format!("{name}=")));
        assert!(listed, "{name}");
    }
}
