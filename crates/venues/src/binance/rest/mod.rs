//! REST: what is asked, what it costs, and how answers are read (sheet sections 2 and 5).

mod answer;
mod parse;
mod request;

pub use answer::success;
pub use parse::{
    BestPrices, FundingSettlement, parse_best_prices, parse_candles, parse_funding, parse_funding_history,
    parse_funding_intervals, parse_snapshot, parse_tickers, parse_time, parse_trades,
};
pub use request::{
    best_prices_request, candles_request, funding_history_request, funding_intervals_request,
    funding_request, instruments_request, snapshot_request, tickers_request, time_request, trades_request,
};
