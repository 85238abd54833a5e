//! The ledger of one instrument, case by case; and against a naive model in [`model`].

mod model;

use fathom_market::{
    event::{SeqIds, TradeId},
    ids::Market,
    mark::StreamMark,
};

use super::*;
use crate::fixtures::{S, binance, instrument};

const T: Channel = Channel::Trade;
const D: Channel = Channel::Depth;
const Q: Channel = Channel::Quote;
const M1: Channel = Channel::Candle(Timeframe::M1);
const MINUTE: i64 = 60_000;

fn rules() -> GapRules {
    GapRules {
        depth: binance().sync_rule(Market::Spot),
        trades: TradeIds::Consecutive,
        keeps_trades: true,
        repair: RepairRules { max_trades: 1000, deadline: Duration::from_secs(60), max_empty: 1 },
    }
}

fn tracker_with(rules: GapRules) -> GapTracker {
    GapTracker::new(instrument(Market::Spot, "BTC").id, rules)
}

/// A tracker of a process that nothing was stored before.
fn tracker() -> GapTracker {
    let mut tracker = tracker_with(rules());
    tracker.recall(&[], &[], 0);
    tracker
}

fn trade(id: u64) -> RecordId {
    RecordId::Trade(TradeId::Number(id))
}

fn depth(first: u64, last: u64) -> RecordId {
    RecordId::Depth(SeqIds { first, last, prev: None })
}

fn candle(minute: i64, closed: bool) -> RecordId {
    RecordId::Candle { open_ms: minute * MINUTE, closed }
}

fn page(tracker: &mut GapTracker, from_id: u64, ids: &[u64], now_us: i64) -> Option<std::ops::Range<u64>> {
    let page = Page { from_id, ids, kind: Some(TradeKind::Aggregate) };
    let wanted = tracker.wanted(&page, now_us)?;
    tracker.page_read(&page, now_us);
    tracker.commit();
    Some(wanted)
}

/// Cause, status, edges in time and ids, and how many are missing.
type Seen = (GapCause, GapStatus, (i64, Option<i64>), (Option<String>, Option<String>), Option<u64>);

fn seen(tracker: &mut GapTracker) -> Vec<Seen> {
    let of = |gap: Gap| {
        assert_eq!(gap.closed_us.is_some(), gap.status != GapStatus::Open, "{gap:?}");
        (gap.cause, gap.status, (gap.from_us, gap.to_us), (gap.from_id, gap.to_id), gap.missing)
    };
    tracker.take().into_iter().map(of).collect()
}

fn ids(from: impl ToString, to: impl ToString) -> (Option<String>, Option<String>) {
    (Some(from.to_string()), Some(to.to_string()))
}

fn only(tracker: &mut GapTracker) -> Seen {
    let mut seen = seen(tracker);
    assert_eq!(seen.len(), 1, "{seen:?}");
    seen.remove(0)
}

#[test]
fn a_stream_that_was_never_heard_has_nothing_to_lose() {
    let mut tracker = tracker();
    assert!(!tracker.lost(T, GapCause::Disconnect, S));
    tracker.lost_all(GapCause::Overflow, S);
    assert_eq!(seen(&mut tracker), []);
}

#[test]
fn trades_that_follow_by_id_were_not_missed() {
    let mut tracker = tracker();
    tracker.record(T, 1, trade(7));
    assert!(tracker.lost(T, GapCause::Disconnect, 5));
    let open = (GapCause::Disconnect, GapStatus::Open, (1, None), (Some("7".into()), None), None);
    assert_eq!(only(&mut tracker), open);
    tracker.record(T, 8, trade(6));
    tracker.record(T, 9, trade(8));
    let closed = (GapCause::Disconnect, GapStatus::NoneMissed, (1, Some(9)), ids(7, 8), Some(0));
    assert_eq!(only(&mut tracker), closed);
    assert_eq!(tracker.next_page(), None);
}

