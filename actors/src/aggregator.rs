//! The actor of one category and market: at each minute boundary it folds the boundary's samples, for every scope and
//! depth, commits the rows and publishes them. Between boundaries it answers with the same fold of the live samples.

use std::{sync::Arc, time::Duration};

use actix::{ActorContext, AsyncContext, Context, Handler, Message, MessageResult};
use fathom_market::{
    category::{CategoryAggregate, CategoryKey, CategoryRule, category_row, fold, symbol_row},
    ids::{Market, Scope},
    instrument::Instrument,
    rates::UsdRates,
    sample::{BoundaryView, DepthSample},
    table::CategorySnapshotRow,
};
use serde::Serialize;

use crate::{
    board::Boards,
    book::{core::boundary_before, outbox::Outbox},
    directory::Directory,
    kernel::clock::micros,
    kernel::{Fault, Lifeline, Service},
    service_actor,
    settings::DepthSettings,
    writer::RowSink,
};

const TICK: Duration = Duration::from_millis(100);
const DRAIN_AGAIN: Duration = Duration::from_millis(50);

/// Boundaries before the present one that a later instance folds again; the boards remember them.
const REFOLDED: i64 = 2;

/// What an aggregator folds.
#[derive(Clone, Debug)]
pub enum Fold {
    /// A category.
    Category(CategoryRule),
    /// Each pair by itself.
    Pairs,
}

/// What every instance is made from.
#[derive(Clone)]
pub struct AggregatorSpec {
    /// What is folded.
    pub fold: Fold,
    /// The market.
    pub market: Market,
    /// Samples and rates.
    pub boards: Arc<Boards>,
    /// Live samples, and where results are published.
    pub directory: Arc<Directory>,
    /// Rows to the writer.
    pub writer: RowSink,
    /// Depths, grace.
    pub depth: DepthSettings,
}

/// What an aggregator publishes for health.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct AggregatorDetail {
    /// The newest boundary folded.
    pub boundary_ms: i64,
    /// Boundaries folded.
    pub folded: u64,
    /// Members at the newest boundary.
    pub members: u32,
    /// Members in its sums.
    pub symbols: u32,
    /// Values rounded to twelve decimals.
    pub rounded: u64,
    /// Rows that no column could hold. What the writer could not take is in its account.
    pub refused: u64,
}

/// The actor.
pub struct AggregatorActor {
    life: Lifeline,
    spec: AggregatorSpec,
    detail: AggregatorDetail,
    waiting: Outbox,
    next_ms: i64,
}

service_actor!(AggregatorActor);

impl AggregatorActor {
    /// A fresh instance; the boundary that is under way is its first. A later one begins with those that its
    /// predecessor may have missed: what was stored already is the same again, and its keys keep it out.
    pub fn new(life: Lifeline, spec: AggregatorSpec) -> Self {
        let under_way = boundary_before(life.clock().now_us() - micros(spec.depth.grace)) + 60_000;
        let next_ms = if life.generation() > 1 { under_way - REFOLDED * 60_000 } else { under_way };
        let waiting = Outbox::new(spec.writer.account().clone());
        Self { life, spec, detail: AggregatorDetail::default(), waiting, next_ms }
    }

    fn tick(&mut self, _: &mut Context<Self>) {
        let now_us = self.life.clock().now_us();
        let grace_us = micros(self.spec.depth.grace);
        while now_us >= self.next_ms * 1000 {
            let over = now_us >= self.next_ms * 1000 + grace_us;
            if !over && !self.spec.boards.complete(self.next_ms) {
                break;
            }
            let boundary_ms = self.next_ms;
            self.next_ms += 60_000;
            let _busy = self.life.enter("fold");
            self.close(boundary_ms, now_us);
        }
        self.send_rows();
    }

    fn close(&mut self, boundary_ms: i64, now_us: i64) {
        let views: Vec<Arc<BoundaryView>> = self
            .spec
            .boards
            .of_market(self.spec.market)
            .filter_map(|board| board.close(boundary_ms))
            .collect();
        // Without a book that has ever been live there is nothing to say of this minute.
        if !self.spec.boards.of_market(self.spec.market).any(|board| board.was_live(boundary_ms)) {
            return;
        }
        let rates = self.spec.boards.rates(boundary_ms);
        let Some(rates) = rates.get() else { return };
        match self.spec.fold.clone() {
            Fold::Category(rule) => self.close_category(&rule, &views, rates, boundary_ms, now_us),
            Fold::Pairs => self.close_pairs(&views, rates, now_us),
        }
        self.detail.boundary_ms = boundary_ms;
        self.detail.folded += 1;
        Service::publish(self, self.detail);
    }

