//! The gap ledger of a book's actor: what it shows, stores and fetches, over a panic and a start.

use fathom_market::{
    batch::{Batch, Column},
    event::{Body, Channel, Event, Side, Trade, TradeId, TradeKind},
    gap::{Gap, GapCause, GapStatus},
    ids::Market,
    mark::StreamMark,
    table::Table,
};

use super::*;
use crate::{
    fixtures::{BookBench, LONG, MINUTE_US, S, World, instrument},
    kernel::{Inject, testkit::eventually},
};

const START: i64 = MINUTE_US + 10 * S;

struct Bench {
    world: World,
    book: BookBench,
    /// Trade ids stored so far, and the ledger's rows.
    trades: Vec<u64>,
    ledger: usize,
}

impl Bench {
    async fn new() -> Self {
        let world = World::new(START);
        let book = BookBench::new(&world, &instrument(Market::Spot, "BTC")).await;
        Self { world, book, trades: Vec::new(), ledger: 0 }
    }

    fn feed(&self, item: FeedItem) {
        self.book.feed.offer(item).unwrap();
    }

    fn trade(&self, id: u64) {
        self.world.time.advance(Duration::from_millis(1));
        let body = Body::Trade(Trade {
            id: TradeId::Number(id),
            kind: TradeKind::Aggregate,
            raw_ids: None,
            price: 10_000,
            qty: 5,
            side: Side::Buy,
        });
        let recv_us = self.world.clock.now_us();
        let instrument = InstrumentIdx(0);
        self.feed(FeedItem::Events(vec![Event { instrument, event_us: None, sent_us: None, recv_us, body }]));
    }

    fn gap(&self, cause: GapCause) -> Option<Gap> {
        self.book.directory.gaps().find(|gap| gap.cause == cause && gap.channel == "trade").pop()
    }

    async fn sees(&self, cause: GapCause, status: GapStatus) -> Gap {
        let found = || self.gap(cause).is_some_and(|gap| gap.status == status);
        assert!(eventually(LONG, found).await, "{:?}", self.gap(cause));
        self.gap(cause).unwrap()
    }

    /// The next request for trades, whose first id is this.
    async fn asked(&self, from_id: u64) -> RestJob {
        let mut job = None;
        let came = || {
            // A request of an instance that died may still stand there.
            job = self.book.jobs.try_recv();
            matches!(&job, Some(HistoryJob::Rest(job)) if !job.reply.is_closed())
        };
        assert!(
            eventually(LONG, came).await,
            "no trades are asked from {from_id}: {:?}",
            self.gap(GapCause::Sequence)
        );
        let Some(HistoryJob::Rest(job)) = job else { panic!("not a request") };
        assert_eq!((job.request.path.as_str(), job.priority), ("/api/v3/aggTrades", Priority::Repair));
        assert!(job.request.query.contains(&("fromId", from_id.to_string())), "{:?}", job.request.query);
        job
    }

    async fn answer(&self, from_id: u64, ids: &[u64]) {
        let row = |id: &u64| {
            format!(
                r#"{{"a":{id},"p":"100.00","q":"0.005","f":1,"l":1,"T":1498793709153,"m":true,"M":true}}"#
            )
        };
        let rows: Vec<String> = ids.iter().map(row).collect();
        let body = format!("[{}]", rows.join(",")).into_bytes();
        let job = self.asked(from_id).await;
        job.reply.send(Ok(RestAnswer { status: 200, retry_after: None, body })).unwrap();
    }

    /// Reads what the book has sent to the writer.
    fn drain(&mut self) {
        while let Some(batch) = self.book.rows.try_recv() {
            match batch.table() {
                Table::Trades => self.trades.extend(ids(&batch)),
                Table::DataGaps => self.ledger += batch.len(),
                _ => {}
            }
        }
        self.trades.sort_unstable();
        self.trades.dedup();
    }

