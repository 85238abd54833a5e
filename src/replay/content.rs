//! What a recorded text is: a frame of a stream, a book of REST, a list of instruments. Frames are given to the decoder
//! as they are, but for what a recorder wrapped around them.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

const COMBINED: &[u8] = b"{\"stream\":\"";
/// The stream's name that recorders give to a book of REST.
const DEPTH_SNAPSHOT: &str = "@depthSnapshot";

/// What a text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    /// A frame for the decoder.
    Frame(Cow<'a, [u8]>),
    /// A book of REST; `symbol` as the venue writes it, where it is known.
    Snapshot { symbol: Option<String>, body: Cow<'a, [u8]> },
    /// The listed instruments.
    Instruments(Cow<'a, [u8]>),
}

#[derive(Deserialize)]
struct Probe<'a> {
    stream: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    raw: Option<String>,
    e: Option<IgnoredAny>,
    #[serde(rename = "lastUpdateId")]
    last_update_id: Option<IgnoredAny>,
    symbol: Option<String>,
    #[serde(borrow)]
    symbols: Option<&'a RawValue>,
    s: Option<String>,
    u: Option<IgnoredAny>,
    #[serde(rename = "B")]
    bid_qty: Option<IgnoredAny>,
    #[serde(rename = "A")]
    ask_qty: Option<IgnoredAny>,
}

impl<'a> Content<'a> {
    /// Tells what a text is. What is not understood is a frame: the decoder says what is wrong with it.
    pub(super) fn of(text: &'a [u8]) -> Self {
        if is_plainly_combined(text) {
            return Self::Frame(Cow::Borrowed(text));
        }
        match serde_json::from_slice::<Probe<'a>>(text) {
            Ok(probe) => Self::probed(probe, text),
            Err(_) => Self::Frame(Cow::Borrowed(text)),
        }
    }

    fn probed(probe: Probe<'a>, text: &'a [u8]) -> Self {
        if let Some(stream) = &probe.stream {
            return match (stream.strip_suffix(DEPTH_SNAPSHOT), probe.data) {
                (Some(symbol), Some(data)) => Self::Snapshot {
                    symbol: Some(symbol.to_ascii_uppercase()),
                    body: Cow::Borrowed(data.get().as_bytes()),
                },
                _ => Self::Frame(Cow::Borrowed(text)),
            };
        }
        if probe.e.is_some() {
            return Self::Frame(Cow::Borrowed(text));
        }
        if let Some(raw) = probe.raw {
            return Content::of(raw.as_bytes()).into_owned();
        }
        if probe.last_update_id.is_some() {
            return Self::Snapshot { symbol: probe.symbol, body: Cow::Borrowed(text) };
        }
        if probe.symbols.is_some_and(|symbols| symbols.get().starts_with('[')) {
            return Self::Instruments(Cow::Borrowed(text));
        }
        match probe.s {
            // Spot's best bid and ask names no type: without the stream's name it is told by its keys alone.
            Some(symbol) if probe.u.is_some() && probe.bid_qty.is_some() && probe.ask_qty.is_some() => {
                Self::Frame(Cow::Owned(named(&symbol.to_ascii_lowercase(), text)))
            }
            _ => Self::Frame(Cow::Borrowed(text)),
        }
    }

    fn into_owned(self) -> Content<'static> {
        let own = |text: Cow<'_, [u8]>| Cow::Owned(text.into_owned());
        match self {
            Self::Frame(frame) => Content::Frame(own(frame)),
            Self::Snapshot { symbol, body } => Content::Snapshot { symbol, body: own(body) },
            Self::Instruments(body) => Content::Instruments(own(body)),
        }
    }
}

/// True for the common spelling of a combined frame, which needs no further look.
fn is_plainly_combined(text: &[u8]) -> bool {
    let Some(rest) = text.strip_prefix(COMBINED) else { return false };
    let name = rest.split(|byte| *byte == b'"').next().unwrap_or_default();
    !name.contains(&b'\\') && !name.ends_with(DEPTH_SNAPSHOT.as_bytes())
}

