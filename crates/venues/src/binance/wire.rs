//! The venue's messages as they are on the wire, borrowed from the frame. Every field is optional here, so that one that
//! is missing is named by the decoder; unknown fields are passed over, because the venue adds some without notice.
//!
//! Spot: <https://github.com/binance/binance-spot-api-docs/blob/master/web-socket-streams.md> and `rest-api.md` there.
//! USD-M futures: <https://developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams>.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// The text of a JSON string, or of a bare JSON number as it is spelled. No number goes through a float.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'de RawValue>::deserialize(deserializer)?.get();
        match raw.as_bytes() {
            [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => {
                Ok(Self(Cow::Borrowed(&raw[1..raw.len() - 1])))
            }
            [b'"', ..] => {
                serde_json::from_str(raw).map(|text| Self(Cow::Owned(text))).map_err(D::Error::custom)
            }
            [b'0'..=b'9' | b'-', ..] => Ok(Self(Cow::Borrowed(raw))),
            _ => Err(D::Error::custom("neither text nor a number")),
        }
    }
}

/// `[price, quantity, ...]`.
#[derive(Clone, Debug)]
pub(super) struct LevelText<'a> {
    pub(super) price: Text<'a>,
    pub(super) qty: Text<'a>,
}

impl<'de: 'a, 'a> Deserialize<'de> for LevelText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = LevelText<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a price and a quantity")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let price = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
                let qty = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
                // Old spot frames have an empty third element.
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(LevelText { price, qty })
            }
        }
        deserializer.deserialize_seq(Pair)
    }
}

/// True where a key is there at all, `null` included.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// What is around or in place of an event (sheet section 3): a combined frame, an acknowledgement, an error.
#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow)]
    pub(super) stream: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "present")]
    pub(super) result: bool,
    #[serde(borrow)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) e: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) code: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) msg: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) error: Option<ErrorBody<'a>>,
}

/// `{"code":-1121,"msg":"Invalid symbol."}`: REST errors (`errors.md`), and the nested form of stream errors.
#[derive(Deserialize)]
pub(super) struct ErrorBody<'a> {
    #[serde(borrow)]
    pub(super) code: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) msg: Option<Text<'a>>,
}

/// What tells the events apart: type, and whose contract it is (`st`: 1 USD-M, 2 COIN-M, since 2026-06-30).
#[derive(Deserialize)]
pub(super) struct Kind<'a> {
    #[serde(borrow)]
    pub(super) e: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) st: Option<Text<'a>>,
}

/// "Individual Symbol Book Ticker Streams", sheet 4.1.
#[derive(Deserialize)]
pub(super) struct BookTicker<'a> {
    #[serde(borrow)]
    pub(super) u: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) s: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) b: Option<Text<'a>>,
    #[serde(borrow, rename = "B")]
    pub(super) bid_qty: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) a: Option<Text<'a>>,
    #[serde(borrow, rename = "A")]
    pub(super) ask_qty: Option<Text<'a>>,
    #[serde(borrow, rename = "T")]
    pub(super) transaction: Option<Text<'a>>,
    #[serde(borrow, rename = "E")]
    pub(super) event: Option<Text<'a>>,
}

/// "Aggregate Trade Streams" and "Trade Streams", sheet 4.2; also a row of `aggTrades`, sheet 5.7.
#[derive(Deserialize)]
pub(super) struct Trade<'a> {
    #[serde(borrow, rename = "E")]
    pub(super) event: Option<Text<'a>>,
    #[serde(borrow, rename = "T")]
    pub(super) traded: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) s: Option<Text<'a>>,
    /// Aggregate id; on old spot `trade` frames the seller's order id.
    #[serde(borrow)]
    pub(super) a: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) t: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) p: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) q: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) f: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) l: Option<Text<'a>>,
    /// Whether the buyer was the maker: then the taker sold.
    pub(super) m: Option<bool>,
    /// `MARKET`, `INSURANCE_FUND`, ... on futures.
    #[serde(borrow, rename = "X")]
    pub(super) origin: Option<Text<'a>>,
}

/// "Diff. Depth Stream" and the futures' "Partial Book Depth Streams", sheet 4.3 and 4.4.
#[derive(Deserialize)]
pub(super) struct DepthUpdate<'a> {
    #[serde(borrow, rename = "E")]
    pub(super) event: Option<Text<'a>>,
    #[serde(borrow, rename = "T")]
    pub(super) transaction: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) s: Option<Text<'a>>,
    #[serde(borrow, rename = "U")]
    pub(super) first: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) u: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) pu: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) b: Option<Vec<LevelText<'a>>>,
    #[serde(borrow)]
    pub(super) a: Option<Vec<LevelText<'a>>>,
}

