//! Addresses and limits of the venue (sheet sections 1 and 2).

use std::{collections::BTreeMap, time::Duration};

use fathom_market::{
    ids::Market,
    plan::{BudgetRule, EndpointClass, Endpoints, SocketLimits},
};

use super::channels::{MARKET, PUBLIC, STREAM};

/// Weight of spot REST.
pub(super) const SPOT: &str = "spot";
/// Weight of USD-M REST, shared with COIN-M since 2026-06-30.
pub(super) const FUTURES: &str = "futures";
/// Requests of the funding history, counted apart.
pub(super) const FUTURES_FUNDING: &str = "futures_funding";

const USED_WEIGHT: &str = "x-mbx-used-weight-1m";
const MINUTE: Duration = Duration::from_secs(60);
const FIVE_MINUTES: Duration = Duration::from_secs(300);

/// Default addresses.
pub(super) fn endpoints(market: Market) -> Endpoints {
    let (rest, ws): (&str, &[(EndpointClass, &str)]) = match market {
        Market::Spot => ("https://api.binance.com", &[(STREAM, "wss://stream.binance.com:9443")]),
        Market::Futures => (
            "https://fapi.binance.com",
            &[(PUBLIC, "wss://fstream.binance.com/public"), (MARKET, "wss://fstream.binance.com/market")],
        ),
    };
    let ws: BTreeMap<_, _> = ws.iter().map(|(class, base)| (class.as_str(), (*base).to_owned())).collect();
    Endpoints { rest: rest.to_owned(), ws }
}

/// Endpoint classes, depth first.
pub(super) const fn classes(market: Market) -> &'static [EndpointClass] {
    match market {
        Market::Spot => &[STREAM],
        Market::Futures => &[PUBLIC, MARKET],
    }
}

/// 1024 streams a socket are allowed; some are left free for streams added while running.
pub(super) const fn socket_limits() -> SocketLimits {
    SocketLimits {
        streams_per_socket: 1000,
        sockets_per_market: 13,
        connects: 300,
        connect_window: FIVE_MINUTES,
    }
}

/// REST limits. The venue's `rateLimits` of `exchangeInfo` are the live figures of the same.
pub(super) fn budget_rules(market: Market) -> Vec<BudgetRule> {
    let weight = |group, capacity| BudgetRule {
        group,
        capacity,
        window: MINUTE,
        used_header: Some(USED_WEIGHT),
        concurrency: 4,
    };
    match market {
        Market::Spot => vec![weight(SPOT, 6000)],
        Market::Futures => vec![
            weight(FUTURES, 2400),
            BudgetRule {
                group: FUTURES_FUNDING,
                capacity: 500,
                window: FIVE_MINUTES,
                used_header: None,
                concurrency: 1,
            },
        ],
    }
}