#[test]
fn a_jump_of_trade_ids_is_fetched_page_by_page() {
    let mut tracker = tracker();
    tracker.trades_are(TradeKind::Aggregate);
    tracker.record(T, 1, trade(10));
    assert!(tracker.record(T, 2, trade(16)), "nobody had told of it");
    let open = (GapCause::Sequence, GapStatus::Open, (1, Some(2)), ids(10, 16), Some(5));
    assert_eq!(only(&mut tracker), open);
    assert_eq!(tracker.next_page(), Some(TradePage { from_id: 11, failures: 0 }));
    tracker.page_failed(11);
    assert_eq!(tracker.next_page(), Some(TradePage { from_id: 11, failures: 1 }));
    assert_eq!(page(&mut tracker, 11, &[11, 12, 13], 5), Some(11..16));
    assert_eq!(page(&mut tracker, 11, &[11, 12, 13], 5), None, "an answer that nobody waits for");
    assert_eq!(tracker.next_page(), Some(TradePage { from_id: 14, failures: 0 }));
    assert_eq!(page(&mut tracker, 14, &[14, 15, 16, 17], 6), Some(14..16));
    let repaired = (GapCause::Sequence, GapStatus::Repaired, (1, Some(2)), ids(10, 16), Some(5));
    assert_eq!(only(&mut tracker), repaired);
    assert_eq!(tracker.next_page(), None);
}

#[test]
fn ids_that_the_venue_does_not_have_are_lost_and_counted() {
    let mut tracker = tracker();
    tracker.record(T, 1, trade(10));
    tracker.record(T, 2, trade(16));
    page(&mut tracker, 11, &[12, 15, 16], 3);
    let gap = tracker.take().remove(0);
    assert_eq!((gap.status, gap.missing), (GapStatus::Lost, Some(3)));
    let reason = gap.reason.unwrap();
    assert!(reason.starts_with("3 of 5 ids"), "{reason}");
}

#[test]
fn a_history_that_lags_is_asked_again_before_it_is_believed() {
    let mut tracker = tracker();
    tracker.record(T, 1, trade(10));
    tracker.record(T, 2, trade(13));
    page(&mut tracker, 11, &[], 3);
    assert_eq!(tracker.next_page(), Some(TradePage { from_id: 11, failures: 1 }));
    page(&mut tracker, 11, &[], 4);
    assert_eq!(tracker.take()[0].status, GapStatus::Lost);
}

#[test]
fn what_cannot_be_fetched_is_lost_with_its_reason() {
    let lost = |rules: GapRules, to: u64| {
        let mut tracker = tracker_with(rules);
        tracker.recall(&[], &[], 0);
        tracker.record(T, 1, trade(10));
        tracker.lost(T, GapCause::Disconnect, 2);
        tracker.record(T, 3, trade(to));
        let gap = tracker.take().remove(0);
        assert_eq!((gap.status, tracker.next_page()), (GapStatus::Lost, None));
        gap.reason.unwrap()
    };
    assert_eq!(lost(GapRules { keeps_trades: false, ..rules() }, 12), "single trades are not stored");
    assert_eq!(lost(rules(), 2000), "1989 trades are more than are fetched, 1000");
    assert_eq!(lost(GapRules { trades: TradeIds::Increasing, ..rules() }, 12), NOT_NUMBERED);

    let mut other = tracker();
    other.trades_are(TradeKind::Single);
    other.record(T, 1, trade(10));
    other.record(T, 2, trade(13));
    assert_eq!(page(&mut other, 11, &[11, 12], 3), None, "ids of aggregates are other ids");
    assert_eq!(other.take()[0].status, GapStatus::Lost);

    let mut late = tracker();
    late.record(T, 1, trade(10));
    late.record(T, 2, trade(13));
    late.tick(61 * S);
    let gap = late.take().remove(0);
    assert_eq!((gap.status, gap.reason.as_deref()), (GapStatus::Lost, Some(TOO_LATE)));
}

#[test]
fn repairs_that_wait_are_bounded_and_lose_no_id() {
    let mut tracker = tracker();
    for at in 0..100_u64 {
        tracker.record(T, at as i64, trade(10 * at));
    }
    assert_eq!(tracker.take().len(), 64, "the last one holds the rest");
    let mut fetched = 0;
    while let Some(wanted) = tracker.next_page() {
        let ids: Vec<u64> = (wanted.from_id..wanted.from_id + 50).collect();
        fetched += page(&mut tracker, wanted.from_id, &ids, 200).unwrap().count().min(50);
    }
    let gaps = tracker.take();
    assert!(gaps.iter().all(|gap| gap.status == GapStatus::Repaired), "{gaps:?}");
    assert_eq!(gaps.iter().filter_map(|gap| gap.missing).sum::<u64>(), 99 * 9);
    assert!(fetched >= 99 * 9);
}

