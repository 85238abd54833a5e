//! What is wanted and what came of it, for readers.

use fathom_market::ids::{Market, VenueId};
use serde::Serialize;

use super::{Reach, Symbols, wishes::is_same};

/// One wanted symbol of one market.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SymbolView {
    /// As it is wanted.
    pub symbol: String,
    /// Venue id.
    pub venue: &'static str,
    /// `spot` or `futures`.
    pub market: Market,
    /// `collected`, `missing` or `pending`.
    pub state: &'static str,
    /// Why it is missing: `not_listed`, `not_trading` or `no_room`; why it is pending: `not_planned`.
    pub reason: Option<&'static str>,
    /// The venue's name of it.
    pub native: Option<String>,
    /// The unified name of it.
    pub unified: Option<String>,
    /// Its tier.
    pub tier: Option<&'static str>,
    /// The shard that it lives in.
    pub shard: Option<String>,
    /// The state of its book.
    pub book: Option<&'static str>,
}

impl Symbols {
    /// Every wanted symbol of the markets in reach, in the order of their importance.
    pub fn views(&self, reach: Reach, now_us: i64) -> Vec<SymbolView> {
        self.in_reach(reach).flat_map(|desk| self.of_market(desk.venue, desk.market, now_us)).collect()
    }

    fn of_market(&self, venue: VenueId, market: Market, now_us: i64) -> Vec<SymbolView> {
        let Some(desk) = self.desk(venue, market) else { return Vec::new() };
        let wanted = desk.wanted().1;
        let runtime = self.0.directory.runtime(venue, market);
        let view = |symbol: &str| {
            let mut view = SymbolView {
                symbol: symbol.to_owned(),
                venue: venue.as_str(),
                market,
                state: "pending",
                reason: Some("not_planned"),
                native: None,
                unified: None,
                tier: None,
                shard: None,
                book: None,
            };
            let Some(runtime) = &runtime else { return view };
            if let Some(missing) = runtime.missing.load().iter().find(|one| is_same(&one.symbol, symbol)) {
                (view.state, view.reason) = ("missing", Some(missing.reason));
                return view;
            }
            let catalogue = runtime.catalogue.load();
            let Some(found) = catalogue.find(symbol) else { return view };
            view.native = Some(found.native.to_string());
            view.unified = Some(found.unified.to_string());
            let (plan, table) = (runtime.plan.load(), runtime.table.load());
            if let Some((shard, _)) = table.find(&found.native).and_then(|idx| plan.home(idx)) {
                (view.state, view.reason) = ("collected", None);
                view.tier = Some(shard.tier.as_str());
                view.shard = Some(shard.id.clone());
                let book = self.0.directory.book(venue, market, &found.native);
                view.book = book.map(|book| book.cell.state(now_us).as_str());
            }
            view
        };
        wanted.iter().map(|wish| view(&wish.symbol)).collect()
    }
}
