//! docker-compose.yml and the Dockerfile, read: what starts, in which order, who is healthy when, and that no secret stands
//! in them. No engine is needed.

#![allow(clippy::expect_used, clippy::panic, reason = "tests say what went wrong and fail")]

use std::{collections::BTreeMap, fs, path::Path};

use serde_yaml_ng::Value;

fn text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn compose() -> Value {
    serde_yaml_ng::from_str(&text("docker-compose.yml")).expect("YAML")
}

fn names(value: &Value) -> Vec<&str> {
    let mapping = value.as_mapping().expect("a mapping");
    mapping.keys().map(|key| key.as_str().expect("a name")).collect()
}

fn list(value: &Value) -> Vec<&str> {
    value.as_sequence().expect("a list").iter().map(|item| item.as_str().expect("text")).collect()
}

/// Seconds of `5s`.
fn seconds(value: &Value) -> u64 {
    let text = value.as_str().expect("a time");
    text.strip_suffix('s').and_then(|seconds| seconds.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn the_core_is_the_database_the_cache_and_the_service() {
    let compose = compose();
    let services = &compose["services"];
    assert_eq!(names(services), ["timescaledb", "redis", "fathom"]);
    for name in names(services) {
        let service = &services[name];
        let profiles = list(&service["profiles"]);
        assert!(profiles.contains(&"core") && profiles.contains(&"full"), "{name}: {profiles:?}");
        assert_eq!(service["restart"], "unless-stopped", "{name}");
        let image = service["image"].as_str().expect("an image");
        assert!(image.contains(':'), "{name}: {image} names no version");
    }
    assert!(services["timescaledb"]["image"].as_str().expect("image").starts_with("timescale/timescaledb:"));
    let profile = text(".env.example");
    assert!(profile.lines().any(|line| line == "COMPOSE_PROFILES=core"));
}

#[test]
fn everything_has_a_health_check_and_the_service_waits_for_the_others() {
    let compose = compose();
    let services = &compose["services"];
    for name in names(services) {
        let check = &services[name]["healthcheck"];
        let test = list(&check["test"]);
        assert!(test.first() == Some(&"CMD") && test.len() > 1, "{name}: {test:?}");
        assert!(seconds(&check["timeout"]) <= seconds(&check["interval"]), "{name}");
        assert!(check["retries"].as_u64().expect("retries") >= 3, "{name}");
    }
    let waits = &services["fathom"]["depends_on"];
    let mut waits_for = names(waits);
    waits_for.sort_unstable();
    assert_eq!(waits_for, ["redis", "timescaledb"]);
    for name in waits_for {
        assert_eq!(waits[name]["condition"], "service_healthy", "{name}");
        assert!(services[name]["depends_on"].is_null(), "{name} waits for nobody");
    }
}

#[test]
fn only_the_service_is_open_to_others() {
    let compose = compose();
    let services = &compose["services"];
    assert_eq!(list(&services["fathom"]["ports"]), ["8000:8000"]);
    for name in ["timescaledb", "redis"] {
        for port in list(&services[name]["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port} is open to others");
        }
    }
}

#[test]
fn what_is_kept_is_in_volumes_that_are_declared() {
    let compose = compose();
    let declared = names(&compose["volumes"]);
    let mut used = Vec::new();
    for name in names(&compose["services"]) {
        let volumes = &compose["services"][name]["volumes"];
        let own = if volumes.is_null() { Vec::new() } else { list(volumes) };
        used.extend(own.into_iter().map(|volume| volume.split(':').next().unwrap_or_default().to_owned()));
    }
    used.sort_unstable();
    let mut declared: Vec<String> = declared.into_iter().map(str::to_owned).collect();
    declared.sort_unstable();
    assert_eq!(used, declared);
}

/// A secret comes from the environment, is asked for where it is missing, and never has a value here.
#[test]
fn no_secret_stands_in_it() {
    let compose = compose();
    let mut secrets = 0;
    for name in names(&compose["services"]) {
        let environment = &compose["services"][name]["environment"];
        if environment.is_null() {
            continue;
        }
        for key in names(environment) {
            let value = environment[key].as_str().unwrap_or_default();
            if ["PASSWORD", "TOKEN", "SECRET", "URL"].iter().any(|word| key.contains(word)) {
                assert!(value.starts_with("${") && value.contains(":?"), "{name}: {key}={value}");
                secrets += 1;
            }
            assert!(!value.contains("://"), "{name}: {key} holds an address");
        }
    }
    assert_eq!(secrets, 3);
    assert!(text(".dockerignore").lines().any(|line| line == ".env"), "the image must not hold .env");
}

/// The names that it gives to the service are names that it reads, and make a configuration.
#[test]
fn its_environment_is_a_configuration_of_the_service() {
    let compose = compose();
    let environment = &compose["services"]["fathom"]["environment"];
    let given: BTreeMap<String, String> = names(environment)
        .into_iter()
        .map(|key| {
            let value = environment[key].as_str().expect("text");
            (key.to_owned(), if value.starts_with("${") { "chosen".to_owned() } else { value.to_owned() })
        })
        .collect();
    for key in given.keys() {
        let is_old = fathom::config::old_environment_names().any(|name| name == key);
        assert!(is_old || key.starts_with("FATHOM_"), "{key} is read by nobody");
    }
    let production = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/production.toml");
    let known = fathom::config::KnownVenue::all();
    let config = fathom::config::load(Some(&production), given, &[], &known).expect("a configuration");
    // The image has the extension, which is not used before its features are built.
    assert_eq!(config.store.kind, fathom::config::StoreKind::Postgres);
    assert_eq!(config.store.shown(), "timescaledb:5432/fathom");
    assert_eq!(config.data_dir, Path::new("/var/lib/fathom"));
}

#[test]
fn the_image_is_slim_runs_as_nobody_special_and_knows_whether_it_is_well() {
    let file = text("Dockerfile");
    let stages: Vec<&str> = file.lines().filter(|line| line.starts_with("FROM ")).collect();
    assert_eq!(stages.len(), 2, "one stage builds, the other runs");
    assert!(stages[1].ends_with("-slim"), "{}", stages[1]);
    let (_, last) = file.rsplit_once("\nFROM ").expect("stages");
    for line in ["USER fathom", "EXPOSE 8000", "STOPSIGNAL SIGTERM", "VOLUME /var/lib/fathom"] {
        assert!(last.lines().any(|found| found == line), "{line}");
    }
    assert!(last.contains("\nHEALTHCHECK ") && last.contains("/livez"));
    let shell = ["apt-get", "ARG ", "ENV "].into_iter().find(|word| last.contains(word));
    assert_eq!(shell, None, "nothing is installed, and nothing secret can be baked in");
    assert!(file.contains("--locked"));
}