    async fn stored(&mut self, wanted: &[u64]) {
        let mut last = Vec::new();
        let there = || {
            self.drain();
            last.clone_from(&self.trades);
            last == wanted
        };
        assert!(eventually(LONG, there).await, "{:?}", self.trades);
    }
}

fn ids(batch: &Batch) -> Vec<u64> {
    let at = Table::Trades.schema().columns.iter().position(|column| column.name == "trade_id").unwrap();
    let Column::Text(ids) = &batch.columns()[at] else { panic!("ids are text") };
    ids.iter().map(|id| id.parse().unwrap()).collect()
}

#[actix_rt::test]
async fn missed_trades_are_fetched_and_the_ledger_says_so_once_they_are_sent() {
    let mut bench = Bench::new().await;
    bench.trade(10);
    bench.trade(15);
    let gap = bench.sees(GapCause::Sequence, GapStatus::Open).await;
    assert_eq!(
        (gap.from_id.as_deref(), gap.to_id.as_deref(), gap.missing),
        (Some("10"), Some("15"), Some(4))
    );
    bench.answer(11, &[11, 12]).await;
    bench.answer(13, &[13, 14, 15, 16]).await;
    bench.sees(GapCause::Sequence, GapStatus::Repaired).await;
    bench.stored(&[10, 11, 12, 13, 14, 15]).await;
    let told = || {
        bench.drain();
        bench.ledger >= 2
    };
    assert!(eventually(LONG, told).await, "the ledger's rows go to the writer");
}

#[actix_rt::test]
async fn a_panic_opens_a_gap_from_what_was_sent_and_its_repair_goes_on() {
    let mut bench = Bench::new().await;
    bench.trade(10);
    bench.stored(&[10]).await;
    bench.trade(13);
    drop(bench.asked(11).await);
    bench.stored(&[10, 13]).await;
    bench.world.control.inject(&bench.book.id, Inject::Panic).unwrap();
    let restarted = || {
        bench.world.time.advance(Duration::from_micros(10));
        bench.book.actor.generation() == 2
    };
    assert!(eventually(LONG, restarted).await);
    bench.trade(14);
    let gap = bench.sees(GapCause::Restart, GapStatus::NoneMissed).await;
    assert_eq!((gap.from_id.as_deref(), gap.to_id.as_deref()), (Some("13"), Some("14")));
    bench.answer(11, &[11, 12, 13]).await;
    bench.sees(GapCause::Sequence, GapStatus::Repaired).await;
    bench.stored(&[10, 11, 12, 13, 14]).await;
}

#[actix_rt::test]
async fn a_start_fills_the_hole_that_the_stop_has_left() {
    let mut bench = Bench::new().await;
    bench.trade(20);
    bench.stored(&[20]).await;
    let mark = StreamMark {
        instrument_id: instrument(Market::Spot, "BTC").id.0,
        channel: "trade".into(),
        last_us: START - S,
        last_id: Some("17".into()),
    };
    bench.book.directory.recall().set(vec![mark], Vec::new());
    let gap = bench.sees(GapCause::Restart, GapStatus::Open).await;
    assert_eq!((gap.from_us, gap.to_id.as_deref(), gap.missing), (START - S, Some("20"), Some(2)));
    bench.answer(18, &[18, 19]).await;
    bench.sees(GapCause::Restart, GapStatus::Repaired).await;
    bench.stored(&[18, 19, 20]).await;
}

#[actix_rt::test]
async fn a_lost_line_without_a_lost_trade_is_none_missed() {
    let bench = Bench::new().await;
    bench.trade(10);
    bench.feed(FeedItem::Reset { channels: vec![Channel::Trade], cause: "connection_lost" });
    bench.sees(GapCause::Disconnect, GapStatus::Open).await;
    bench.trade(11);
    let gap = bench.sees(GapCause::Disconnect, GapStatus::NoneMissed).await;
    assert_eq!((gap.missing, bench.book.jobs.is_empty()), (Some(0), true));
}
