//! The actor of one category and market: at each minute boundary it folds the boundary's samples, for every scope and
//! depth, commits the rows and publishes them. Between boundaries it answers with the same fold of the live samples.

use std::{sync::Arc, time::Duration};

use actix::{AsyncContext, Context, Handler, Message, MessageResult};
use fathom_market::{
    batch::Batch,
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
    book::core::boundary_before,
    directory::Directory,
    kernel::{Fault, Lifeline, Outlet, SendError, Service},
    service_actor,
    settings::DepthSettings,
    stream::reconnect::as_micros,
};

const TICK: Duration = Duration::from_millis(100);
/// Batches that wait while the writer's inbox is full.
const MAX_WAITING: usize = 64;

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
    pub writer: Outlet<Batch>,
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
    /// Rows that no column could hold, or that the writer could not take.
    pub refused: u64,
}

/// The actor.
pub struct AggregatorActor {
    life: Lifeline,
    spec: AggregatorSpec,
    detail: AggregatorDetail,
    waiting: Vec<Batch>,
    next_ms: i64,
}

service_actor!(AggregatorActor);

impl AggregatorActor {
    /// A fresh instance; the boundary that is under way is its first.
    pub fn new(life: Lifeline, spec: AggregatorSpec) -> Self {
        let next_ms = boundary_before(life.clock().now_us() - as_micros(spec.depth.grace)) + 60_000;
        Self { life, spec, detail: AggregatorDetail::default(), waiting: Vec::new(), next_ms }
    }

    fn tick(&mut self, _: &mut Context<Self>) {
        let now_us = self.life.clock().now_us();
        let grace_us = as_micros(self.spec.depth.grace);
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
        if !views.iter().flat_map(|view| &view.samples).any(|sample| sample.last_id > 0) {
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
        self.waiting.push(Batch::of(rows.iter().cloned()));
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
        if !rows.is_empty() {
            self.waiting.push(Batch::of(rows));
        }
    }

    fn refuse(&mut self, what: &str, error: &str) {
        self.detail.refused += 1;
        tracing::error!(what, error, "a snapshot does not fit its table");
    }

    fn send_rows(&mut self) {
        let mut left = Vec::new();
        for batch in std::mem::take(&mut self.waiting) {
            if let Err(SendError::Full(batch) | SendError::Closed(batch)) = self.spec.writer.offer(batch) {
                left.push(batch);
            }
        }
        if left.len() > MAX_WAITING {
            let dropped: usize = left.drain(..left.len() - MAX_WAITING).map(|batch| batch.len()).sum();
            self.detail.refused += dropped as u64;
            tracing::error!(dropped, "snapshots are lost: the writer takes nothing");
        }
        self.waiting = left;
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
        actix::ActorContext::stop(ctx);
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