#[test]
fn depth_is_settled_when_the_book_is_live_again() {
    let mut tracker = tracker();
    tracker.record(D, 1, depth(10, 12));
    tracker.lost(D, GapCause::Disconnect, 5);
    tracker.record(D, 9, depth(20, 22));
    tracker.record(D, 10, depth(23, 24));
    let open = (GapCause::Disconnect, GapStatus::Open, (1, Some(9)), ids(12, 20), Some(7));
    assert_eq!(only(&mut tracker), open);
    tracker.book_live(Some(24), 11);
    let closed = (GapCause::Disconnect, GapStatus::Resynced, (1, Some(9)), ids(12, 20), Some(7));
    assert_eq!(only(&mut tracker), closed);
}

#[test]
fn depth_that_chains_was_not_missed_and_a_break_is_found() {
    let mut tracker = tracker();
    tracker.record(D, 1, depth(10, 12));
    tracker.lost(D, GapCause::Diverged, 2);
    tracker.record(D, 3, depth(13, 15));
    tracker.book_live(Some(15), 4);
    let none = (GapCause::Diverged, GapStatus::NoneMissed, (1, Some(3)), ids(12, 13), Some(0));
    assert_eq!(only(&mut tracker), none);
    assert!(tracker.record(D, 5, depth(17, 18)));
    let found = (GapCause::Sequence, GapStatus::Open, (3, Some(5)), ids(15, 17), Some(1));
    assert_eq!(only(&mut tracker), found);
    tracker.doubt(D, GapCause::Sequence, 5);
    assert_eq!(seen(&mut tracker), [], "it is known");
}

#[test]
fn a_second_loss_makes_the_gap_longer() {
    let mut tracker = tracker();
    tracker.record(D, 1, depth(10, 12));
    tracker.lost(D, GapCause::Disconnect, 2);
    tracker.record(D, 3, depth(15, 16));
    tracker.lost(D, GapCause::Sequence, 4);
    tracker.record(D, 5, depth(20, 20));
    let open = (GapCause::Disconnect, GapStatus::Open, (1, Some(5)), ids(12, 20), Some(2 + 3));
    assert_eq!(only(&mut tracker), open);
}

#[test]
fn a_quiet_book_is_settled_by_its_snapshot() {
    let settled = |snapshot| {
        let mut tracker = tracker();
        tracker.record(D, 1, depth(10, 12));
        tracker.lost(D, GapCause::Disconnect, 2);
        tracker.book_live(Some(snapshot), 9);
        let (_, status, us, _, missing) = only(&mut tracker);
        (status, us, missing)
    };
    assert_eq!(settled(12), (GapStatus::NoneMissed, (1, Some(9)), Some(0)));
    assert_eq!(settled(15), (GapStatus::Resynced, (1, Some(9)), None));
}

#[test]
fn quotes_are_lost_until_the_first_that_comes() {
    let mut tracker = tracker();
    tracker.record(Q, 1, RecordId::Update(5));
    tracker.lost(Q, GapCause::Silence, 7);
    tracker.lost(Q, GapCause::Disconnect, 8);
    tracker.record(Q, 9, RecordId::Update(6));
    let gap = tracker.take().remove(0);
    assert_eq!(
        (gap.cause, gap.status, gap.reason.as_deref()),
        (GapCause::Silence, GapStatus::Lost, Some(NO_HISTORY))
    );
    assert_eq!((gap.from_us, gap.to_us, gap.missing), (1, Some(9), None));
}