    fn close_category(
        &mut self,
        rule: &CategoryRule,
        views: &[Arc<BoundaryView>],
        rates: &UsdRates,
        boundary_ms: i64,
        now_us: i64,
    ) {
        let samples: Vec<&DepthSample> = views.iter().flat_map(|view| &view.samples).collect();
        let members: Vec<Arc<Instrument>> =
            views.iter().flat_map(|view| view.members.iter().cloned()).collect();
        for scope in self.scopes() {
            let levels = self.spec.depth.levels.clone();
            let mut rows = Vec::with_capacity(levels.len());
            for (index, &depth) in levels.iter().enumerate() {
                let aggregate = fold(rule, scope, self.spec.market, index, &samples, &members, rates);
                if aggregate.member_count == 0 {
                    continue;
                }
                (self.detail.members, self.detail.symbols) = (aggregate.member_count, aggregate.symbol_count);
                let key =
                    CategoryKey { scope, market: self.spec.market, category: &rule.name, depth, boundary_ms };
                match category_row(&aggregate, &key, now_us) {
                    Ok(fitted) => {
                        self.detail.rounded += u64::from(fitted.rounded);
                        rows.push(fitted.row);
                    }
                    Err(error) => self.refuse(&format!("{} {scope}", rule.name), &error.to_string()),
                }
            }
            self.commit(scope, &rule.name, rows);
        }
    }

    fn commit(&mut self, scope: Scope, category: &str, rows: Vec<CategorySnapshotRow>) {
        if rows.is_empty() {
            return;
        }
        rows.iter().cloned().for_each(|row| self.waiting.push(row));
        self.spec.directory.put_latest(scope, self.spec.market, category, Arc::new(rows));
    }

    fn close_pairs(&mut self, views: &[Arc<BoundaryView>], rates: &UsdRates, now_us: i64) {
        let (mut rows, levels) = (Vec::new(), self.spec.depth.levels.clone());
        (self.detail.members, self.detail.symbols) = (0, 0);
        for sample in views.iter().flat_map(|view| &view.samples) {
            self.detail.members += 1;
            self.detail.symbols += u32::from(sample.state.is_usable());
            for (index, &depth) in levels.iter().enumerate() {
                match symbol_row(sample, depth, index, rates, now_us) {
                    Ok(Some(fitted)) => {
                        self.detail.rounded += u64::from(fitted.rounded);
                        rows.push(fitted.row);
                    }
                    Ok(None) => {}
                    Err(error) => self.refuse(&sample.instrument.native, &error.to_string()),
                }
            }
        }
        rows.into_iter().for_each(|row| self.waiting.push(row));
    }

    fn refuse(&mut self, what: &str, error: &str) {
        self.detail.refused += 1;
        tracing::error!(what, error, "a snapshot does not fit its table");
    }

    fn send_rows(&mut self) {
        let writer = &self.spec.writer;
        self.waiting.send(|batch| writer.hand(batch));
    }

    fn scopes(&self) -> Vec<Scope> {
        let venues = self.spec.boards.of_market(self.spec.market).map(|board| Scope::Venue(board.venue()));
        venues.chain([Scope::All]).collect()
    }
}

impl Service for AggregatorActor {
    type Detail = AggregatorDetail;

    fn lifeline(&self) -> &Lifeline {
        &self.life
    }

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        ctx.run_interval(TICK, Self::tick);
        Service::publish(self, self.detail);
        Ok(())
    }

    fn on_drain(&mut self, ctx: &mut Context<Self>) {
        self.send_rows();
        if self.waiting.is_empty() {
            return ctx.stop();
        }
        // The writer's inbox is full: what is left is offered again until it has gone, or the grace is over.
        ctx.run_interval(DRAIN_AGAIN, |actor, ctx| {
            actor.send_rows();
            if actor.waiting.is_empty() {
                ctx.stop();
            }
        });
    }
}

