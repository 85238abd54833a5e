//! The book's actor under a real kernel: what it fetches, sends and publishes of what its core decides.

use fathom_market::{
    event::{Body, BookDelta, Channel, Event, Quote, SeqIds},
    ids::Market,
    table::Table,
};

use super::*;
use crate::{
    book::{
        core::poison::{POISONED, testing},
        polling::PollRules,
    },
    fixtures::{BookBench, LONG, MINUTE_MS, MINUTE_US, S, World, book_settings, instrument, level},
    kernel::{Inject, testkit::eventually},
};

const START: i64 = MINUTE_US + 10 * S;
const SNAPSHOT: &str = r#"{"lastUpdateId":12,"bids":[["99.98","2"]],"asks":[["100.01","3"]]}"#;

struct Bench {
    world: World,
    book: BookBench,
}

impl Bench {
    async fn new() -> Self {
        Self::with(book_settings()).await
    }

    async fn with(settings: BookSettings) -> Self {
        let world = World::new(START);
        let book = BookBench::with(&world, &instrument(Market::Spot, "BTC"), settings).await;
        Self { world, book }
    }

    /// A live book whose last id is 13.
    async fn live() -> Self {
        let bench = Self::new().await;
        bench.feed(FeedItem::Open { channels: vec![Channel::Depth] });
        bench.sync(13).await;
        bench
    }

    fn feed(&self, item: FeedItem) {
        self.book.feed.offer(item).unwrap();
    }

    fn event(&self, body: Body) {
        let event = Event {
            instrument: InstrumentIdx(0),
            event_us: None,
            sent_us: None,
            recv_us: self.now_us(),
            body,
        };
        self.feed(FeedItem::Events(vec![event]));
    }

    fn delta(&self, id: u64) {
        let ids = SeqIds { first: id, last: id, prev: None };
        self.event(Body::Delta(BookDelta { ids, bids: vec![level(9999, 1000)], asks: vec![] }));
    }

    fn quote(&self, id: u64) {
        self.event(Body::Quote(Quote { update_id: Some(id), bid: level(9999, 1), ask: level(10_001, 1) }));
    }

    fn now_us(&self) -> i64 {
        self.world.clock.now_us()
    }

    /// Turns the clock, with a sign of life of the line, until something is asked.
    async fn asked_in_time(&self) -> RestJob {
        let mut job = None;
        let came = || {
            if self.book.feed.is_empty() {
                self.feed(FeedItem::Pulse);
                self.world.time.advance(Duration::from_millis(100));
            }
            job = self.book.jobs.try_recv();
            job.is_some()
        };
        assert!(eventually(LONG, came).await, "nothing is asked");
        let Some(HistoryJob::Rest(job)) = job else { panic!("not a request") };
        job
    }

    async fn asked(&self) -> RestJob {
        let mut job = None;
        let came = || {
            job = self.book.jobs.try_recv();
            job.is_some()
        };
        assert!(eventually(LONG, came).await, "no snapshot is asked");
        let Some(HistoryJob::Rest(job)) = job else { panic!("not a request") };
        job
    }

    /// Answers the snapshot that an update with this id leads to.
    async fn sync(&self, id: u64) {
        self.delta(id);
        let job = self.asked().await;
        let body = SNAPSHOT.replace("12", &(id - 1).to_string()).into();
        job.reply.send(Ok(RestAnswer { status: 200, retry_after: None, body })).unwrap();
        assert!(eventually(LONG, || self.state() == SampleState::Live).await, "{:?}", self.state());
    }

    fn state(&self) -> SampleState {
        self.book.cell.state(self.now_us())
    }

    async fn sees(&self, what: impl Fn(&BookDetail) -> bool) {
        let detail = || self.world.control.detail::<BookDetail>(&self.book.id).unwrap().1;
        assert!(eventually(LONG, || what(&detail())).await, "{:?}", detail());
    }
}

#[actix_rt::test]
async fn it_fetches_its_snapshot_publishes_and_answers() {
    let bench = Bench::new().await;
    assert_eq!(bench.state(), SampleState::Syncing);
    bench.delta(13);
    let job = bench.asked().await;
    assert_eq!((job.priority, job.deadline), (Priority::Resync, SNAPSHOT_DEADLINE));
    drop(job);
    let job = bench.asked().await;
    let busy = RestAnswer { status: 418, retry_after: None, body: b"{}".to_vec() };
    job.reply.send(Ok(busy)).unwrap();
    bench.sync(14).await;
    let answer = bench.book.actor.ask(GetBook { levels: 1 }, LONG).await.unwrap();
    assert_eq!((answer.state, answer.last_id, answer.cause), (SampleState::Live, Some(14), "synced"));
    assert_eq!((answer.bids, answer.asks), (vec![level(9999, 1000)], vec![level(10_001, 3000)]));
    bench.quote(14);
    bench.sees(|detail| detail.ticks == 1 && detail.book_state == "live" && detail.seq == Some(14)).await;
    assert_eq!(bench.book.actor.ask(GetTicks { last: 60 }, LONG).await.unwrap().len(), 1);
    assert_eq!(bench.book.cell.ticks(), 1);

    bench.feed(FeedItem::Reset { channels: vec![Channel::Depth], cause: "lost" });
    bench.sees(|detail| detail.cause == "disconnected" && detail.resyncs == 1).await;
    let answer = bench.book.actor.ask(GetBook { levels: 1 }, LONG).await.unwrap();
    assert!(answer.bids.is_empty() && answer.asks.is_empty(), "levels in doubt are not given");
    let why = bench.world.control.actor(&bench.book.id).unwrap().why;
    assert_eq!(why, ["book is syncing: disconnected"]);
}

