//! What the clock pushes of a book: differences and best levels, and the wrong ones that faults ask for.

use super::alter;
use super::book::{Changes, Side};
use super::cell::{Cell, Context};
use crate::hub::rules::Alteration;
use crate::hub::topic::{Message, Topic};
use crate::ledger::DepthRow;
use crate::wire::streams::Kind;
use crate::wire::{futures, spot};

use fathom_market::ids::Market;

fn spell(ctx: &Context<'_>, changes: &Changes) -> String {
    let mut out = String::with_capacity(160 + 40 * (changes.bids.len() + changes.asks.len()));
    match ctx.market {
        Market::Spot => spot::depth(&mut out, ctx.listing, ctx.event_ms, changes),
        Market::Futures => futures::depth(&mut out, ctx.listing, ctx.event_ms, changes),
    }
    out
}

impl Cell {
    /// Pushes what changed in the book since the last beat of a period.
    pub(super) fn push_depth(&mut self, ctx: &Context<'_>, slot: usize, period: u16) {
        let Some(sim) = self.sim.as_mut() else { return };
        let from = std::mem::replace(&mut sim.marks[slot], self.book.mark());
        let wanted = |topic: &Topic<Kind>| match topic.kind {
            Kind::Depth(ms) | Kind::Partial(_, ms) => ms == period && !topic.is_idle(),
            _ => false,
        };
        if !self.topics.iter().any(wanted) {
            let unheard = self.topics.iter_mut().find(|topic| topic.kind == Kind::Depth(period));
            if let (Some(topic), Some((first, last))) = (unheard, self.book.ids_since(from)) {
                topic.unheard(first, last, ctx.now_ms);
            }
            return;
        }
        let Some(changes) = self.book.since(from) else { return };
        self.push_changes(ctx, period, &changes);
        self.push_best(ctx, period, changes);
    }

    fn push_changes(&mut self, ctx: &Context<'_>, period: u16, changes: &Changes) {
        let Some(topic) = self.topics.iter_mut().find(|topic| topic.kind == Kind::Depth(period)) else {
            return;
        };
        if topic.is_idle() {
            topic.unheard(changes.first, changes.last, ctx.now_ms);
            return;
        }
        let book = &self.book;
        let mut altered = |how: Alteration<'_>| {
            let wrong = match how {
                Alteration::Cross { phantoms, clean: false } => alter::crossed(book, changes, phantoms)?,
                Alteration::Cross { phantoms, clean: true } => alter::uncrossed(book, changes, phantoms),
                Alteration::Corrupt { what, rank, said } => {
                    alter::corrupted(book, changes, ctx.listing, (what, rank), said)?
                }
            };
            Some(spell(ctx, &wrong))
        };
        let data = spell(ctx, changes);
        let message = Message { data: &data, first: changes.first, id: changes.last };
        let to = topic.publish(&message, ctx.now_ms, &mut altered);
        let row = DepthRow {
            stream: topic.name.clone(),
            first: changes.first,
            last: changes.last,
            previous: changes.previous,
            levels: changes.bids.len() + changes.asks.len(),
        };
        ctx.ledger.depth_sent(ctx.market, ctx.index, ctx.now_ms, to, row);
    }

    fn push_best(&mut self, ctx: &Context<'_>, period: u16, mut changes: Changes) {
        for best in [5_u8, 10, 20] {
            if !self.heard(Kind::Partial(best, period)) {
                continue;
            }
            changes.bids = self.book.top(Side::Bid, usize::from(best));
            changes.asks = self.book.top(Side::Ask, usize::from(best));
            self.send(Kind::Partial(best, period), changes.last, ctx.now_ms, |out| match ctx.market {
                Market::Spot => spot::partial(out, ctx.listing, changes.last, &changes.bids, &changes.asks),
                Market::Futures => futures::depth(out, ctx.listing, ctx.event_ms, &changes),
            });
        }
    }
}