/// Asks for the category as it is now, one aggregate a depth.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Vec<CategoryAggregate>")]
pub struct GetLive {
    /// Scope.
    pub scope: Scope,
}

impl Handler<GetLive> for AggregatorActor {
    type Result = MessageResult<GetLive>;

    fn handle(&mut self, ask: GetLive, _: &mut Context<Self>) -> Self::Result {
        let Fold::Category(rule) = &self.spec.fold else { return MessageResult(Vec::new()) };
        let now_us = self.life.clock().now_us();
        let all: Vec<DepthSample> = Market::ALL
            .into_iter()
            .flat_map(|market| self.spec.boards.of_market(market))
            .flat_map(|board| self.spec.directory.books(board.venue(), board.market()))
            .filter_map(|book| book.cell.sample(now_us).map(|(sample, _)| sample))
            .collect();
        let rates = self.spec.boards.live_rates(all.iter());
        let samples: Vec<&DepthSample> =
            all.iter().filter(|s| s.instrument.market == self.spec.market).collect();
        let members: Vec<Arc<Instrument>> = samples.iter().map(|sample| sample.instrument.clone()).collect();
        let live = (0..self.spec.depth.levels.len())
            .map(|index| fold(rule, ask.scope, self.spec.market, index, &samples, &members, &rates))
            .collect();
        MessageResult(live)
    }
}

#[cfg(test)]
mod tests {
    use fathom_market::{
        batch::{Batch, Column},
        category::Categories,
        ids::VenueId,
        sample::SampleState,
        table::{SymbolSnapshotRow, Table},
    };

    use super::*;
    use crate::{
        board::MinuteBoard,
        directory::BookCell,
        fixtures::{
            BINANCE, BookBench, LONG, MINUTE_MS, MINUTE_US, S, World, dec, depth_settings, instrument,
            instrument_of, patient, sample, syncing,
        },
        kernel::{
            ActorId, ActorRef, ChildSpec, Inbox, Inject, Kind, Overflow, inbox::bounded, testkit::eventually,
        },
    };

    const OTHER: VenueId = VenueId::new("other");
    /// The first boundary after the start.
    const FIRST_MS: i64 = MINUTE_MS + 60_000;

    /// Spot: BTC and ETH on one venue, BTC on another. Futures: BTC.
    struct Bench {
        world: World,
        boards: Arc<Boards>,
        directory: Arc<Directory>,
        rows: Inbox<Batch>,
        actor: ActorRef<AggregatorActor>,
        id: ActorId,
        members: [Arc<Instrument>; 4],
    }

    impl Bench {
        async fn new(fold: Fold) -> Self {
            Self::with_room(fold, 64).await
        }

        async fn with_room(fold: Fold, capacity: usize) -> Self {
            let world = World::new(MINUTE_US + 10 * S);
            let members = [
                instrument(Market::Spot, "BTC"),
                instrument(Market::Spot, "ETH"),
                instrument_of(OTHER, Market::Spot, "BTC", "USDT"),
                instrument(Market::Futures, "BTC"),
            ];
            let board = |venue, market, members: &[Arc<Instrument>]| {
                let board = MinuteBoard::new(venue, market);
                board.expect(members.to_vec(), MINUTE_MS + 10_000);
                Arc::new(board)
            };
            let boards = vec![
                board(BINANCE, Market::Spot, &members[..2]),
                board(OTHER, Market::Spot, &members[2..3]),
                board(BINANCE, Market::Futures, &members[3..]),
            ];
            let boards = Arc::new(Boards::new(boards, vec!["USDT".into()]));
            let (writer, rows) = bounded("rows", capacity, Overflow::Fault, &world.clock);
            let directory = Arc::new(Directory::default());
            let spec = AggregatorSpec {
                fold,
                market: Market::Spot,
                boards: boards.clone(),
                directory: directory.clone(),
                writer: writer.into(),
                depth: depth_settings(),
            };
            let child = ChildSpec::builder("total", Kind("aggregator"), move |life| {
                AggregatorActor::new(life, spec.clone())
            });
            let actor = world.kernel.supervisor().spawn(patient(child).build()).await.unwrap();
            Self { world, boards, directory, rows, actor, id: "total".into(), members }
        }

        async fn total() -> Self {
            Self::new(total()).await
        }

