//! Metrics of shards, books, history, aggregators and REST budgets.

use fathom_actors::{
    aggregator::AggregatorDetail,
    book::BookDetail,
    history::HistoryStatus,
    kernel::{ActorId, BreakerState},
    latency::BOUNDS_US,
    stream::{ConnectionState, ShardStatus},
};
use fathom_market::{ids::Market, plan::Priority, sample::SampleState};
use fathom_transport::BudgetStatus;

use super::{
    Families, Sum, Type,
    exposition::{Counters, Value},
};
use crate::http::{AppState, shards::views};

const STATES: [ConnectionState; 5] = [
    ConnectionState::Disconnected,
    ConnectionState::Connecting,
    ConnectionState::Connected,
    ConnectionState::Reconnecting,
    ConnectionState::Failed,
];

pub(super) fn gather(state: &AppState, out: &mut Families) {
    let mut counters = state.totals.lock();
    shards(state, &mut counters, out);
    books(state, &mut counters, out);
    drop(counters);
    latency(state, out);
    history(state, out);
    aggregators(state, out);
    for budget in state.system.budgets() {
        rest(&budget, state.now_us(), out);
    }
}

fn latency(state: &AppState, out: &mut Families) {
    let counts = state.system.directory().applied().counts();
    let count = counts.cumulative.last().copied().unwrap_or(0);
    let bounds = BOUNDS_US.iter().zip(&counts.cumulative).map(|(us, below)| (*us as f64 / 1e6, *below));
    let help = "From the read of a socket until the book has what was read.";
    out.histogram("fathom_socket_to_book_seconds", help, bounds, (count, counts.sum_us as f64 / 1e6));
}

fn shards(state: &AppState, counters: &mut Counters, out: &mut Families) {
    let (mut rejects, mut ignored) = (Sum::default(), Sum::default());
    let now_us = state.now_us();
    for view in views(state) {
        let shard = &view.status;
        shard_samples(shard, now_us, out);
        let market = (shard.venue.as_str(), shard.market.as_str());
        for (reason, count) in &shard.rejects {
            let source = format!("{} {reason}", shard.id);
            rejects.add((market, *reason), counters.grown("shard_rejects", &source, *count));
        }
        for (reason, count) in &shard.ignored {
            let source = format!("{} {reason}", shard.id);
            ignored.add((market, *reason), counters.grown("shard_ignored", &source, *count));
        }
    }
    for (name, help, sums) in [
        ("fathom_records_rejected_total", "Received records that could not be used, by reason.", rejects),
        ("fathom_records_ignored_total", "Received records of no use, by reason.", ignored),
    ] {
        for (((venue, market), reason), count) in sums.iter() {
            let labels = [("venue", *venue), ("market", *market), ("reason", *reason)];
            out.add(name, Type::Counter, help, &labels, count);
        }
    }
}

fn shard_samples(shard: &ShardStatus, now_us: i64, out: &mut Families) {
    let (venue, market) = (shard.venue.as_str(), shard.market.as_str());
    for state in STATES {
        let labels = [("venue", venue), ("market", market), ("shard", &*shard.id), ("state", state.as_str())];
        let help = "1 for the state that the shard is in.";
        out.add("fathom_shard_state", Type::Gauge, help, &labels, shard.state == state);
    }
    let labels = [("venue", venue), ("market", market), ("shard", &*shard.id)];
    let sum =
        |of: fn(&fathom_actors::stream::status::LineStatus) -> u64| shard.lines.iter().map(of).sum::<u64>();
    let mut counter = |name, help, value: u64| out.add(name, Type::Counter, help, &labels, value);
    counter("fathom_shard_reconnects_total", "Connections lost or failed.", sum(|line| line.reconnects));
    counter("fathom_shard_frames_total", "Frames received.", sum(|line| line.frames));
    counter("fathom_shard_renewals_total", "Silent streams subscribed again.", sum(|line| line.renewed));
    counter("fathom_shard_events_total", "Events decoded.", shard.events);
    counter("fathom_shard_lost_events_total", "Events lost to full inboxes.", shard.lost_events);
    let mut gauge = |name, help, value: Value| out.add(name, Type::Gauge, help, &labels, value);
    gauge("fathom_shard_generation", "Instance of the shard's actor.", shard.generation.into());
    gauge("fathom_shard_streams", "Streams subscribed.", sum(|line| line.streams as u64).into());
    gauge("fathom_shard_streams_live", "Streams that deliver.", sum(|line| line.streams_live as u64).into());
    let open = shard.lines.iter().any(|line| matches!(line.breaker, BreakerState::Open { .. }));
    gauge("fathom_shard_breaker_open", "Whether a circuit breaker is open.", open.into());
    if let Some(last_us) = shard.last_frame_us {
        let age = (now_us - last_us) as f64 / 1e6;
        gauge("fathom_shard_last_frame_age_seconds", "Time since the last frame.", age.into());
    }
}

