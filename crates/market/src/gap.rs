//! An entry of the gap ledger: an interval in which a stream may have missed data, and what became of it.

use serde::Serialize;

use crate::{event::Channel, ids::InstrumentId, table::GapRow, timeframe::Timeframe};

/// The word of a channel in the ledger; candles with their timeframe, `candle:1m`.
pub fn channel_word(channel: Channel) -> String {
    match channel {
        Channel::Candle(timeframe) => format!("candle:{timeframe}"),
        other => other.as_str().into(),
    }
}

/// Reads the word of a channel.
pub fn parse_channel(word: &str) -> Option<Channel> {
    if let Some(timeframe) = word.strip_prefix("candle:") {
        return Timeframe::parse(timeframe).map(Channel::Candle);
    }
    let plain = [Channel::Quote, Channel::Trade, Channel::Depth, Channel::Ticker, Channel::Funding];
    plain.into_iter().find(|channel| channel.as_str() == word)
}

/// Why data may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GapCause {
    /// No line carried the stream.
    Disconnect,
    /// The stream's own numbering shows a hole.
    Sequence,
    /// The stream was found silent on an open socket.
    Silence,
    /// A full inbox dropped what was received.
    Overflow,
    /// A record could not be read.
    Unreadable,
    /// A book differed from the venue's.
    Diverged,
    /// Rows were refused on their way to the store, as the declared policy says.
    Refused,
    /// The process was down, or died with rows in memory.
    Restart,
    /// An operator held the stream, or it was not collected for a time.
    Paused,
    /// An operator had the book loaded anew.
    Operator,
}

impl GapCause {
    /// Every cause.
    pub const ALL: [Self; 10] = [
        Self::Disconnect,
        Self::Sequence,
        Self::Silence,
        Self::Overflow,
        Self::Unreadable,
        Self::Diverged,
        Self::Refused,
        Self::Restart,
        Self::Paused,
        Self::Operator,
    ];

    /// The cause's word, as stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect",
            Self::Sequence => "sequence",
            Self::Silence => "silence",
            Self::Overflow => "overflow",
            Self::Unreadable => "unreadable",
            Self::Diverged => "diverged",
            Self::Refused => "refused",
            Self::Restart => "restart",
            Self::Paused => "paused",
            Self::Operator => "operator",
        }
    }

    /// Reads the stored word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == word)
    }
}

/// What became of a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GapStatus {
    /// The stream has not been heard again, or its repair is under way.
    Open,
    /// The ids of both ends follow each other: nothing was missed.
    NoneMissed,
    /// The book was loaded anew; its updates in between cannot be had.
    Resynced,
    /// Everything that was missed has been fetched.
    Repaired,
    /// What was missed cannot be had; `reason` says why.
    Lost,
}

impl GapStatus {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Open, Self::NoneMissed, Self::Resynced, Self::Repaired, Self::Lost];

    /// The status's word, as stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::NoneMissed => "none_missed",
            Self::Resynced => "resynced",
            Self::Repaired => "repaired",
            Self::Lost => "lost",
        }
    }

    /// Reads the stored word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

/// One gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Its name: `{instrument id in hex}-{channel}-{from_us}-{cause}`.
    pub id: String,
    /// The instrument.
    pub instrument: InstrumentId,
    /// The channel's word; candles with their timeframe, `candle:1m`.
    pub channel: String,
    /// Why it was opened.
    pub cause: GapCause,
    /// What became of it.
    pub status: GapStatus,
    /// When the last record before it was received.
    pub from_us: i64,
    /// When the first record after it was received.
    pub to_us: Option<i64>,
    /// Id of the last record before it, where the stream has ids.
    pub from_id: Option<String>,
    /// Id of the first record after it.
    pub to_id: Option<String>,
    /// Records known to be missing, where ids tell.
    pub missing: Option<u64>,
    /// Why what is missing cannot be had.
    pub reason: Option<String>,
    /// When it was noticed.
    pub opened_us: i64,
    /// When its status became final.
    pub closed_us: Option<i64>,
    /// When it last changed.
    pub updated_us: i64,
}

impl Gap {
    /// The name of a gap that begins here.
    pub fn name(instrument: InstrumentId, channel: &str, from_us: i64, cause: GapCause) -> String {
        format!("{:x}-{channel}-{from_us}-{}", instrument.0, cause.as_str())
    }

    /// Where the name of a gap says that it begins; `None` for what is no name.
    pub fn begins(name: &str) -> Option<i64> {
        name.rsplit('-').nth(1)?.parse().ok()
    }

    /// Reads a stored row; `None` when its words are none of ours.
    pub fn read(row: &GapRow) -> Option<Self> {
        Some(Self {
            id: row.gap_id.clone(),
            instrument: InstrumentId(row.instrument_id),
            channel: row.channel.clone(),
            cause: GapCause::parse(&row.cause)?,
            status: GapStatus::parse(&row.status)?,
            from_us: row.from_us,
            to_us: row.to_us,
            from_id: row.from_id.clone(),
            to_id: row.to_id.clone(),
            missing: row.missing.map(i64::unsigned_abs),
            reason: row.reason.clone(),
            opened_us: row.opened_us,
            closed_us: row.closed_us,
            updated_us: row.updated_us,
        })
    }

    /// Whether data of its interval is missing, as far as is known.
    pub const fn is_hole(&self) -> bool {
        matches!(self.status, GapStatus::Open | GapStatus::Resynced | GapStatus::Lost)
    }

    /// Its stored row.
    pub fn row(&self) -> GapRow {
        GapRow {
            gap_id: self.id.clone(),
            instrument_id: self.instrument.0,
            channel: self.channel.clone(),
            cause: self.cause.as_str().into(),
            status: self.status.as_str().into(),
            from_us: self.from_us,
            to_us: self.to_us,
            from_id: self.from_id.clone(),
            to_id: self.to_id.clone(),
            missing: self.missing.map(|missing| i64::try_from(missing).unwrap_or(i64::MAX)),
            reason: self.reason.clone(),
            opened_us: self.opened_us,
            closed_us: self.closed_us,
            updated_us: self.updated_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_read_back_from_its_row_and_its_name() {
        let gap = Gap {
            id: Gap::name(InstrumentId(255), "candle:1m", 17, GapCause::Disconnect),
            instrument: InstrumentId(255),
            channel: channel_word(Channel::Candle(Timeframe::M1)),
            cause: GapCause::Disconnect,
            status: GapStatus::Lost,
            from_us: 17,
            to_us: Some(19),
            from_id: Some("4".into()),
            to_id: None,
            missing: Some(3),
            reason: Some("gone".into()),
            opened_us: 18,
            closed_us: Some(20),
            updated_us: 21,
        };
        assert_eq!(gap.id, "ff-candle:1m-17-disconnect");
        assert_eq!(Gap::begins(&gap.id), Some(17));
        assert_eq!(Gap::begins("nonsense"), None);
        assert_eq!(Gap::read(&gap.row()), Some(gap.clone()));
        assert_eq!(Gap::read(&GapRow { status: "odd".into(), ..gap.row() }), None);
    }

    #[test]
    fn channels_are_read_by_their_words() {
        for word in ["quote", "trade", "depth", "ticker", "funding", "candle:1m", "candle:1M"] {
            assert_eq!(parse_channel(word).map(channel_word).as_deref(), Some(word));
        }
        for word in ["", "candle", "candle:", "candle:2m", "Trade"] {
            assert_eq!(parse_channel(word), None, "{word}");
        }
    }
}