        fn put(&self, sample: DepthSample) {
            let instrument = &sample.instrument;
            self.boards.get(instrument.venue, instrument.market).unwrap().put(sample);
        }

        fn put_all(&self, at_ms: i64) {
            let [btc, eth, other, futures] = &self.members;
            self.put(sample(btc, at_ms, "50000", "1", "2"));
            self.put(sample(eth, at_ms, "2000", "10", "5"));
            self.put(sample(other, at_ms, "50100", "3", "1"));
            self.put(sample(futures, at_ms, "50000", "9", "9"));
        }

        fn turn_to(&self, at_ms: i64, us: i64) {
            let now_us = self.world.clock.now_us();
            self.world
                .time
                .advance(Duration::from_micros(u64::try_from(at_ms * 1000 + us - now_us).unwrap()));
        }

        /// The next batches that come to the writer.
        async fn batches(&self, count: usize) -> Vec<Batch> {
            let mut batches = Vec::new();
            let came = || {
                if let Some(batch) = self.rows.try_recv() {
                    batches.extend(by_scope(&batch));
                }
                batches.len() == count
            };
            assert!(eventually(LONG, came).await, "{} of {count}", self.rows.len());
            batches
        }

        fn detail(&self) -> AggregatorDetail {
            *self.world.control.detail::<AggregatorDetail>(&self.id).unwrap().1
        }
    }

    fn total() -> Fold {
        Fold::Category(Categories::standard().get("TOTAL").unwrap().clone())
    }

    /// What was folded of several scopes comes together.
    fn by_scope(batch: &Batch) -> Vec<Batch> {
        if batch.table() != Table::CategorySnapshots {
            return vec![batch.clone()];
        }
        let depths = depth_settings().levels.len();
        let rows: Vec<usize> = (0..batch.len()).collect();
        rows.chunks(depths).map(|rows| batch.select(rows)).collect()
    }

    fn times(batch: &Batch) -> Vec<i64> {
        let at = batch.schema().columns.iter().position(|column| column.name == "timestamp_ms").unwrap();
        let Column::Int(times) = &batch.columns()[at] else { panic!("times are integers") };
        times.clone()
    }

    /// Everything but when it was made, the last column.
    fn content(batch: &Batch) -> &[Column] {
        batch.columns().split_last().unwrap().1
    }

    #[actix_rt::test]
    async fn a_boundary_becomes_rows_of_every_scope_and_depth_as_soon_as_it_is_complete() {
        let bench = Bench::total().await;
        bench.put_all(FIRST_MS);
        bench.turn_to(FIRST_MS, 0);
        let batches = bench.batches(3).await;
        let row = |scope: &str, depth| CategorySnapshotRow {
            scope: scope.into(),
            market_type: "SPOT".into(),
            category: "TOTAL".into(),
            depth,
            timestamp_ms: FIRST_MS,
            total_bid_volume: dec("11"),
            total_ask_volume: dec("7"),
            total_bid_volume_usd: dec("70000"),
            total_ask_volume_usd: dec("110000"),
            avg_price: Some(dec("42000")),
            symbol_count: 2,
            member_count: 2,
            bid_covered: 2,
            ask_covered: 0,
            stale_count: 0,
            unpriced_count: 0,
            created_us: FIRST_MS * 1000,
        };
        let other = |depth| CategorySnapshotRow {
            total_bid_volume: dec("3"),
            total_ask_volume: dec("1"),
            total_bid_volume_usd: dec("150300"),
            total_ask_volume_usd: dec("50100"),
            avg_price: Some(dec("50100")),
            symbol_count: 1,
            member_count: 1,
            bid_covered: 1,
            ..row("other", depth)
        };
        let everywhere = |depth| CategorySnapshotRow {
            total_bid_volume: dec("14"),
            total_ask_volume: dec("8"),
            total_bid_volume_usd: dec("220300"),
            total_ask_volume_usd: dec("160100"),
            avg_price: Some((dec("17600040000") / dec("380400")).round_dp(12)),
            symbol_count: 3,
            member_count: 3,
            bid_covered: 3,
            ..row("ALL", depth)
        };
        let depths = ["1.5", "3", "5", "8", "15", "30"].map(dec);
        let expected = [depths.map(|depth| row("binance", depth)), depths.map(other), depths.map(everywhere)];
        assert_eq!(batches, expected.clone().map(Batch::of));
        let detail = bench.detail();
        assert_eq!((detail.boundary_ms, detail.folded, detail.members, detail.refused), (FIRST_MS, 1, 3, 0));
        for (scope, rows) in
            [Scope::Venue(BINANCE), Scope::Venue(OTHER), Scope::All].into_iter().zip(expected)
        {
            let latest = bench.directory.latest(scope, Market::Spot, "TOTAL").unwrap();
            assert_eq!(*latest, rows);
        }
    }