#[test]
fn a_candle_gap_needs_a_closed_candle_that_was_missed() {
    let mut tracker = tracker();
    tracker.record(M1, 1, candle(1, false));
    tracker.lost(M1, GapCause::Disconnect, 2);
    tracker.record(M1, 3, candle(1, true));
    tracker.lost(M1, GapCause::Disconnect, 4);
    tracker.record(M1, 5, candle(2, false));
    assert_eq!(seen(&mut tracker), [], "the same candle went on, and the next followed");
    tracker.lost(M1, GapCause::Disconnect, 6);
    tracker.record(M1, 7, candle(4, false));
    let open = (GapCause::Disconnect, GapStatus::Open, (5, Some(7)), ids(2 * MINUTE, 4 * MINUTE), Some(2));
    assert_eq!(only(&mut tracker), open);
    assert!(tracker.awaits_candles(Timeframe::M1));
    tracker.candles_stored(Timeframe::M1, 2 * MINUTE, 8);
    assert_eq!(seen(&mut tracker), []);
    tracker.candles_stored(Timeframe::M1, 3 * MINUTE, 9);
    assert_eq!(seen(&mut tracker), [], "their rows have not left the book");
    tracker.commit();
    assert_eq!(only(&mut tracker).1, GapStatus::Repaired);
    assert!(!tracker.awaits_candles(Timeframe::M1));
}

#[test]
fn a_candle_that_skips_is_a_gap_and_is_lost_when_nobody_has_it() {
    let mut tracker = tracker();
    tracker.record(M1, 1, candle(1, true));
    tracker.record(M1, 2, candle(3, false));
    let (cause, status, .., missing) = only(&mut tracker);
    assert_eq!((cause, status, missing), (GapCause::Sequence, GapStatus::Open, Some(1)));
    tracker.tick(61 * S);
    assert_eq!(only(&mut tracker).1, GapStatus::Lost);
}

#[test]
fn an_instance_that_panics_gives_back_what_had_not_left_it() {
    let mut tracker = tracker();
    tracker.record(T, 1, trade(10));
    tracker.record(Q, 1, RecordId::Update(1));
    tracker.commit();
    tracker.record(T, 2, trade(11));
    tracker.resume(5);
    tracker.record(T, 6, trade(12));
    let gap = tracker.take().into_iter().find(|gap| gap.channel == "trade").unwrap();
    assert_eq!((gap.cause, gap.from_us, gap.to_us, gap.missing), (GapCause::Restart, 1, Some(6), Some(1)));
    assert_eq!(tracker.next_page(), Some(TradePage { from_id: 11, failures: 0 }));
    tracker.commit();
    let full = Page { from_id: 11, ids: &[11], kind: None };
    tracker.page_read(&full, 7);
    assert_eq!(tracker.next_page(), None);
    tracker.resume(8);
    assert_eq!(
        tracker.next_page(),
        Some(TradePage { from_id: 11, failures: 0 }),
        "its rows had not left the book"
    );
    page(&mut tracker, 11, &[11], 9);
    assert!(tracker.take().iter().any(|gap| gap.status == GapStatus::Repaired));
    tracker.resume(10);
    assert!(tracker.take().iter().any(|gap| gap.status == GapStatus::Repaired), "the ledger's row had not");
}

#[test]
fn a_hole_that_begins_again_at_the_same_record_is_one_gap() {
    let mut tracker = tracker();
    tracker.record(T, 1, trade(10));
    tracker.commit();
    tracker.resume(2);
    tracker.record(T, 3, trade(12));
    tracker.resume(4);
    assert_eq!(tracker.next_page(), None, "the trade that ended it is lost again");
    tracker.record(T, 5, trade(14));
    let restart = (GapCause::Restart, GapStatus::Open, (1, Some(5)), ids(10, 14), Some(3));
    assert_eq!(only(&mut tracker), restart);
    assert_eq!(tracker.next_page(), Some(TradePage { from_id: 11, failures: 0 }));
}

#[test]
fn an_instance_that_ends_in_order_loses_only_its_book() {
    let mut tracker = tracker();
    tracker.record(T, 1, trade(10));
    tracker.record(D, 1, depth(1, 2));
    tracker.finish();
    tracker.resume(5);
    let (cause, status, ..) = only(&mut tracker);
    assert_eq!((cause, status), (GapCause::Restart, GapStatus::Open));
    tracker.record(D, 6, depth(3, 4));
    tracker.book_live(Some(4), 7);
    assert_eq!(only(&mut tracker).1, GapStatus::NoneMissed);
}

fn mark(channel: &str, last_us: i64, last_id: Option<&str>) -> StreamMark {
    StreamMark {
        instrument_id: instrument(Market::Spot, "BTC").id.0,
        channel: channel.into(),
        last_us,
        last_id: last_id.map(Into::into),
    }
}