/// A whole book: `depth` of REST (sheet 5.3) and spot's "Partial Book Depth Streams" (sheet 4.4).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DepthBook<'a> {
    #[serde(borrow)]
    pub(super) last_update_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) bids: Option<Vec<LevelText<'a>>>,
    #[serde(borrow)]
    pub(super) asks: Option<Vec<LevelText<'a>>>,
}

/// "Kline/Candlestick Streams", sheet 4.5.
#[derive(Deserialize)]
pub(super) struct KlineEvent<'a> {
    #[serde(borrow, rename = "E")]
    pub(super) event: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) s: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) k: Option<Kline<'a>>,
}

/// The candle of a [`KlineEvent`].
#[derive(Deserialize)]
pub(super) struct Kline<'a> {
    #[serde(borrow)]
    pub(super) t: Option<Text<'a>>,
    #[serde(borrow, rename = "T")]
    pub(super) close_time: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) s: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) i: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) o: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) c: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) h: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) l: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) v: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) n: Option<Text<'a>>,
    pub(super) x: Option<bool>,
    #[serde(borrow)]
    pub(super) q: Option<Text<'a>>,
    #[serde(borrow, rename = "V")]
    pub(super) taker_base: Option<Text<'a>>,
    #[serde(borrow, rename = "Q")]
    pub(super) taker_quote: Option<Text<'a>>,
}

/// "Mark Price Stream", sheet 4.6.
#[derive(Deserialize)]
pub(super) struct MarkPrice<'a> {
    #[serde(borrow, rename = "E")]
    pub(super) event: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) s: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) p: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) i: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) r: Option<Text<'a>>,
    #[serde(borrow, rename = "T")]
    pub(super) next: Option<Text<'a>>,
}

/// "Individual Symbol Ticker Streams" and the mini ticker, sheet 4.7.
#[derive(Deserialize)]
pub(super) struct Ticker<'a> {
    #[serde(borrow, rename = "E")]
    pub(super) event: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) s: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) c: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) b: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) a: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) o: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) h: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) l: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) v: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) q: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) n: Option<Text<'a>>,
}

/// `exchangeInfo`, sheet 5.2: only what both markets share; a row is read for itself.
#[derive(Deserialize)]
pub(super) struct ExchangeInfo<'a> {
    #[serde(borrow)]
    pub(super) symbols: Option<Vec<&'a RawValue>>,
}

/// A row of `exchangeInfo`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SymbolInfo<'a> {
    #[serde(borrow)]
    pub(super) symbol: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) status: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) base_asset: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) quote_asset: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) margin_asset: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) contract_type: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) delivery_date: Option<Text<'a>>,
    pub(super) is_spot_trading_allowed: Option<bool>,
    #[serde(borrow)]
    pub(super) st: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) filters: Option<Vec<Filter<'a>>>,
}

/// `filters.md`: found by type, never by position.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Filter<'a> {
    #[serde(borrow)]
    pub(super) filter_type: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) max_price: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) tick_size: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) max_qty: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) step_size: Option<Text<'a>>,
}

/// `ticker/24hr`, sheet 5.5.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Statistics<'a> {
    #[serde(borrow)]
    pub(super) symbol: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) last_price: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) bid_price: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) ask_price: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) open_price: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) high_price: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) low_price: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) volume: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) quote_volume: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) count: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) st: Option<Text<'a>>,
}

/// `ticker/bookTicker`, sheet 5.5.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BestPrices<'a> {
    #[serde(borrow)]
    pub(super) symbol: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) bid_price: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) bid_qty: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) ask_price: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) ask_qty: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) time: Option<Text<'a>>,
}

/// `premiumIndex`, sheet 5.6.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PremiumIndex<'a> {
    #[serde(borrow)]
    pub(super) symbol: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) mark_price: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) index_price: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) last_funding_rate: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) next_funding_time: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) time: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) st: Option<Text<'a>>,
}

/// `fundingRate` and `fundingInfo`, sheet 5.6.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FundingRow<'a> {
    #[serde(borrow)]
    pub(super) symbol: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) funding_rate: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) funding_time: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) mark_price: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) rate_type: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) funding_interval_hours: Option<Text<'a>>,
}

/// `time`, sheet 5.1.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServerTime<'a> {
    #[serde(borrow)]
    pub(super) server_time: Option<Text<'a>>,
}
