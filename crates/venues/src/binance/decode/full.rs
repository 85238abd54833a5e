//! The full parser: any frame in any spelling, through serde. It defines what a frame means; the fast path may only
//! agree with it.

use fathom_market::{
    event::{Channel, TradeKind},
    timeframe::Timeframe,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    records::{self, At, Record},
    symbols::{Listed, Symbols},
};
use crate::{
    binance::{
        channels::{StreamKind, stream_symbol},
        field, wire,
    },
    error::DecodeError,
    venue::Decoded,
};

/// A frame, or a part of one, and what is known around it.
#[derive(Clone, Copy)]
pub(super) struct Context<'c> {
    pub(super) symbols: &'c Symbols,
    /// The stream's name, where the frame or the line names one.
    pub(super) stream: Option<&'c str>,
    pub(super) recv_us: i64,
}

fn malformed(error: &serde_json::Error) -> DecodeError {
    DecodeError::Malformed(field::cut(&error.to_string()))
}

fn rejected(error: DecodeError) -> Decoded {
    Decoded::Rejected { instrument: None, channel: None, error }
}

fn read<'a, T: Deserialize<'a>>(raw: &'a str) -> Result<T, DecodeError> {
    serde_json::from_str(raw).map_err(|error| malformed(&error))
}

/// Decodes a frame (sheet section 3: what tells the kinds of frames apart).
pub(super) fn decode(frame: &[u8], context: Context<'_>, out: &mut Vec<Decoded>) {
    if frame.trim_ascii_start().first() == Some(&b'[') {
        return match std::str::from_utf8(frame) {
            Ok(raw) => values(raw, context, out),
            Err(_) => out.push(rejected(DecodeError::Malformed("not utf-8".to_owned()))),
        };
    }
    let envelope: wire::Envelope<'_> = match serde_json::from_slice(frame) {
        Ok(envelope) => envelope,
        Err(error) => return out.push(rejected(malformed(&error))),
    };
    if let Some(stream) = &envelope.stream {
        let Some(data) = envelope.data else {
            return out.push(rejected(DecodeError::Missing("data")));
        };
        return values(data.get(), Context { stream: Some(stream.as_str()), ..context }, out);
    }
    if envelope.e.is_none()
        && let Some(reply) = reply(&envelope)
    {
        return out.push(reply);
    }
    match std::str::from_utf8(frame) {
        Ok(raw) => values(raw, context, out),
        Err(_) => out.push(rejected(DecodeError::Malformed("not utf-8".to_owned()))),
    }
}

/// Acknowledgements and complaints; an error may carry an id, so it is told first.
fn reply(envelope: &wire::Envelope<'_>) -> Option<Decoded> {
    let id = envelope.id.as_ref().and_then(|id| id.as_str().parse().ok());
    let (code, words) = match &envelope.error {
        Some(error) => (&error.code, &error.msg),
        None => (&envelope.code, &envelope.msg),
    };
    if envelope.error.is_some() || code.is_some() {
        let code = code.as_ref().map_or("none", wire::Text::as_str);
        let words = words.as_ref().map_or("", wire::Text::as_str);
        return Some(Decoded::Refused {
            id,
            message: format!("code {}: {}", field::cut(code), field::cut(words)),
        });
    }
    if !envelope.result && envelope.id.is_none() {
        return None;
    }
    Some(id.map_or(Decoded::Ignored("reply_without_id"), Decoded::Ack))
}

/// One event, or an array of them: one that is rejected leaves the others standing.
fn values(raw: &str, context: Context<'_>, out: &mut Vec<Decoded>) {
    if !raw.trim_ascii_start().starts_with('[') {
        return out.push(value(raw, context));
    }
    match read::<Vec<&RawValue>>(raw) {
        Ok(elements) => out.extend(elements.into_iter().map(|element| value(element.get(), context))),
        Err(error) => out.push(rejected(error)),
    }
}

fn value(raw: &str, context: Context<'_>) -> Decoded {
    let kind: wire::Kind<'_> = match read(raw) {
        Ok(kind) => kind,
        Err(error) => return context.refuse(error, None),
    };
    // Since 2026-06-30 the all-market streams carry coin-margined contracts too, whose volumes are contracts.
    if kind.st.as_ref().is_some_and(|st| st.as_str() == "2") {
        return Decoded::Ignored("coin_margined");
    }
    let stream = context.stream.map_or(StreamKind::Other, StreamKind::of);
    match (kind.e.as_ref().map(wire::Text::as_str), stream) {
        (Some("bookTicker"), _) | (None, StreamKind::BookTicker) => context.quote(raw),
        (Some("aggTrade"), _) => context.trade(raw, TradeKind::Aggregate),
        (Some("trade"), _) => context.trade(raw, TradeKind::Single),
        // The book with retail price improvement orders is another book.
        (Some("depthUpdate"), StreamKind::RpiDepth) => Decoded::Ignored("rpi_depth"),
        (Some("depthUpdate"), StreamKind::PartialDepth(limit)) => context.depth(raw, Some(limit)),
        (Some("depthUpdate"), _) => context.depth(raw, None),
        (None, StreamKind::PartialDepth(limit)) => context.partial(raw, limit),
        // Candles whose boundaries are shifted by a time zone would mix with those of UTC.
        (Some("kline"), StreamKind::ShiftedKline) => Decoded::Ignored("shifted_candle"),
        (Some("kline"), _) => context.candle(raw),
        (Some("markPriceUpdate"), _) => context.funding(raw),
        (Some("24hrTicker" | "24hrMiniTicker"), _) => context.ticker(raw),
        (Some("forceOrder"), _) => Decoded::Ignored("liquidation"),
        (Some("contractInfo"), _) => Decoded::InstrumentsChanged,
        (Some("serverShutdown"), _) => Decoded::ClosingSoon,
        (Some(_), _) => Decoded::Ignored("other_event"),
        (None, _) => Decoded::Ignored("unnamed_event"),
    }
}