fn left() -> [StreamMark; 4] {
    [
        mark("trade", 100, Some("7")),
        mark("depth", 101, Some("70")),
        mark("quote", 102, Some("700")),
        mark("candle:1m", 2 * MINUTE * 1000, None),
    ]
}

/// The same after a start, whether the first records or the marks come first.
#[test]
fn the_hole_of_a_stop_reaches_from_the_last_stored_to_the_first_new_record() {
    let records = |tracker: &mut GapTracker| {
        tracker.record(T, 500, trade(9));
        tracker.record(D, 501, depth(75, 76));
        tracker.record(Q, 502, RecordId::Update(705));
        tracker.record(M1, 503, candle(4, false));
    };
    for marks_first in [true, false] {
        let mut tracker = tracker_with(rules());
        if marks_first {
            tracker.recall(&left(), &[], 400);
            records(&mut tracker);
        } else {
            records(&mut tracker);
            tracker.record(T, 600, trade(10));
            tracker.record(D, 601, depth(77, 78));
            tracker.recall(&left(), &[], 700);
        }
        tracker.book_live(Some(80), 800);
        let mut seen = seen(&mut tracker);
        seen.sort_by_key(|(_, _, from, ..)| *from);
        let restart = GapCause::Restart;
        let expected = [
            (restart, GapStatus::Open, (100, Some(500)), ids(7, 9), Some(1)),
            (restart, GapStatus::Resynced, (101, Some(501)), ids(70, 75), Some(4)),
            (restart, GapStatus::Lost, (102, Some(502)), ids(700, 705), None),
            (restart, GapStatus::Open, (2 * MINUTE * 1000, Some(503)), ids(2 * MINUTE, 4 * MINUTE), Some(1)),
        ];
        assert_eq!(seen, expected, "marks first: {marks_first}");
        assert_eq!(tracker.next_page(), Some(TradePage { from_id: 8, failures: 0 }));
    }
}

#[test]
fn a_mark_that_was_read_too_late_says_nothing() {
    let mut tracker = tracker_with(rules());
    tracker.record(T, 50, trade(5));
    tracker.recall(&[mark("trade", 100, Some("7"))], &[], 200);
    assert_eq!(seen(&mut tracker), []);
}

#[test]
fn gaps_that_the_last_process_left_open_go_on() {
    let mut before = tracker();
    before.record(T, 1, trade(10));
    before.record(T, 2, trade(13));
    before.record(D, 3, depth(1, 4));
    before.lost(D, GapCause::Disconnect, 5);
    before.record(M1, 6, candle(1, true));
    before.record(M1, 7, candle(3, false));
    let mut open = before.take();
    let odd = Gap { id: "odd".into(), channel: "quote".into(), to_us: Some(9), ..open[0].clone() };
    open.push(odd);

    let mut after = tracker_with(rules());
    let marks = [mark("trade", 2, Some("13")), mark("depth", 3, Some("4"))];
    after.recall(&marks, &open, 20);
    assert_eq!(after.next_page(), Some(TradePage { from_id: 11, failures: 0 }));
    after.record(T, 30, trade(14));
    after.record(D, 31, depth(8, 9));
    after.book_live(Some(9), 32);
    after.candles_stored(Timeframe::M1, 2 * MINUTE, 33);
    page(&mut after, 11, &[11, 12, 13], 34);
    let became: BTreeMap<String, (GapStatus, Option<String>)> = after
        .take()
        .into_iter()
        .map(|gap| (gap.channel + gap.cause.as_str(), (gap.status, gap.to_id)))
        .collect();
    let to = |id: &str| Some(id.to_owned());
    assert_eq!(became["tradesequence"], (GapStatus::Repaired, to("13")));
    assert_eq!(became["traderestart"], (GapStatus::NoneMissed, to("14")));
    assert_eq!(became["depthdisconnect"], (GapStatus::Resynced, to("8")), "no second gap of the same hole");
    assert_eq!(became["candle:1msequence"].0, GapStatus::Repaired);
    assert_eq!(became["quotesequence"].0, GapStatus::Lost, "{became:?}");
    assert_eq!(became.len(), 5);
}