    #[actix_rt::test]
    async fn who_sent_nothing_counts_as_stale_when_the_grace_is_over() {
        let bench = Bench::total().await;
        let [btc, eth, ..] = &bench.members;
        bench.put(sample(btc, FIRST_MS, "50000", "1", "2"));
        bench.turn_to(FIRST_MS, 2 * S);
        let batches = bench.batches(3).await;
        let counts = |batch: &Batch, name: &str| {
            let at = batch.schema().columns.iter().position(|column| column.name == name).unwrap();
            let Column::Int(counts) = &batch.columns()[at] else { panic!("counts are integers") };
            counts[0]
        };
        let all: Vec<_> = batches
            .iter()
            .map(|batch| ["member_count", "symbol_count", "stale_count"].map(|name| counts(batch, name)))
            .collect();
        assert_eq!(all, [[2, 1, 1], [1, 0, 1], [3, 1, 2]]);
        bench.put(sample(eth, FIRST_MS, "2000", "10", "5"));
        assert_eq!(bench.boards.get(BINANCE, Market::Spot).unwrap().counts().late, 1);
    }

    #[actix_rt::test]
    async fn nothing_is_said_of_minutes_before_any_book_was_live() {
        let bench = Bench::total().await;
        bench.members.iter().for_each(|member| bench.put(syncing(member, FIRST_MS)));
        bench.turn_to(FIRST_MS, 0);
        let closed = || bench.boards.get(BINANCE, Market::Spot).unwrap().complete(FIRST_MS);
        assert!(closed());
        bench.put_all(FIRST_MS + 60_000);
        bench.turn_to(FIRST_MS + 60_000, 0);
        let batches = bench.batches(3).await;
        assert!(batches.iter().all(|batch| times(batch) == [FIRST_MS + 60_000; 6]));
        assert_eq!(bench.detail().folded, 1);
    }

    #[actix_rt::test]
    async fn a_restart_gives_the_same_rows_again() {
        let bench = Bench::total().await;
        bench.put_all(FIRST_MS);
        bench.turn_to(FIRST_MS, 0);
        let first = bench.batches(3).await;
        bench.world.control.inject(&bench.id, Inject::Panic).unwrap();
        let again = || {
            bench.world.time.advance(Duration::from_micros(10));
            bench.rows.len() == 1
        };
        assert!(eventually(LONG, again).await);
        let second = bench.batches(3).await;
        assert_eq!(
            first.iter().map(content).collect::<Vec<_>>(),
            second.iter().map(content).collect::<Vec<_>>()
        );
        assert_eq!(bench.world.control.actor(&bench.id).unwrap().generation, 2);
    }

    #[actix_rt::test]
    async fn a_boundary_that_passed_while_nobody_folded_is_folded_afterwards() {
        let bench = Bench::total().await;
        bench.world.control.pause(&bench.id, "tester", "test").unwrap();
        let paused = || {
            bench.actor.generation() == 1 && {
                let state = bench.world.control.actor(&bench.id).unwrap().state;
                state == crate::kernel::State::Paused
            }
        };
        assert!(eventually(LONG, paused).await);
        bench.put_all(FIRST_MS);
        bench.put_all(FIRST_MS + 60_000);
        bench.turn_to(FIRST_MS + 60_000, 20 * S);
        bench.world.control.resume(&bench.id, "tester", "test").unwrap();
        let batches = bench.batches(6).await;
        let minutes: Vec<_> = batches.iter().map(|batch| times(batch)[0]).collect();
        assert_eq!(minutes, [[FIRST_MS; 3], [FIRST_MS + 60_000; 3]].concat());
    }