impl Context<'_> {
    fn listed_of_stream(self) -> Option<Listed> {
        self.symbols.find(stream_symbol(self.stream?).as_bytes())
    }

    /// Rejects a record whose own symbol could not be read; the stream's name may still tell whose it was.
    fn refuse(self, error: DecodeError, channel: Option<Channel>) -> Decoded {
        Decoded::Rejected { instrument: self.listed_of_stream().map(|listed| listed.idx), channel, error }
    }

    /// Finds the instrument of a record and converts it.
    fn record(
        self,
        symbol: Result<&str, DecodeError>,
        channel: Option<Channel>,
        convert: impl FnOnce(At, &str) -> Result<Record, DecodeError>,
    ) -> Decoded {
        let symbol = match symbol {
            Ok(symbol) => symbol,
            Err(error) => return self.refuse(error, channel),
        };
        let Some(listed) = self.symbols.find(symbol.as_bytes()) else {
            let error = DecodeError::UnknownSymbol(field::cut(symbol));
            return Decoded::Rejected { instrument: None, channel, error };
        };
        match convert(At { listed, recv_us: self.recv_us }, symbol) {
            Ok(Record::Event(event)) => Decoded::Event(event),
            Ok(Record::Ignored(why)) => Decoded::Ignored(why),
            Err(error) => Decoded::Rejected { instrument: Some(listed.idx), channel, error },
        }
    }

    fn quote(self, raw: &str) -> Decoded {
        let channel = Some(Channel::Quote);
        match read::<wire::BookTicker<'_>>(raw) {
            Ok(wire) => self.record(field::text(&wire.s, "s"), channel, |at, _| records::quote(&wire, at)),
            Err(error) => self.refuse(error, channel),
        }
    }

    fn trade(self, raw: &str, kind: TradeKind) -> Decoded {
        let channel = Some(Channel::Trade);
        match read::<wire::Trade<'_>>(raw) {
            Ok(wire) => {
                self.record(field::text(&wire.s, "s"), channel, |at, _| records::trade(&wire, kind, at))
            }
            Err(error) => self.refuse(error, channel),
        }
    }

    fn depth(self, raw: &str, limit: Option<usize>) -> Decoded {
        let channel = Some(Channel::Depth);
        match read::<wire::DepthUpdate<'_>>(raw) {
            Ok(wire) => self.record(field::text(&wire.s, "s"), channel, |at, symbol| {
                records::depth(&wire, limit, symbol, at)
            }),
            Err(error) => self.refuse(error, channel),
        }
    }

    /// Spot's partial depth carries no symbol: the stream's name is all there is.
    fn partial(self, raw: &str, limit: usize) -> Decoded {
        let channel = Some(Channel::Depth);
        let symbol = self.stream.map(stream_symbol).unwrap_or_default();
        match read::<wire::DepthBook<'_>>(raw) {
            Ok(wire) => self.record(Ok(symbol.as_str()), channel, |at, symbol| {
                records::partial(&wire, limit, symbol, at)
            }),
            Err(error) => self.refuse(error, channel),
        }
    }

    fn candle(self, raw: &str) -> Decoded {
        let wire = match read::<wire::KlineEvent<'_>>(raw) {
            Ok(wire) => wire,
            Err(error) => return self.refuse(error, None),
        };
        let Some(k) = &wire.k else {
            return self.refuse(DecodeError::Missing("k"), None);
        };
        let timeframe = k.i.as_ref().and_then(|name| Timeframe::parse(name.as_str()));
        let symbol = if k.s.is_some() { &k.s } else { &wire.s };
        self.record(field::text(symbol, "s"), timeframe.map(Channel::Candle), |at, _| {
            records::candle(&wire, k, at)
        })
    }

    fn funding(self, raw: &str) -> Decoded {
        let channel = Some(Channel::Funding);
        match read::<wire::MarkPrice<'_>>(raw) {
            Ok(wire) => self.record(field::text(&wire.s, "s"), channel, |at, _| records::funding(&wire, at)),
            Err(error) => self.refuse(error, channel),
        }
    }

    fn ticker(self, raw: &str) -> Decoded {
        let channel = Some(Channel::Ticker);
        match read::<wire::Ticker<'_>>(raw) {
            Ok(wire) => self.record(field::text(&wire.s, "s"), channel, |at, _| records::ticker(&wire, at)),
            Err(error) => self.refuse(error, channel),
        }
    }
}