/// The frame as a combined line would have carried it.
fn named(symbol: &str, event: &[u8]) -> Vec<u8> {
    let stream = serde_json::Value::from(format!("{symbol}@bookTicker"));
    [format!("{{\"stream\":{stream},\"data\":").as_bytes(), event, b"}"].concat()
}

#[derive(Deserialize)]
struct Times {
    #[serde(rename = "T")]
    transaction: Option<i64>,
    #[serde(rename = "E")]
    sent: Option<i64>,
}

/// The venue's time of a book of REST in milliseconds, which only futures have.
pub(super) fn snapshot_ms(body: &[u8]) -> Option<i64> {
    let times = serde_json::from_slice::<Times>(body).ok()?;
    times.transaction.or(times.sent)
}

/// What an answer of REST is, by its address; `None` for what a replay has no use for.
pub(super) fn of_answer<'a>(url: &str, body: &'a [u8]) -> Option<(Content<'a>, Option<usize>)> {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let parameter = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
    };
    match path.rsplit('/').next()? {
        "depth" => {
            let symbol = parameter("symbol").map(percent_decoded);
            let limit = parameter("limit").and_then(|limit| limit.parse().ok());
            Some((Content::Snapshot { symbol, body: Cow::Borrowed(body) }, limit))
        }
        "exchangeInfo" => Some((Content::Instruments(Cow::Borrowed(body)), None)),
        _ => None,
    }
}

/// Symbols of other alphabets are percent-encoded in addresses.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).filter(|_| *first == b'%').and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> String {
        match Content::of(text.as_bytes()) {
            Content::Frame(frame) => String::from_utf8(frame.into_owned()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn frames_are_left_as_they_are() {
        let frames = [
            r#"{"stream":"btcusdt@depth20","data":{"lastUpdateId":1,"bids":[],"asks":[]}}"#,
            r#"{ "data":{}, "stream":"btcusdt@trade"}"#,
            r#"{"e":"trade","s":"BTCUSDT"}"#,
            r#"{"result":null,"id":1}"#,
            r#"[{"e":"trade"}]"#,
            "garbage",
        ];
        for text in frames {
            assert_eq!(frame(text), text);
        }
    }

    #[test]
    fn wrappings_are_taken_off() {
        assert_eq!(frame(r#"{"case":"x","raw":"{\"e\":\"trade\"}"}"#), r#"{"e":"trade"}"#);
        let quote = r#"{"u":1,"s":"BNBUSDT","b":"1","B":"2","a":"3","A":"4"}"#;
        assert_eq!(frame(quote), format!(r#"{{"stream":"bnbusdt@bookTicker","data":{quote}}}"#));
        let body = r#"{"lastUpdateId":7,"bids":[],"asks":[]}"#;
        let snapshot = |symbol: Option<&str>| Content::Snapshot {
            symbol: symbol.map(str::to_owned),
            body: Cow::Borrowed(body.as_bytes()),
        };
        assert_eq!(Content::of(body.as_bytes()), snapshot(None));
        let generated = format!(r#"{{"stream":"gntbtc@depthSnapshot","generated":true,"data":{body}}}"#);
        assert_eq!(Content::of(generated.as_bytes()), snapshot(Some("GNTBTC")));
        assert!(matches!(Content::of(br#"{"timezone":"UTC","symbols":[]}"#), Content::Instruments(_)));
    }

    #[test]
    fn answers_are_told_by_their_address() {
        let (content, limit) =
            of_answer("https://h/api/v3/depth?symbol=%E5%B8%81USDT&limit=1000", b"{}").unwrap();
        let expected =
            Content::Snapshot { symbol: Some("币USDT".to_owned()), body: Cow::Borrowed(&b"{}"[..]) };
        assert_eq!((content, limit), (expected, Some(1000)));
        assert!(of_answer("https://h/fapi/v1/exchangeInfo", b"{}").is_some());
        assert!(of_answer("https://h/fapi/v1/openInterest?symbol=BTCUSDT", b"{}").is_none());
    }
}