    #[actix_rt::test]
    async fn pairs_become_rows_of_their_own() {
        let bench = Bench::new(Fold::Pairs).await;
        bench.put_all(FIRST_MS + 60_000);
        let [btc, eth, other, futures] = &bench.members;
        let stale =
            |member| DepthSample { state: SampleState::Stale, ..sample(member, FIRST_MS, "1", "1", "1") };
        bench.put(sample(btc, FIRST_MS, "50000", "1", "2"));
        [eth, other, futures].into_iter().for_each(|member| bench.put(stale(member)));
        bench.turn_to(FIRST_MS, 0);
        let batches = bench.batches(1).await;
        let row = |depth| SymbolSnapshotRow {
            instrument_id: btc.id.0,
            depth,
            timestamp_ms: FIRST_MS,
            bid_volume: dec("1"),
            ask_volume: dec("2"),
            bid_volume_usd: Some(dec("50000")),
            ask_volume_usd: Some(dec("100000")),
            mid_price: Some(dec("50000")),
            best_bid: Some(dec("50000")),
            best_ask: Some(dec("50000")),
            state: "live".into(),
            bid_covered: true,
            ask_covered: false,
            last_update_id: 7,
            created_us: FIRST_MS * 1000,
        };
        assert_eq!(batches, [Batch::of(["1.5", "3", "5", "8", "15", "30"].map(dec).map(row))]);
        let detail = bench.detail();
        assert_eq!((detail.members, detail.symbols), (3, 1), "what is in doubt leaves no numbers");
        bench.turn_to(FIRST_MS + 60_000, 0);
        let next = bench.batches(1).await;
        assert_eq!((next[0].table(), next[0].len()), (Table::SymbolSnapshots, 18));
        assert_eq!(bench.actor.ask(GetLive { scope: Scope::All }, LONG).await, Ok(Vec::new()));
    }

    #[actix_rt::test]
    async fn rows_wait_while_the_writer_has_no_room() {
        let bench = Bench::with_room(total(), 1).await;
        bench.put_all(FIRST_MS);
        bench.turn_to(FIRST_MS, 0);
        assert!(eventually(LONG, || bench.rows.len() == 1 && bench.detail().folded == 1).await);
        assert_eq!(bench.batches(3).await.iter().map(Batch::len).sum::<usize>(), 18);
        assert_eq!(bench.detail().refused, 0);
    }

    #[actix_rt::test]
    async fn the_live_view_folds_what_is_published_and_believes_no_old_cell() {
        let bench = Bench::total().await;
        let now_us = bench.world.clock.now_us();
        let cells: Vec<_> =
            bench.members.iter().map(|member| Arc::new(BookCell::new(member.clone()))).collect();
        for (member, cell) in bench.members.iter().zip(&cells) {
            let book = BookBench::new(&bench.world, member).await;
            bench.directory.put_book(book.entry(cell.clone()));
        }
        let ask = async |scope| bench.actor.ask(GetLive { scope }, LONG).await.unwrap();
        assert!(
            ask(Scope::All).await.iter().all(|aggregate| aggregate.member_count == 0),
            "nothing is published"
        );

        let [btc, eth, other, futures] = &bench.members;
        cells[0].publish(Arc::new(sample(btc, 0, "50000", "1", "2")), now_us - 3 * S);
        cells[1].publish(Arc::new(sample(eth, 0, "2000", "10", "5")), now_us - 3 * S - 1);
        cells[2].publish(Arc::new(sample(other, 0, "50100", "3", "1")), now_us);
        cells[3].publish(Arc::new(sample(futures, 0, "50000", "9", "9")), now_us);
        let seen = |aggregate: &CategoryAggregate| {
            let CategoryAggregate { member_count, symbol_count, stale_count, .. } = *aggregate;
            (member_count, symbol_count, stale_count, aggregate.bid_usd, aggregate.ask_volume)
        };
        for (scope, expected) in [
            (Scope::Venue(BINANCE), (2, 1, 1, dec("50000"), dec("2"))),
            (Scope::Venue(OTHER), (1, 1, 0, dec("150300"), dec("1"))),
            (Scope::All, (3, 2, 1, dec("200300"), dec("3"))),
        ] {
            assert_eq!(ask(scope).await.iter().map(seen).collect::<Vec<_>>(), vec![expected; 6], "{scope}");
        }
    }
}
