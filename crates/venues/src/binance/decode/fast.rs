//! The fast path: book tickers, trades and depth updates in the spellings that the venue writes today, read in one
//! pass. Any deviation gives `None` and the frame goes to the full parser; what is read here is what that would read,
//! which a property test and a fuzz target hold.

use fathom_market::event::{Body, BookDelta, Event, Level, Quote, SeqIds, Side, Trade, TradeId, TradeKind};

use super::{
    scan::Cursor,
    symbols::{Listed, Symbols},
    time_us,
};

/// Room for levels that is used again for every frame, so that each side is allocated once, at its size.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    levels: Vec<Level>,
}

/// Reads a combined frame.
#[inline]
pub(super) fn decode(frame: &[u8], symbols: &Symbols, scratch: &mut Scratch, recv_us: i64) -> Option<Event> {
    let mut cursor = Cursor::new(frame);
    cursor.expect(b"{\"stream\":\"")?;
    cursor.text_until(b'@')?;
    let event = if cursor.skip(b"bookTicker\",\"data\":{") {
        book_ticker(&mut cursor, symbols, recv_us)
    } else if cursor.skip(b"aggTrade\",\"data\":{\"e\":\"aggTrade\",\"E\":") {
        aggregate_trade(&mut cursor, symbols, recv_us)
    } else if cursor.skip(b"depth") {
        depth_update(&mut cursor, symbols, scratch, recv_us)
    } else if cursor.skip(b"trade\",\"data\":{\"e\":\"trade\",\"E\":") {
        single_trade(&mut cursor, symbols, recv_us)
    } else {
        None
    }?;
    cursor.end()?;
    Some(event)
}

#[inline(always)]
fn symbol(cursor: &mut Cursor<'_>, symbols: &Symbols) -> Option<Listed> {
    symbols.find(cursor.text_until(b'"')?)
}

/// `"ps":"..."`, the pair, which the venue adds since 2026.
#[inline(always)]
fn skip_pair(cursor: &mut Cursor<'_>) -> Option<()> {
    if cursor.skip(b",\"ps\":\"") {
        cursor.text_until(b'"')?;
    }
    Some(())
}

/// Sheet 4.1. Spot: `u s b B a A`; futures: `e u s [ps] b B a A T E [st]`.
#[inline(always)]
fn book_ticker(cursor: &mut Cursor<'_>, symbols: &Symbols, recv_us: i64) -> Option<Event> {
    cursor.skip(b"\"e\":\"bookTicker\",");
    cursor.expect(b"\"u\":")?;
    let update_id = cursor.id()?;
    cursor.expect(b",\"s\":\"")?;
    let listed = symbol(cursor, symbols)?;
    skip_pair(cursor)?;
    cursor.expect(b",\"b\":\"")?;
    let bid_price = cursor.decimal(listed.price_scale)?;
    cursor.expect(b",\"B\":\"")?;
    let bid_qty = cursor.decimal(listed.qty_scale)?;
    cursor.expect(b",\"a\":\"")?;
    let ask_price = cursor.decimal(listed.price_scale)?;
    cursor.expect(b",\"A\":\"")?;
    let ask_qty = cursor.decimal(listed.qty_scale)?;
    let (mut event_us, mut sent_us) = (None, None);
    if cursor.skip(b",\"T\":") {
        event_us = Some(time_us(cursor.integer()?));
        cursor.expect(b",\"E\":")?;
        sent_us = Some(time_us(cursor.integer()?));
        cursor.skip(b",\"st\":1");
    }
    cursor.expect(b"}}")?;
    let quote = Quote {
        update_id: Some(update_id),
        bid: Level { price: bid_price, qty: bid_qty },
        ask: Level { price: ask_price, qty: ask_qty },
    };
    Some(Event { instrument: listed.idx, event_us, sent_us, recv_us, body: Body::Quote(quote) })
}

/// Sheet 4.2, from the value of `E` on: `E s a p q [nq] f l T m [M] [st]`; recorded futures frames have `a` before `s`.
#[inline(always)]
fn aggregate_trade(cursor: &mut Cursor<'_>, symbols: &Symbols, recv_us: i64) -> Option<Event> {
    let sent = cursor.integer()?;
    let (listed, id) = if cursor.skip(b",\"s\":\"") {
        let listed = symbol(cursor, symbols)?;
        skip_pair(cursor)?;
        cursor.expect(b",\"a\":")?;
        (listed, cursor.id()?)
    } else {
        cursor.expect(b",\"a\":")?;
        let id = cursor.id()?;
        cursor.expect(b",\"s\":\"")?;
        let listed = symbol(cursor, symbols)?;
        skip_pair(cursor)?;
        (listed, id)
    };
    let (price, qty) = price_and_qty(cursor, listed)?;
    if cursor.skip(b",\"nq\":\"") {
        cursor.text_until(b'"')?;
    }
    cursor.expect(b",\"f\":")?;
    let first = cursor.id()?;
    cursor.expect(b",\"l\":")?;
    let last = cursor.id()?;
    cursor.expect(b",\"T\":")?;
    let traded = cursor.integer()?;
    let side = taker_side(cursor)?;
    trade_end(cursor)?;
    let kind = TradeKind::Aggregate;
    let trade = Trade { id: TradeId::Number(id), kind, raw_ids: Some((first, last)), price, qty, side };
    Some(trade_event(listed, traded, sent, recv_us, trade))
}

