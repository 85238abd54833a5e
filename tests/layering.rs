//! Rules of the workspace that no compiler checks: which package may depend on which, and what every source file
//! looks like. ARCHITECTURE.md says why.

#![allow(clippy::expect_used, reason = "a failed expectation fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

const MAX_CODE_LINES: usize = 500;

/// Our packages, and those of ours that each may depend on. An edge that is not here is forbidden.
const ALLOWED: &[(&str, &[&str])] = &[
    (
        "fathom",
        &[
            "fathom-actors",
            "fathom-delivery",
            "fathom-market",
            "fathom-simulator",
            "fathom-storage",
            "fathom-transport",
            "fathom-venues",
        ],
    ),
    (
        "fathom-actors",
        &["fathom-delivery", "fathom-market", "fathom-storage", "fathom-transport", "fathom-venues"],
    ),
    ("fathom-delivery", &["fathom-market"]),
    ("fathom-market", &[]),
    ("fathom-simulator", &["fathom-market"]),
    ("fathom-storage", &["fathom-market"]),
    ("fathom-testkit", &[]),
    ("fathom-transport", &["fathom-market"]),
    ("fathom-venues", &["fathom-market"]),
    // It talks to the service only as a user would.
    ("xtask", &[]),
];

/// What only the tests of a package may use besides.
const ALLOWED_IN_TESTS: &[(&str, &str)] = &[
    ("fathom", "fathom-testkit"),
    ("fathom", "xtask"),
    ("fathom-delivery", "fathom-testkit"),
    ("fathom-storage", "fathom-testkit"),
];

/// Foreign packages with a home: nobody else may depend on them, not even in tests unless TEST_HOMES says so.
const HOMES: &[(&str, &[&str])] = &[
    // The tests of the whole read the service's database.
    // The testkit makes the databases of tests, and nothing but tests depends on it.
    ("sqlx", &["fathom-storage", "fathom-testkit", "xtask"]),
    ("tokio-tungstenite", &["fathom-transport", "fathom-simulator"]),
    ("redis", &["fathom-delivery"]),
    // The root package calls its own API with it (`fathom ctl`), never a venue.
    ("reqwest", &["fathom-transport", "fathom", "xtask"]),
];

/// What only the tests of a package may use besides. Those of the whole read the service's database.
const TEST_HOMES: &[(&str, &str)] = &[
    ("sqlx", "fathom"),
    // A local exchange, for the lines of a shard.
    ("tokio-tungstenite", "fathom-actors"),
];

/// Packages without IO, clock and dice, and what they must not depend on outside their tests.
const PURE: &[&str] = &["fathom-market", "fathom-venues"];
const IMPURE: &[&str] = &[
    "actix",
    "actix-rt",
    "actix-web",
    "async-channel",
    "async-trait",
    "chrono",
    "futures-util",
    "rand",
    "reqwest",
    "sqlx",
    "tokio",
    "tokio-tungstenite",
    "tokio-util",
    "tracing",
    "uuid",
];

struct Edge {
    from: String,
    to: String,
    dev: bool,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("metadata is JSON")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn edges() -> Vec<Edge> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let of_package = |package: &Value| {
        let dependencies = package["dependencies"].as_array().expect("dependencies");
        let edge = |dependency: &Value| Edge {
            from: text(package, "name").to_owned(),
            to: text(dependency, "name").to_owned(),
            dev: dependency["kind"] == "dev",
        };
        dependencies.iter().map(edge).collect::<Vec<_>>()
    };
    packages.iter().flat_map(of_package).collect()
}

#[test]
fn packages_depend_on_each_other_only_as_drawn() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    for package in packages {
        let name = text(package, "name");
        assert!(allowed.contains_key(name), "{name} has no place in the drawing: add it to ALLOWED");
    }
    let ours = |edge: &&Edge| allowed.contains_key(edge.to.as_str());
    let wrong: Vec<String> = edges()
        .iter()
        .filter(ours)
        .filter(|edge| !allowed[edge.from.as_str()].contains(&edge.to.as_str()))
        .filter(|edge| !(edge.dev && ALLOWED_IN_TESTS.contains(&(edge.from.as_str(), edge.to.as_str()))))
        .map(|edge| format!("{} -> {}", edge.from, edge.to))
        .collect();
    assert!(wrong.is_empty(), "forbidden edges: {wrong:?}");
}

#[test]
fn the_outside_world_has_one_home_each() {
    let homes: BTreeMap<&str, &[&str]> = HOMES.iter().copied().collect();
    let in_tests = |edge: &Edge| edge.dev && TEST_HOMES.contains(&(edge.to.as_str(), edge.from.as_str()));
    let astray = |edge: &&Edge| {
        homes.get(edge.to.as_str()).is_some_and(|home| !home.contains(&edge.from.as_str())) && !in_tests(edge)
    };
    let wrong: Vec<String> =
        edges().iter().filter(astray).map(|edge| format!("{} -> {}", edge.from, edge.to)).collect();
    assert!(wrong.is_empty(), "away from home: {wrong:?}");
}

