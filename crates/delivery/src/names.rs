//! Keys and channels.

use fathom_market::{
    ids::{Market, VenueId},
    instrument::Instrument,
};

/// How keys and channels are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// What every key begins with.
    pub prefix: String,
    /// What every channel begins with; usually nothing.
    pub channel_prefix: String,
    /// The venue whose spot market has the short channels.
    pub primary: VenueId,
}

/// A kind of channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Candles.
    Candles,
    /// Order books.
    Orderbook,
}

impl Topic {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Candles => "candles",
            Self::Orderbook => "orderbook",
        }
    }
}

impl Names {
    /// `{prefix}:alive`.
    pub fn alive(&self) -> String {
        format!("{}:alive", self.prefix)
    }

    /// `{prefix}:ticker:{venue}:{market}:{symbol}`.
    pub fn ticker(&self, of: &Instrument) -> String {
        self.of("ticker", of)
    }

    /// `{prefix}:orderbook:{venue}:{market}:{symbol}`.
    pub fn orderbook(&self, of: &Instrument) -> String {
        self.of("orderbook", of)
    }

    /// `{prefix}:ticks:{venue}:{market}:{symbol}`.
    pub fn ticks(&self, of: &Instrument) -> String {
        self.of("ticks", of)
    }

    /// `{prefix}:candles:{venue}:{market}:{symbol}:{timeframe}`.
    pub fn candles(&self, of: &Instrument, timeframe: &str) -> String {
        format!("{}:{timeframe}", self.of("candles", of))
    }

    /// `{prefix}:snapshots:{scope}:{market}:{category}:{depth}`; the market by its label, in any case.
    pub fn category(&self, scope: &str, market: &str, category: &str, depth: &str) -> String {
        format!("{}:snapshots:{scope}:{}:{category}:{depth}", self.prefix, market.to_ascii_lowercase())
    }

    /// `{prefix}:snapshots:{venue}:{market}:{symbol}:{depth}`.
    pub fn pair(&self, of: &Instrument, depth: &str) -> String {
        format!("{}:{depth}", self.of("snapshots", of))
    }

    /// The channels of an instrument: `{topic}:{venue}:{market}:{symbol}`, and for the primary venue's spot market
    /// `{topic}:{symbol}` and `{topic}:all`.
    pub fn channels(&self, topic: Topic, of: &Instrument) -> Vec<String> {
        let (prefix, topic) = (&self.channel_prefix, topic.as_str());
        let mut channels = vec![format!("{prefix}{topic}:{}:{}:{}", of.venue, of.market, of.native)];
        if of.venue == self.primary && of.market == Market::Spot {
            channels.push(format!("{prefix}{topic}:{}", of.native));
            channels.push(format!("{prefix}{topic}:all"));
        }
        channels
    }

    fn of(&self, kind: &str, of: &Instrument) -> String {
        format!("{}:{kind}:{}:{}:{}", self.prefix, of.venue, of.market, of.native)
    }
}
