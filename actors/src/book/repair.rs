//! Fetches trades that were missed: one page at a time, through the venue's REST service and its budget.

use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, fut::wrap_future};
use fathom_market::plan::Priority;

use super::{Answer, BookActor};
use crate::{kernel::Service, settings::Retry};

/// Trades of a page; venues give less where that is their greatest.
const PAGE: usize = 1000;
/// Bound on waiting for the budget and asking.
const DEADLINE: Duration = Duration::from_secs(300);
/// A failed page; afterwards it is tried each minute until the hole is given up.
const RETRY: Retry = Retry { max: 5, delay: Duration::from_secs(1) };

impl BookActor {
    /// Asks for the next page of missed trades, unless one is under way.
    pub(super) fn tend_repair(&mut self, ctx: &mut Context<Self>) {
        if self.repair.is_some() {
            return;
        }
        let Some(page) = self.core.wants_trades() else { return };
        let asked = self.spec.venue.trades_request(&self.spec.instrument, page.from_id, PAGE);
        let Some(request) = asked else {
            return self.core.give_up_trades("the venue has no history of trades by id", self.now_us());
        };
        let asking = self.ask_venue(RETRY.after(page.failures), request, Priority::Repair, DEADLINE);
        let task = wrap_future::<_, Self>(asking)
            .map(move |answer, actor, ctx| actor.on_trades(page.from_id, answer, ctx));
        self.repair = Some(ctx.spawn(task));
    }

    fn on_trades(&mut self, from_id: u64, answer: Option<Answer>, ctx: &mut Context<Self>) {
        let life = self.lifeline().clone();
        let _busy = life.enter("repair");
        self.repair = None;
        let now_us = self.now_us();
        match self.read_trades(answer, now_us) {
            Ok(events) => {
                self.core.on_trades(from_id, &events, now_us);
                self.send_rows();
            }
            Err(error) => {
                tracing::warn!(symbol = %self.spec.instrument.native, from_id, error, "missed trades could not be fetched");
                self.core.trades_failed(from_id);
            }
        }
        self.tend_repair(ctx);
    }

    fn read_trades(
        &mut self,
        answer: Option<Answer>,
        now_us: i64,
    ) -> Result<Vec<fathom_market::event::Event>, String> {
        let answer = self.take_answer(answer)?;
        let parsed = self.spec.venue.parse_trades(&self.spec.instrument, self.spec.idx, &answer, now_us);
        let parsed = parsed.map_err(|error| error.to_string())?;
        for rejected in parsed.rejected.iter().take(3) {
            tracing::warn!(symbol = %self.spec.instrument.native, %rejected, "missed trade rejected");
        }
        Ok(parsed.rows)
    }
}