#[actix_rt::test]
async fn the_sample_of_a_boundary_stands_between_what_came_before_and_after() {
    let bench = Bench::live().await;
    bench.delta(14);
    bench.feed(FeedItem::Boundary { at_ms: MINUTE_MS + 60_000 });
    bench.delta(15);
    bench.feed(FeedItem::Boundary { at_ms: MINUTE_MS + 60_000 });
    bench.sees(|detail| detail.seq == Some(15)).await;
    let view = bench.book.board.close(MINUTE_MS + 60_000).unwrap();
    assert_eq!((view.samples.len(), view.missing()), (1, 0));
    assert_eq!((view.samples[0].last_id, view.samples[0].state), (14, SampleState::Live));
    assert_eq!(bench.book.board.counts(), Default::default(), "it was put once");
}

#[actix_rt::test]
async fn a_dead_depth_stream_is_reported_to_the_shard() {
    let bench = Bench::live().await;
    let mut id = 100;
    let told = || {
        id += 1;
        if bench.book.feed.is_empty() {
            bench.quote(id);
            bench.world.time.advance(Duration::from_millis(100));
        }
        bench.book.renewals.try_recv()
            == Some(RenewStream { instrument: InstrumentIdx(0), channel: Channel::Depth })
    };
    assert!(eventually(LONG, told).await);
    bench.sees(|detail| detail.book_state == "stale" && detail.cause == "disagrees").await;
}

#[actix_rt::test]
async fn it_outlives_a_panic_and_loads_its_book_anew() {
    let bench = Bench::live().await;
    bench.world.control.inject(&bench.book.id, Inject::Panic).unwrap();
    let restarted = || {
        bench.world.time.advance(Duration::from_micros(10));
        bench.book.actor.generation() == 2 && bench.state() == SampleState::Syncing
    };
    assert!(eventually(LONG, restarted).await);
    bench.sync(21).await;
    let answer = bench.book.actor.ask(GetBook { levels: 1 }, LONG).await.unwrap();
    assert_eq!(answer.last_id, Some(21));
}

#[actix_rt::test]
async fn what_is_unfinished_is_sent_before_the_end() {
    let bench = Bench::live().await;
    bench.quote(13);
    bench.delta(14);
    let report = bench.world.kernel.shutdown(LONG).await;
    assert_eq!(report.culprits.len(), 0);
    let mut rows = BTreeMap::new();
    while let Some(batch) = bench.book.rows.try_recv() {
        *rows.entry(batch.table()).or_default() += batch.len();
    }
    // A stored book is made by the tick, which may not have come.
    rows.remove(&Table::OrderbookData);
    let expected = [(Table::BookTicker, 1), (Table::DepthEvents, 2), (Table::Bt1s, 1), (Table::Depth1s, 1)];
    assert_eq!(rows, BTreeMap::from(expected));
}

fn answer(text: String) -> Answer {
    Ok(RestAnswer { status: 200, retry_after: None, body: text.into() })
}