/// Sheet 4.2, from the value of `E` on. Spot: `E s t p q T m [M]`; futures: `E T s t p q [X] m`.
#[inline(always)]
fn single_trade(cursor: &mut Cursor<'_>, symbols: &Symbols, recv_us: i64) -> Option<Event> {
    let sent = cursor.integer()?;
    let early = if cursor.skip(b",\"T\":") { Some(cursor.integer()?) } else { None };
    cursor.expect(b",\"s\":\"")?;
    let listed = symbol(cursor, symbols)?;
    skip_pair(cursor)?;
    cursor.expect(b",\"t\":")?;
    let id = cursor.id()?;
    let (price, qty) = price_and_qty(cursor, listed)?;
    let traded = match early {
        Some(traded) => {
            // Trades of the insurance fund and of deleveraging say another word and are for the full parser.
            cursor.skip(b",\"X\":\"MARKET\"");
            traded
        }
        None => {
            cursor.expect(b",\"T\":")?;
            cursor.integer()?
        }
    };
    let side = taker_side(cursor)?;
    trade_end(cursor)?;
    let trade = Trade { id: TradeId::Number(id), kind: TradeKind::Single, raw_ids: None, price, qty, side };
    Some(trade_event(listed, traded, sent, recv_us, trade))
}

#[inline(always)]
fn price_and_qty(cursor: &mut Cursor<'_>, listed: Listed) -> Option<(i64, i64)> {
    cursor.expect(b",\"p\":\"")?;
    let price = cursor.decimal(listed.price_scale)?;
    cursor.expect(b",\"q\":\"")?;
    Some((price, cursor.decimal(listed.qty_scale)?))
}

#[inline(always)]
fn taker_side(cursor: &mut Cursor<'_>) -> Option<Side> {
    cursor.expect(b",\"m\":")?;
    Some(if cursor.boolean()? { Side::Sell } else { Side::Buy })
}

#[inline(always)]
fn trade_end(cursor: &mut Cursor<'_>) -> Option<()> {
    if cursor.skip(b",\"M\":") {
        cursor.boolean()?;
    }
    cursor.skip(b",\"st\":1");
    cursor.expect(b"}}")
}

#[inline(always)]
fn trade_event(listed: Listed, traded: i64, sent: i64, recv_us: i64, trade: Trade) -> Event {
    let (event_us, sent_us) = (Some(time_us(traded)), Some(time_us(sent)));
    Event { instrument: listed.idx, event_us, sent_us, recv_us, body: Body::Trade(trade) }
}

/// Sheet 4.3, after `@depth`: `e E [T] s [ps] [st] U u [pu] b a [st]`.
#[inline(always)]
fn depth_update(
    cursor: &mut Cursor<'_>,
    symbols: &Symbols,
    scratch: &mut Scratch,
    recv_us: i64,
) -> Option<Event> {
    // Of the stream names only those of diff depth: `@depth20` carries the same object and means something else.
    if cursor.skip(b"@") && !(cursor.skip(b"100ms") || cursor.skip(b"500ms") || cursor.skip(b"0ms")) {
        return None;
    }
    cursor.expect(b"\",\"data\":{\"e\":\"depthUpdate\",\"E\":")?;
    let sent_us = time_us(cursor.integer()?);
    let event_us = if cursor.skip(b",\"T\":") { time_us(cursor.integer()?) } else { sent_us };
    cursor.expect(b",\"s\":\"")?;
    let listed = symbol(cursor, symbols)?;
    skip_pair(cursor)?;
    let early_st = cursor.skip(b",\"st\":1");
    cursor.expect(b",\"U\":")?;
    let first = cursor.id()?;
    cursor.expect(b",\"u\":")?;
    let last = cursor.id()?;
    let prev = if cursor.skip(b",\"pu\":") { Some(cursor.integer()?) } else { None };
    cursor.expect(b",\"b\":[")?;
    let bids = levels(cursor, listed, scratch)?;
    cursor.expect(b",\"a\":[")?;
    let asks = levels(cursor, listed, scratch)?;
    if !early_st {
        cursor.skip(b",\"st\":1");
    }
    cursor.expect(b"}}")?;
    let body = Body::Delta(BookDelta { ids: SeqIds { first, last, prev }, bids, asks });
    Some(Event { instrument: listed.idx, event_us: Some(event_us), sent_us: Some(sent_us), recv_us, body })
}

/// Levels after the opening bracket, the closing one included.
#[inline(always)]
fn levels(cursor: &mut Cursor<'_>, listed: Listed, scratch: &mut Scratch) -> Option<Vec<Level>> {
    scratch.levels.clear();
    if cursor.skip(b"]") {
        return Some(Vec::new());
    }
    loop {
        cursor.expect(b"[\"")?;
        let price = cursor.decimal(listed.price_scale)?;
        cursor.expect(b",\"")?;
        let qty = cursor.decimal(listed.qty_scale)?;
        scratch.levels.push(Level { price, qty });
        if cursor.skip(b"],") {
            continue;
        }
        cursor.expect(b"]]")?;
        return Some(scratch.levels.as_slice().to_vec());
    }
}
