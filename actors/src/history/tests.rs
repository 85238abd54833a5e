//! The catch-up of candle series, outside of any kernel.

use arc_swap::ArcSwap;
use fathom_market::{event::Candle, table::CollectorStateRow};
use fathom_transport::{RestBudget, TlsConfig};

use super::*;
use crate::{
    fixtures::{BINANCE, MINUTE_MS, MINUTE_US, binance, candle, instrument},
    kernel::{Clock, ManualClock, Outlet, Overflow, inbox::bounded},
    system::utc_clock,
    writer::tests::FakeStore,
};

const BTC: InstrumentIdx = InstrumentIdx(0);
const PAGE: usize = 3;

/// An actor outside of any kernel, and the inbox of its one book, which has room for one item.
fn actor(from_ms: Option<i64>) -> (HistoryActor, Inbox<FeedItem>) {
    let clock: Clock = ManualClock::new(MINUTE_US).clock();
    let table = ["BTC", "ETH"].map(|base| (*instrument(Market::Spot, base)).clone());
    let (outlet, book): (Outlet<FeedItem>, _) = bounded("feed", 1, Overflow::Fault, &clock);
    let (_, jobs) = bounded("jobs", 1, Overflow::Fault, &clock);
    let utc = utc_clock(&clock);
    let tls = TlsConfig::default().client_config().unwrap();
    let spec = HistorySpec {
        venue: binance(),
        market: Market::Spot,
        base: "http://127.0.0.1:1".into(),
        table: Arc::new(ArcSwap::from_pointee(InstrumentTable::new(table).unwrap())),
        timeframes: [Timeframe::M1, Timeframe::H1].into(),
        routes: Arc::new(ArcSwap::from_pointee(vec![outlet])),
        jobs,
        rest: RestClient::new(RestBudget::new(utc.clone()), tls, utc).unwrap(),
        store: Arc::new(FakeStore::default()),
        settings: HistorySettings {
            catch_up: true,
            from_ms,
            page: PAGE,
            retry: Retry { max: 3, delay: Duration::from_secs(1) },
        },
        caught_up: CaughtUp::new(2, false),
        recall: Recall::default(),
    };
    (HistoryActor::new(Lifeline::detached("history", clock), spec), book)
}

fn candles(count: i64, closed: i64) -> Vec<Candle> {
    (0..count).map(|at| candle(MINUTE_MS + at * 60_000, at < closed)).collect()
}

fn series(pages: usize) -> Series {
    Series {
        instrument: BTC,
        timeframe: Timeframe::M1,
        from_ms: MINUTE_MS,
        pages,
        priority: Priority::Repair,
        failures: 2,
    }
}

type Planned = (u32, Timeframe, i64, usize);

fn waiting(actor: &HistoryActor) -> Vec<Planned> {
    actor.waiting.iter().map(|s| (s.instrument.0, s.timeframe, s.from_ms, s.pages)).collect()
}

fn stored(native_of: &str, timeframe: &str, last_timestamp_ms: i64) -> CollectorStateRow {
    let instrument_id = instrument(Market::Spot, native_of).id.0;
    let timeframe = timeframe.into();
    CollectorStateRow { instrument_id, timeframe, last_timestamp_ms, last_updated_us: 0, is_realtime: true }
}

#[test]
fn the_catch_up_goes_on_where_each_series_ends() {
    let state = [stored("ETH", "1m", 500), stored("ETH", "5m", 1), stored("SOL", "1m", 1)];
    let (mut present, _) = actor(None);
    present.plan_catch_up(&state, None);
    assert_eq!(
        waiting(&present),
        [(1, Timeframe::M1, 501, MAX_PAGES)],
        "what is new begins with the present"
    );

    let (mut past, _) = actor(Some(7));
    past.plan_catch_up(&state, None);
    let expected = [
        (0, Timeframe::M1, 7, MAX_PAGES),
        (0, Timeframe::H1, 7, MAX_PAGES),
        (1, Timeframe::M1, 501, MAX_PAGES),
        (1, Timeframe::H1, 7, MAX_PAGES),
    ];
    assert_eq!(waiting(&past), expected);
    let repairs = past.waiting.iter().filter(|series| series.priority == Priority::Repair).count();
    assert_eq!(repairs, 1, "a hole goes before the past");
    assert_eq!(past.spec.table.load().get(BTC).unwrap().venue, BINANCE);
}

