//! One stream of many falls silent, and one level of one book is corrupted: each is found and healed, and nothing else is
//! touched.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use xtask::suite::{
    Options,
    stand::{Stand, Target},
    watch::Watch,
};

use crate::{
    harness::{check, eventually},
    suite::options,
};

/// The floor of silence, twice, the look of the liveness, and a margin for a loaded machine.
const FOUND_WITHIN: Duration = Duration::from_secs(2 * 5 + 10);
const HEALS_WITHIN: Duration = Duration::from_secs(60);
const RECONNECTS: &str = "fathom_shard_reconnects_total";
const RENEWALS: &str = "fathom_shard_renewals_total";
const RESYNCS: &str = "fathom_book_resyncs_total";

fn stand() -> (Options, Stand) {
    let options = Options { symbols: 20, ..options(60, 400.0) };
    let stand = Stand::start(&options);
    (options, stand)
}

#[test]
fn a_silent_stream_among_hundreds_is_found_and_healed_alone() {
    let (_, stand) = stand();
    let watch = Watch::new(&stand);
    let streams = stand.service.http.json("/api/v1/admin/websocket/stats")["streams"].as_u64();
    assert!(streams >= Some(200), "{streams:?} streams");
    let target = Target { market: "spot", symbol: stand.symbols["spot"][3].clone() };
    let stream = stand.stream(&target, "depth").expect("subscribed");
    let before = watch.look().expect("an answer");
    let begun = Instant::now();
    stand.fault(&json!({"kind": "silence", "market": "spot", "stream": stream})).expect("put in");
    eventually("the silent stream is subscribed anew", FOUND_WITHIN, || {
        let now = watch.look()?;
        check(now.counter(RENEWALS) > before.counter(RENEWALS), || "not yet".to_owned())
    });
    eventually("the book is true again", HEALS_WITHIN, || watch.all_is_well(Some(&target)));
    let after = watch.look().expect("an answer");
    assert_eq!(after.counter(RECONNECTS), before.counter(RECONNECTS), "a socket was given up for one stream");
    assert_eq!(after.counter(RENEWALS), before.counter(RENEWALS) + 1, "another stream was touched");
    eprintln!("healed after {:?}", begun.elapsed());
}

#[cfg(feature = "fault-injection")]
#[test]
fn a_level_corrupted_in_memory_is_found_and_healed_without_a_reconnect() {
    let (options, stand) = stand();
    let watch = Watch::new(&stand);
    let target = Target { market: "futures", symbol: stand.symbols["futures"][5].clone() };
    let before = watch.look().expect("an answer");
    let path = format!("/api/v1/actors/{}/inject", target.book_actor());
    let answer = stand.service.http.post(&path, &json!({"fault": "corrupt_level"})).expect("an answer");
    assert_eq!(answer.status, 202, "{}", answer.body);
    // A look may find the book on its way; the next one is a period later.
    let within = 3 * options.verify_every() + HEALS_WITHIN;
    eventually("the wrong level is found", within, || {
        let now = watch.look()?;
        check(now.counter(RESYNCS) > before.counter(RESYNCS), || "not yet".to_owned())
    });
    eventually("the book is true again", HEALS_WITHIN, || watch.all_is_well(Some(&target)));
    let after = watch.look().expect("an answer");
    assert_eq!(after.counter(RECONNECTS), before.counter(RECONNECTS), "a socket was given up for one level");
    assert_eq!(after.counter(RESYNCS), before.counter(RESYNCS) + 1, "another book was loaded anew");
}