#[test]
fn the_pure_packages_have_no_io_no_clock_and_no_dice() {
    let impure =
        |edge: &&Edge| PURE.contains(&edge.from.as_str()) && IMPURE.contains(&edge.to.as_str()) && !edge.dev;
    let wrong: Vec<String> =
        edges().iter().filter(impure).map(|edge| format!("{} -> {}", edge.from, edge.to)).collect();
    assert!(wrong.is_empty(), "not pure: {wrong:?}");
}

#[test]
fn every_package_takes_the_lints_of_the_workspace() {
    let metadata = metadata();
    for package in metadata["packages"].as_array().expect("packages") {
        let manifest = fs::read_to_string(text(package, "manifest_path")).expect("readable");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{} lacks [lints]", text(package, "name"));
    }
}

/// A source file as the rules see it.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn name(&self) -> String {
        self.path.strip_prefix(root()).unwrap_or(&self.path).display().to_string()
    }

    /// Whether it is part of a test, a bench or a build script.
    fn is_auxiliary(&self) -> bool {
        let folders = self.path.strip_prefix(root()).unwrap_or(&self.path).components();
        let in_folder = folders.map(|part| part.as_os_str()).any(|part| part == "tests" || part == "benches");
        let file = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        in_folder || file == "tests.rs" || file == "build.rs"
    }

    /// Lines of code without comments and blank lines, up to the tests at the end of the file.
    fn code(&self) -> impl Iterator<Item = &str> {
        let lines: Vec<&str> = self.text.lines().map(str::trim).collect();
        let opens_tests = |pair: &[&str]| {
            pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
        };
        let end = lines.windows(2).position(opens_tests).unwrap_or(lines.len());
        lines.into_iter().take(end).filter(|line| !line.is_empty() && !line.starts_with("//"))
    }
}

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    for folder in ["src", "actors", "crates", "tests", "benches", "xtask"] {
        collect(&root().join(folder), &mut files);
    }
    let read = |path: PathBuf| Source { text: fs::read_to_string(&path).expect("readable"), path };
    files.into_iter().map(read).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("readable").path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn no_file_grows_beyond_the_limit() {
    let sources = sources();
    assert!(sources.len() > 20, "the sources were not found");
    let sizes = sources
        .iter()
        .filter(|source| !source.is_auxiliary())
        .map(|source| (source.name(), source.code().count()));
    let wrong: Vec<_> = sizes.filter(|(_, lines)| *lines > MAX_CODE_LINES).collect();
    assert!(wrong.is_empty(), "more than {MAX_CODE_LINES} lines of code: {wrong:?}");
}

#[test]
fn every_module_opens_with_what_it_does() {
    let headless = |source: &&Source| !source.is_auxiliary() && !source.text.trim_start().starts_with("//!");
    let wrong: Vec<String> = sources().iter().filter(headless).map(Source::name).collect();
    assert!(wrong.is_empty(), "no //! head: {wrong:?}");
}

#[test]
fn nothing_is_left_to_do() {
    let marks =
        [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("TO", "DO"), concat!("FIX", "ME")];
    let unfinished = |source: &&Source| marks.iter().any(|mark| source.text.contains(mark));
    let wrong: Vec<String> = sources().iter().filter(unfinished).map(Source::name).collect();
    assert!(wrong.is_empty(), "unfinished: {wrong:?}");
}

#[test]
fn every_venue_has_the_same_files() {
    let base = root().join("crates/venues/src");
    let folders = fs::read_dir(&base).expect("venues").map(|entry| entry.expect("readable").path());
    let mut venues = BTreeMap::new();
    // The planner is of no venue.
    for folder in folders.filter(|path| path.is_dir() && !path.ends_with("planner")) {
        let mut files = Vec::new();
        collect(&folder, &mut files);
        let relative = |path: &PathBuf| path.strip_prefix(&folder).unwrap_or(path).to_owned();
        let own: BTreeSet<PathBuf> =
            files.iter().map(relative).filter(|path| !path.ends_with("tests.rs")).collect();
        assert!(own.contains(Path::new("mod.rs")), "{} has no mod.rs", folder.display());
        venues.insert(folder, own);
    }
    assert!(!venues.is_empty(), "no venue was found");
    let distinct: BTreeSet<&BTreeSet<PathBuf>> = venues.values().collect();
    assert_eq!(distinct.len(), 1, "the folders differ: {venues:?}");
}