#[test]
fn a_later_version_of_a_gap_is_always_newer() {
    let mut tracker = tracker();
    tracker.record(T, 5, trade(10));
    tracker.lost(T, GapCause::Disconnect, 9);
    let first = tracker.take().remove(0);
    tracker.record(T, 9, trade(11));
    let second = tracker.take().remove(0);
    assert_eq!(first.id, second.id);
    assert!(second.updated_us > first.updated_us, "the clock stood still");
    tracker.untold(second.clone());
    assert_eq!(tracker.take(), [second]);
}

#[test]
fn a_second_hole_after_records_of_one_moment_keeps_what_the_first_has_to_fetch() {
    let mut tracker = tracker();
    tracker.trades_are(TradeKind::Aggregate);
    tracker.record(T, 7, trade(5));
    tracker.lost(T, GapCause::Unreadable, 7);
    tracker.record(T, 7, trade(8));
    assert_eq!(tracker.next_page().map(|page| page.from_id), Some(6));
    tracker.lost(T, GapCause::Unreadable, 7);
    assert_eq!(tracker.next_page(), None, "it waits for the far edge");
    tracker.record(T, 9, trade(10));
    assert_eq!(
        only(&mut tracker),
        (GapCause::Unreadable, GapStatus::Open, (7, Some(9)), ids(5, 10), Some(3))
    );
    assert_eq!(page(&mut tracker, 6, &[6, 7, 8, 9], 10), Some(6..10));
    assert_eq!(only(&mut tracker).1, GapStatus::Repaired);
}

#[test]
fn a_symbol_that_comes_again_goes_on_from_its_own_last_record() {
    let mut tracker = tracker();
    tracker.record(T, 1, trade(5));
    tracker.record(D, 1, depth(1, 2));
    tracker.record(Q, 1, RecordId::Update(3));
    tracker.commit();
    tracker.finish();
    tracker.rejoin(rules(), 100);
    tracker.record(T, 200, trade(9));
    let trades: Vec<_> = seen(&mut tracker).into_iter().filter(|gap| gap.3.0 == Some("5".into())).collect();
    assert_eq!(trades, [(GapCause::Paused, GapStatus::Open, (1, Some(200)), ids(5, 9), Some(3))]);
    assert_eq!(tracker.next_page().map(|page| page.from_id), Some(6));
}

#[test]
fn what_is_open_of_a_symbol_that_leaves_for_good_is_closed_with_the_reason() {
    let mut tracker = tracker();
    tracker.record(T, 1, trade(5));
    tracker.record(T, 2, trade(9));
    tracker.record(Q, 2, RecordId::Update(3));
    tracker.record(M1, 2, candle(1, false));
    tracker.lost(Q, GapCause::Disconnect, 3);
    tracker.lost(M1, GapCause::Disconnect, 3);
    tracker.take();
    tracker.give_up_all("it left", 50);
    let told = tracker.take();
    let of = |gap: &Gap| (gap.channel.clone(), gap.status, gap.to_us, gap.reason.clone());
    let lost =
        |channel: &str, to_us| (channel.to_owned(), GapStatus::Lost, Some(to_us), Some("it left".to_owned()));
    let mut told: Vec<_> = told.iter().map(of).collect();
    told.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(told, [lost(&channel_word(Q), 50), lost(&channel_word(T), 2)]);
    assert_eq!(tracker.next_page(), None);
}

fn channel_word(channel: Channel) -> String {
    fathom_market::gap::channel_word(channel)
}

#[test]
fn ids_that_were_set_back_are_records_again_and_their_hole_is_lost() {
    let mut tracker = tracker();
    tracker.record(T, 1, trade(500));
    tracker.lost(T, GapCause::Sequence, 2);
    tracker.ids_set_back(T);
    tracker.record(T, 3, trade(499));
    let closed = (GapCause::Sequence, GapStatus::Lost, (1, Some(3)), ids(500, 499));
    let told = seen(&mut tracker);
    assert_eq!(told.iter().map(|gap| (gap.0, gap.1, gap.2, gap.3.clone())).collect::<Vec<_>>(), [closed]);
    assert!(tracker.record(T, 4, trade(502)), "and numbered on from there");
}