#[test]
fn only_closed_candles_are_delivered_and_a_full_page_leads_to_the_next() {
    let (mut actor, book) = actor(None);
    actor.deliver(series(2), candles(3, 2), 0, 99);
    let Some(FeedItem::Candles { candles: delivered, asked_us }) = book.try_recv() else {
        panic!("no candles")
    };
    assert_eq!((delivered, asked_us), (candles(2, 2), 99_000));
    assert_eq!(waiting(&actor), [(0, Timeframe::M1, MINUTE_MS + 120_000, 1)]);
    assert_eq!((actor.status.candles, actor.waiting[0].failures), (2, 0));

    actor.waiting.clear();
    actor.deliver(series(1), candles(3, 3), 0, 99);
    assert_eq!(waiting(&actor), [], "it was its last page");
    assert!(book.try_recv().is_some());
    actor.deliver(series(5), candles(2, 1), 0, 99);
    assert_eq!(waiting(&actor), [], "a page that is not full is the last");
    assert!(book.try_recv().is_some());
    actor.deliver(series(5), candles(1, 0), 0, 99);
    assert_eq!(waiting(&actor), [], "nothing is closed");
    assert!(matches!(book.try_recv(), Some(FeedItem::CaughtUp { stored_ms: None, .. })));
}

#[test]
fn a_series_is_caught_up_when_its_last_page_has_been_delivered() {
    let (mut actor, book) = actor(None);
    actor.plan_catch_up(&[stored("BTC", "1m", 500)], None);
    assert_eq!(
        actor.ends,
        [
            (BTC, Timeframe::H1, None),
            (InstrumentIdx(1), Timeframe::M1, None),
            (InstrumentIdx(1), Timeframe::H1, None)
        ],
        "nothing of them is stored"
    );
    actor.ends.clear();
    actor.deliver(series(5), candles(3, 3), 0, 99);
    assert_eq!(actor.ends, [], "a full page is not the last");
    assert!(book.try_recv().is_some());
    let single = Series { priority: Priority::Live, ..series(1) };
    actor.deliver(single, candles(1, 1), 0, 99);
    assert_eq!(actor.ends, [], "a single candle says nothing of the rest");
    assert!(book.try_recv().is_some());
    actor.deliver(series(4), candles(1, 1), 0, 99);
    assert_eq!(actor.ends, [(BTC, Timeframe::M1, None)], "the book has no room for it yet");
    assert!(book.try_recv().is_some());
    actor.tell_ends();
    assert!(matches!(
        book.try_recv(),
        Some(FeedItem::CaughtUp { timeframe: Timeframe::M1, stored_ms: None })
    ));
    assert_eq!(actor.ends, []);
}

#[test]
fn a_book_learns_where_its_series_ended_when_nothing_came_after() {
    let (mut actor, book) = actor(None);
    actor.deliver(Series { from_ms: 501, ..series(MAX_PAGES) }, candles(1, 0), 0, 99);
    let Some(FeedItem::CaughtUp { stored_ms, .. }) = book.try_recv() else { panic!("not told") };
    assert_eq!(stored_ms, Some(500));
}

#[test]
fn what_the_book_has_no_room_for_is_fetched_again_and_nothing_beside_it() {
    let (mut actor, book) = actor(None);
    actor.deliver(series(1), candles(3, 3), 0, 99);
    actor.deliver(series(5), candles(3, 3), 0, 99);
    assert_eq!((book.len(), waiting(&actor)), (1, vec![(0, Timeframe::M1, MINUTE_MS, 5)]));
    assert_eq!(actor.status.candles, 3, "those that were delivered");
}