type MarketKey = (&'static str, &'static str);

#[derive(Default)]
struct Books {
    states: Sum<(MarketKey, &'static str)>,
    rejects: Sum<(MarketKey, String)>,
    counts: Sum<(&'static str, MarketKey)>,
    ticks: Sum<MarketKey>,
}

fn books(state: &AppState, counters: &mut Counters, out: &mut Families) {
    let (directory, now_us) = (state.system.directory(), state.now_us());
    let mut sums = Books::default();
    for entry in directory.markets() {
        let market = (entry.venue.as_str(), entry.market.as_str());
        for one in SampleState::ALL {
            sums.states.add((market, one.as_str()), 0);
        }
        for book in directory.books(entry.venue, entry.market) {
            let is = book.cell.state(now_us);
            sums.states.add((market, is.as_str()), 1);
            sums.ticks.add(market, book.cell.ticks().unsigned_abs());
            let labels =
                [("venue", market.0), ("market", market.1), ("symbol", &*book.cell.instrument.native)];
            let help = "1 while the symbol's book is kept in real time.";
            out.add("fathom_book_live", Type::Gauge, help, &labels, is == SampleState::Live);
            if let Some((_, detail)) = state.system.control().detail::<BookDetail>(book.actor.id()) {
                count_book(&detail, book.actor.id(), market, counters, &mut sums);
            }
        }
    }
    tell_books(&sums, out);
}

const APPLIED: &str = "fathom_book_updates_total";
const GAPS: &str = "fathom_book_gaps_total";
const RESYNCS: &str = "fathom_book_resyncs_total";
const CROSSED: &str = "fathom_book_crossed_total";
const POLLED: &str = "fathom_book_polls_total";
const VERIFIED: &str = "fathom_book_verifications_total";
const DIVERGED: &str = "fathom_book_divergences_total";
const UNALIGNED: &str = "fathom_book_unaligned_total";

fn count_book(
    detail: &BookDetail,
    id: &ActorId,
    market: MarketKey,
    counters: &mut Counters,
    sums: &mut Books,
) {
    let counts = [
        (APPLIED, detail.applied),
        (GAPS, detail.gaps),
        (RESYNCS, detail.resyncs),
        (CROSSED, detail.crossed),
        (POLLED, detail.polled),
        (VERIFIED, detail.verification.verifications),
        (DIVERGED, detail.verification.divergences),
        (UNALIGNED, detail.verification.unaligned),
    ];
    for (name, count) in counts {
        sums.counts.add((name, market), counters.grown(name, id.as_str(), count));
    }
    for (reason, count) in &detail.rejects {
        let grown = counters.grown("book_rejects", &format!("{id} {reason}"), *count);
        sums.rejects.add((market, (*reason).to_owned()), grown);
    }
    for (table, rows) in &detail.refused_rows {
        let grown = counters.grown("book_refused", &format!("{id} {table}"), *rows);
        sums.rejects.add((market, format!("writer_full_{table}")), grown);
    }
}

fn tell_books(sums: &Books, out: &mut Families) {
    for (((venue, market), state), count) in sums.states.iter() {
        let labels = [("venue", *venue), ("market", *market), ("state", *state)];
        out.add("fathom_books", Type::Gauge, "Books by state.", &labels, count);
    }
    for ((venue, market), count) in sums.ticks.iter() {
        let labels = [("venue", *venue), ("market", *market)];
        out.add("fathom_ticks_held", Type::Gauge, "Ticks of the last minute in memory.", &labels, count);
    }
    for ((name, (venue, market)), count) in sums.counts.iter() {
        let help = match *name {
            APPLIED => "Updates applied to books.",
            GAPS => "Sequence breaks.",
            RESYNCS => "Times that a live book was given up.",
            POLLED => "Times that a book was loaded over REST because its stream was away.",
            VERIFIED => "Comparisons of a book with the venue's own.",
            DIVERGED => "Comparisons that found a level that differs.",
            UNALIGNED => "Snapshots that could not be aligned with the book.",
            _ => "Times that a book was crossed.",
        };
        out.add(name, Type::Counter, help, &[("venue", *venue), ("market", *market)], count);
    }
    for (((venue, market), reason), count) in sums.rejects.iter() {
        let labels = [("venue", *venue), ("market", *market), ("reason", reason.as_str())];
        let help = "What a book could not use or pass on, by reason.";
        out.add("fathom_book_rejects_total", Type::Counter, help, &labels, count);
    }
}

fn history(state: &AppState, out: &mut Families) {
    for market in &state.system.settings().markets {
        let (venue, market) = (market.venue.id().as_str(), market.market.as_str());
        let id = ActorId::from(format!("history/{venue}/{market}"));
        let Some((_, status)) = state.system.control().detail::<HistoryStatus>(&id) else { continue };
        let labels = [("venue", venue), ("market", market)];
        let mut counter = |name, help, value: u64| out.add(name, Type::Counter, help, &labels, value);
        counter("fathom_rest_succeeded_total", "Requests answered usably.", status.succeeded);
        counter("fathom_rest_failed_total", "Requests that failed.", status.failed);
        counter("fathom_candles_fetched_total", "Candles read over REST.", status.candles);
        let mut gauge = |name, help, value: usize| out.add(name, Type::Gauge, help, &labels, value);
        gauge("fathom_rest_under_way", "Requests under way.", status.under_way);
        gauge(
            "fathom_catch_up_left",
            "Candle series that the catch-up has yet to look at.",
            status.catch_up_left,
        );
    }
}

fn aggregators(state: &AppState, out: &mut Families) {
    let names = state.system.settings().depth.categories.names().chain(["COIN"]);
    let now_ms = state.now_ms();
    for (name, market) in names.flat_map(|name| Market::ALL.map(|market| (name, market))) {
        let id = ActorId::from(format!("aggregator/{market}/{name}"));
        let Some((_, detail)) = state.system.control().detail::<AggregatorDetail>(&id) else { continue };
        let labels = [("market", market.as_str()), ("category", name)];
        let mut gauge = |name, help, value: Value| out.add(name, Type::Gauge, help, &labels, value);
        if detail.boundary_ms > 0 {
            let age = (now_ms - detail.boundary_ms) as f64 / 1e3;
            gauge("fathom_aggregator_boundary_age_seconds", "Age of the newest minute folded.", age.into());
        }
        gauge("fathom_category_members", "Members of the newest minute.", detail.members.into());
        gauge("fathom_category_symbols", "Members in its sums.", detail.symbols.into());
        let mut counter = |name, help, value: u64| out.add(name, Type::Counter, help, &labels, value);
        counter("fathom_aggregator_minutes_total", "Minutes folded.", detail.folded);
        counter("fathom_aggregator_refused_total", "Snapshots that could not be stored.", detail.refused);
    }
}

fn rest(budget: &BudgetStatus, now_us: i64, out: &mut Families) {
    let labels = [("host", budget.host.as_str()), ("group", budget.group)];
    let mut gauge = |name, help, value: Value| out.add(name, Type::Gauge, help, &labels, value);
    gauge("fathom_rest_budget_used", "Weight used within the window.", budget.used.into());
    gauge("fathom_rest_budget_limit", "Weight of a window.", budget.capacity.into());
    gauge("fathom_rest_budget_window_seconds", "Length of the window.", budget.window.as_secs_f64().into());
    gauge("fathom_rest_in_flight", "Requests in flight.", budget.in_flight.into());
    let delay = budget.suggested_delay.as_secs_f64();
    gauge("fathom_rest_adaptive_delay_seconds", "Pause between requests that are not urgent.", delay.into());
    let penalty = budget.penalized_until_us.map_or(0.0, |until| (until - now_us).max(0) as f64 / 1e6);
    gauge("fathom_rest_penalty_seconds", "How long the venue still refuses us.", penalty.into());
    let counters = budget.counters;
    let answered =
        counters.requests_ok + counters.refused_429 + counters.banned_418 + counters.requests_failed;
    if answered > 0 {
        let ratio = counters.requests_ok as f64 / answered as f64;
        gauge(
            "fathom_rest_success_ratio",
            "Share of requests that went well, since the start.",
            ratio.into(),
        );
    }
    for (priority, waiting) in Priority::ALL.into_iter().zip(budget.waiting) {
        let labels = [labels[0], labels[1], ("priority", priority.as_str())];
        out.add("fathom_rest_waiting", Type::Gauge, "Requests that wait, by priority.", &labels, waiting);
    }
    for (outcome, count) in [
        ("ok", counters.requests_ok),
        ("failed", counters.requests_failed),
        ("429", counters.refused_429),
        ("418", counters.banned_418),
        ("overloaded", counters.overloaded),
    ] {
        let labels = [labels[0], labels[1], ("outcome", outcome)];
        out.add("fathom_rest_requests_total", Type::Counter, "Requests by outcome.", &labels, count);
    }
}