#[actix_rt::test]
async fn a_corrupted_level_is_found_and_healed_without_a_word_to_the_shard() {
    let settings = BookSettings { verify_every: Some(Duration::from_secs(3)), ..book_settings() };
    let bench = Bench::with(settings).await;
    bench.feed(FeedItem::Open { channels: vec![Channel::Depth] });
    bench.sync(13).await;
    let venue = SNAPSHOT.replace(r#"["99.98","2"]"#, r#"["99.99","1"],["99.98","2"]"#);
    let at = |id: u64| answer(venue.replace("12", &id.to_string()));

    let job = bench.asked_in_time().await;
    assert_eq!((job.priority, job.deadline), (Priority::History, Duration::from_secs(60)));
    job.reply.send(at(13)).unwrap();
    bench.sees(|detail| detail.verification.verifications == 1).await;
    bench.sees(|detail| detail.verification.verified_by == Some("rest_diff")).await;

    assert!(bench.book.actor.ask(CorruptLevel, LONG).await.unwrap());
    let job = bench.asked_in_time().await;
    job.reply.send(at(13)).unwrap();
    bench.sees(|detail| detail.cause == "diverged" && detail.verification.divergences == 1).await;
    bench.sync(15).await;
    bench.sees(|detail| detail.book_state == "live" && detail.verification.divergent_levels == 1).await;
    assert_eq!(bench.book.renewals.try_recv(), None);

    let job = bench.asked_in_time().await;
    let missing = RestAnswer { status: 404, retry_after: None, body: b"{}".to_vec() };
    job.reply.send(Ok(missing)).unwrap();
    bench.sees(|detail| detail.verification.verify_failed == 1 && detail.book_state == "live").await;
}

#[actix_rt::test]
async fn a_book_without_its_line_is_polled_and_served_as_polled() {
    let seconds = Duration::from_secs;
    let poll = PollRules { after: seconds(5), every: seconds(5), levels: 100 };
    let bench = Bench::with(BookSettings { poll: Some(poll), ..book_settings() }).await;
    bench.feed(FeedItem::Open { channels: vec![Channel::Depth] });
    bench.sync(13).await;
    bench.feed(FeedItem::Reset { channels: vec![Channel::Depth], cause: "lost" });
    bench.sees(|detail| detail.cause == "disconnected").await;

    let job = bench.asked_in_time().await;
    assert_eq!(job.priority, Priority::Live);
    job.reply.send(answer(SNAPSHOT.replace("12", "40"))).unwrap();
    bench.sees(|detail| detail.book_state == "polled" && detail.polled == 1).await;
    assert_eq!(bench.state(), SampleState::Polled);
    let answered = bench.book.actor.ask(GetBook { levels: 1 }, LONG).await.unwrap();
    assert_eq!((answered.state, answered.last_id, answered.bids.len()), (SampleState::Polled, Some(40), 1));

    // The next poll is under way when the stream comes back: it is given up, the snapshot is asked at once.
    let job = bench.asked_in_time().await;
    bench.feed(FeedItem::Open { channels: vec![Channel::Depth] });
    bench.sync(51).await;
    assert!(eventually(LONG, || job.reply.is_closed()).await, "nobody waits for the poll");
    bench.sees(|detail| detail.book_state == "live" && detail.polled == 1).await;
}

impl Bench {
    async fn reaches(&self, generation: u64) {
        let now = || self.world.control.actor(&self.book.id).unwrap();
        let there = || {
            self.world.time.advance(Duration::from_millis(1));
            now().generation == generation
        };
        assert!(eventually(LONG, there).await, "{:?}", now());
    }
}

#[actix_rt::test]
async fn an_item_that_panics_twice_is_set_aside_and_its_book_loads_anew() {
    let bench = Bench::live().await;
    let ids = SeqIds { first: 770_001, last: 770_001, prev: None };
    let body = Body::Delta(BookDelta { ids, bids: vec![level(9998, 7)], asks: vec![] });
    let poisoned = Event { instrument: InstrumentIdx(0), event_us: None, sent_us: None, recv_us: 1, body };
    testing::poison_event(&poisoned);
    for generation in [2, 3] {
        bench.feed(FeedItem::Events(vec![poisoned.clone()]));
        bench.reaches(generation).await;
    }
    bench.feed(FeedItem::Open { channels: vec![Channel::Depth] });
    bench.sync(20).await;
    bench.feed(FeedItem::Events(vec![poisoned]));
    bench.sees(|detail| detail.rejects.get(POISONED) == Some(&1) && detail.cause == "unreadable").await;
    let gap = |gap: &fathom_market::gap::Gap| (gap.channel.clone(), gap.cause.as_str());
    let gaps = || bench.book.directory.gaps().open().iter().map(gap).collect::<Vec<_>>();
    assert!(eventually(LONG, || gaps().contains(&("depth".into(), "unreadable"))).await, "{:?}", gaps());
    let actor = bench.world.control.actor(&bench.book.id).unwrap();
    assert_eq!((actor.generation, actor.progress.refused_total, actor.progress.poison.len()), (3, 1, 1));
}

#[actix_rt::test]
async fn an_answer_that_panics_twice_is_set_aside_and_asked_for_again() {
    let bench = Bench::new().await;
    let body = SNAPSHOT.replace("99.98", "98.76").into_bytes();
    testing::poison_answer(&body);
    let answer = || RestAnswer { status: 200, retry_after: None, body: body.clone() };
    for generation in [2, 3] {
        bench.delta(13);
        bench.asked().await.reply.send(Ok(answer())).unwrap();
        bench.reaches(generation).await;
    }
    bench.delta(13);
    bench.asked().await.reply.send(Ok(answer())).unwrap();
    bench.sees(|detail| detail.rejects.get(POISONED) == Some(&1)).await;
    let job = bench.asked_in_time().await;
    job.reply.send(Ok(RestAnswer { status: 200, retry_after: None, body: SNAPSHOT.into() })).unwrap();
    assert!(eventually(LONG, || bench.state() == SampleState::Live).await, "{:?}", bench.state());
    assert_eq!(bench.world.control.actor(&bench.book.id).unwrap().generation, 3);
}
