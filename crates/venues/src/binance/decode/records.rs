//! From wire structs to events, one function a record.

use fathom_market::{
    decimal::{self, DecimalError},
    event::{
        Body, BookDelta, BookSnapshot, Candle, Event, Funding, Level, Quote, SeqIds, Side, Ticker, Trade,
        TradeId, TradeKind,
    },
    instrument::{Instrument, InstrumentIdx},
    timeframe::Timeframe,
};

use super::symbols::Listed;
use crate::{
    binance::{field, wire},
    error::DecodeError,
};

/// An event, or a record that is understood and of no use.
pub(in crate::binance) enum Record {
    Event(Event),
    Ignored(&'static str),
}

impl Record {
    pub(in crate::binance) fn event(self) -> Option<Event> {
        match self {
            Self::Event(event) => Some(event),
            Self::Ignored(_) => None,
        }
    }
}

/// Where and when a record was received.
#[derive(Clone, Copy)]
pub(in crate::binance) struct At {
    pub(super) listed: Listed,
    pub(super) recv_us: i64,
}

impl At {
    pub(in crate::binance) fn of(instrument: &Instrument, idx: InstrumentIdx, recv_us: i64) -> Self {
        Self { listed: Listed::of(instrument, idx), recv_us }
    }

    fn event(self, event: Option<i64>, sent: Option<i64>, body: Body) -> Record {
        let (event_us, sent_us) = (event.map(field::time_us), sent.map(field::time_us));
        Record::Event(Event { instrument: self.listed.idx, event_us, sent_us, recv_us: self.recv_us, body })
    }
}

pub(super) fn quote(wire: &wire::BookTicker<'_>, at: At) -> Result<Record, DecodeError> {
    let Listed { price_scale, qty_scale, .. } = at.listed;
    let quote = Quote {
        update_id: Some(field::id(&wire.u, "u")?),
        bid: Level {
            price: field::mantissa(&wire.b, "b", price_scale)?,
            qty: field::mantissa(&wire.bid_qty, "B", qty_scale)?,
        },
        ask: Level {
            price: field::mantissa(&wire.a, "a", price_scale)?,
            qty: field::mantissa(&wire.ask_qty, "A", qty_scale)?,
        },
    };
    let transaction = field::integer_opt(&wire.transaction, "T")?;
    let sent = field::integer_opt(&wire.event, "E")?;
    Ok(at.event(transaction.or(sent), sent, Body::Quote(quote)))
}

pub(in crate::binance) fn trade(
    wire: &wire::Trade<'_>,
    kind: TradeKind,
    at: At,
) -> Result<Record, DecodeError> {
    // Fills of the insurance fund and of auto-deleveraging are no market prices; old frames have no such field.
    if wire.origin.as_ref().is_some_and(|origin| origin.as_str() != "MARKET") {
        return Ok(Record::Ignored("not_a_market_trade"));
    }
    let (id, raw_ids) = match kind {
        TradeKind::Aggregate => {
            (field::id(&wire.a, "a")?, Some((field::id(&wire.f, "f")?, field::id(&wire.l, "l")?)))
        }
        TradeKind::Single => (field::id(&wire.t, "t")?, None),
    };
    let price = field::mantissa(&wire.p, "p", at.listed.price_scale)?;
    let qty = field::mantissa(&wire.q, "q", at.listed.qty_scale)?;
    let traded = field::integer(&wire.traded, "T")?;
    let side = if wire.m.ok_or(DecodeError::Missing("m"))? { Side::Sell } else { Side::Buy };
    let trade = Trade { id: TradeId::Number(id), kind, raw_ids, price, qty, side };
    Ok(at.event(Some(traded), field::integer_opt(&wire.event, "E")?, Body::Trade(trade)))
}

/// An update, or the top levels of a book where the stream is one of partial depth with `limit` levels.
pub(super) fn depth(
    wire: &wire::DepthUpdate<'_>,
    limit: Option<usize>,
    symbol: &str,
    at: At,
) -> Result<Record, DecodeError> {
    let sent = field::integer_opt(&wire.event, "E")?;
    let event = field::integer_opt(&wire.transaction, "T")?.or(sent);
    let last = field::id(&wire.u, "u")?;
    let bids = levels(wire.b.as_deref().ok_or(DecodeError::Missing("b"))?, "b", symbol, at.listed)?;
    let asks = levels(wire.a.as_deref().ok_or(DecodeError::Missing("a"))?, "a", symbol, at.listed)?;
    let body = match limit {
        Some(limit) => Body::Snapshot(BookSnapshot { last_id: last, bids, asks, limit }),
        None => {
            let first = field::id(&wire.first, "U")?;
            let prev = field::integer_opt(&wire.pu, "pu")?;
            Body::Delta(BookDelta { ids: SeqIds { first, last, prev }, bids, asks })
        }
    };
    Ok(at.event(event, sent, body))
}

pub(super) fn partial(
    wire: &wire::DepthBook<'_>,
    limit: usize,
    symbol: &str,
    at: At,
) -> Result<Record, DecodeError> {
    let snapshot = snapshot(wire, limit, symbol, at.listed.price_scale, at.listed.qty_scale)?;
    Ok(at.event(None, None, Body::Snapshot(snapshot)))
}

/// A whole book, of REST or of spot's partial depth.
pub(in crate::binance) fn snapshot(
    wire: &wire::DepthBook<'_>,
    limit: usize,
    symbol: &str,
    price_scale: u8,
    qty_scale: u8,
) -> Result<BookSnapshot, DecodeError> {
    let side = |levels: &Option<Vec<wire::LevelText<'_>>>, name| {
        let levels = levels.as_deref().ok_or(DecodeError::Missing(name))?;
        levels
            .iter()
            .map(|text| level(text, name, symbol, price_scale, qty_scale))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(BookSnapshot {
        last_id: field::id(&wire.last_update_id, "lastUpdateId")?,
        bids: side(&wire.bids, "bids")?,
        asks: side(&wire.asks, "asks")?,
        limit,
    })
}

fn levels(
    texts: &[wire::LevelText<'_>],
    name: &'static str,
    symbol: &str,
    listed: Listed,
) -> Result<Vec<Level>, DecodeError> {
    texts.iter().map(|text| level(text, name, symbol, listed.price_scale, listed.qty_scale)).collect()
}

fn level(
    text: &wire::LevelText<'_>,
    name: &'static str,
    symbol: &str,
    price_scale: u8,
    qty_scale: u8,
) -> Result<Level, DecodeError> {
    let read = |text: &wire::Text<'_>, scale| {
        let text = text.as_str();
        let value = decimal::parse_scaled(text.as_bytes(), scale).map_err(|source| match source {
            DecimalError::TooPrecise | DecimalError::OutOfRange => {
                DecodeError::LevelMisfit { symbol: field::cut(symbol), source }
            }
            DecimalError::Empty | DecimalError::NotANumber => DecodeError::Number { field: name, source },
        })?;
        if value < 0 {
            return Err(DecodeError::Unexpected { field: name, value: field::cut(text) });
        }
        Ok(value)
    };
    Ok(Level { price: read(&text.price, price_scale)?, qty: read(&text.qty, qty_scale)? })
}

pub(super) fn candle(
    wire: &wire::KlineEvent<'_>,
    k: &wire::Kline<'_>,
    at: At,
) -> Result<Record, DecodeError> {
    let name = field::text(&k.i, "i")?;
    let timeframe = Timeframe::parse(name)
        .ok_or_else(|| DecodeError::Unexpected { field: "i", value: field::cut(name) })?;
    let candle = Candle {
        timeframe,
        open_ms: field::time_ms(field::integer(&k.t, "t")?),
        close_ms: field::time_ms(field::integer(&k.close_time, "T")?),
        open: field::amount(&k.o, "o")?,
        high: field::amount(&k.h, "h")?,
        low: field::amount(&k.l, "l")?,
        close: field::amount(&k.c, "c")?,
        volume: field::amount(&k.v, "v")?,
        quote_volume: field::amount(&k.q, "q")?,
        trades: field::id(&k.n, "n")?,
        taker_buy_volume: field::amount(&k.taker_base, "V")?,
        taker_buy_quote_volume: field::amount(&k.taker_quote, "Q")?,
        closed: k.x.ok_or(DecodeError::Missing("x"))?,
    };
    let event = Some(field::integer(&wire.event, "E")?);
    Ok(at.event(event, event, Body::Candle(Box::new(candle))))
}

pub(super) fn funding(wire: &wire::MarkPrice<'_>, at: At) -> Result<Record, DecodeError> {
    let event = Some(field::integer(&wire.event, "E")?);
    let next = field::integer_opt(&wire.next, "T")?;
    let funding = funding_of(&wire.p, &wire.i, &wire.r, next, ["p", "i", "r"])?;
    Ok(at.event(event, event, Body::Funding(Box::new(funding))))
}

/// Mark, index and rate. A settlement time of 0 means that the contract has no funding; its rate, `""` or zero, is
/// then not looked at (sheet 4.6).
pub(in crate::binance) fn funding_of(
    mark: &Option<wire::Text<'_>>,
    index: &Option<wire::Text<'_>>,
    rate: &Option<wire::Text<'_>>,
    next: Option<i64>,
    [mark_name, index_name, rate_name]: [&'static str; 3],
) -> Result<Funding, DecodeError> {
    let next_ms = next.filter(|next| *next > 0).map(field::time_ms);
    let has_rate = next_ms.is_some() && rate.as_ref().is_some_and(|rate| !rate.as_str().is_empty());
    Ok(Funding {
        mark_price: field::amount(mark, mark_name)?,
        index_price: field::amount_opt(index, index_name)?,
        rate: has_rate.then(|| field::signed(rate, rate_name)).transpose()?,
        next_ms,
    })
}

pub(super) fn ticker(wire: &wire::Ticker<'_>, at: At) -> Result<Record, DecodeError> {
    let event = Some(field::integer(&wire.event, "E")?);
    let trades = if wire.n.is_some() { Some(field::id(&wire.n, "n")?) } else { None };
    let ticker = Ticker {
        last: Some(field::amount(&wire.c, "c")?),
        bid: field::amount_opt(&wire.b, "b")?,
        ask: field::amount_opt(&wire.a, "a")?,
        open: field::amount_opt(&wire.o, "o")?,
        high: field::amount_opt(&wire.h, "h")?,
        low: field::amount_opt(&wire.l, "l")?,
        volume: field::amount_opt(&wire.v, "v")?,
        quote_volume: field::amount_opt(&wire.q, "q")?,
        trades,
    };
    Ok(at.event(event, event, Body::Ticker(Box::new(ticker))))
}
