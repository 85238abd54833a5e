//! The questions about gaps and the ends of streams, as this store's text and arguments.

use fathom_market::table::Table;
use sqlx::{Arguments as _, mysql::MySqlArguments};

use super::{history::unbound, statements::column_list};
use crate::{
    error::StoreError,
    read::{GapQuery, MAX_ROWS},
};

struct Question {
    conditions: Vec<String>,
    arguments: MySqlArguments,
}

impl Question {
    fn text(&mut self, condition: &str, value: Option<&str>) -> Result<(), StoreError> {
        let Some(value) = value else { return Ok(()) };
        self.conditions.push(condition.to_owned());
        self.arguments.add(value).map_err(unbound)
    }

    fn number(&mut self, condition: &str, value: Option<i64>) -> Result<(), StoreError> {
        let Some(value) = value else { return Ok(()) };
        self.conditions.push(condition.to_owned());
        self.arguments.add(value).map_err(unbound)
    }
}

pub(super) fn question(query: &GapQuery) -> Result<(String, MySqlArguments), StoreError> {
    let mut asked = Question { conditions: vec!["true".to_owned()], arguments: MySqlArguments::default() };
    asked.number("instrument_id = ?", query.instrument_id)?;
    let of =
        |column: &str| format!("instrument_id in (select instrument_id from instruments where {column} = ?)");
    asked.text(&of("venue"), query.venue.as_deref())?;
    asked.text(&of("market"), query.market.as_deref())?;
    match query.channel.as_deref() {
        Some("candle") => asked.conditions.push("channel like 'candle:%'".to_owned()),
        channel => asked.text("channel = ?", channel)?,
    }
    asked.text("cause = ?", query.cause.map(|cause| cause.as_str()))?;
    asked.text("status = ?", query.status.map(|status| status.as_str()))?;
    if query.holes {
        asked.conditions.push("status in ('open', 'resynced', 'lost')".to_owned());
    }
    asked.number("from_us <= ?", query.to_us)?;
    asked.number("(to_us is null or to_us >= ?)", query.from_us)?;
    if let Some((from_us, name)) = &query.after {
        // A comparison of pairs would not use the index.
        asked.number("from_us <= ?", Some(*from_us))?;
        asked.number("(from_us < ? or gap_id < ", Some(*from_us))?;
        asked.arguments.add(name.as_str()).map_err(unbound)?;
        if let Some(last) = asked.conditions.last_mut() {
            last.push_str("?)");
        }
    }
    asked.arguments.add(i64::from(query.limit.min(MAX_ROWS))).map_err(unbound)?;
    let table = Table::DataGaps.schema();
    let sql = format!(
        "select {} from {} where {} order by from_us desc, gap_id desc limit ?",
        column_list(table),
        table.name,
        asked.conditions.join(" and ")
    );
    Ok((sql, asked.arguments))
}

/// Both ends are found in an index.
pub(super) fn ends_question(
    table: Table,
    instrument_id: i64,
    timeframe: Option<&str>,
) -> Result<(String, MySqlArguments), StoreError> {
    let (time, unit) = match table {
        Table::Trades | Table::DepthEvents | Table::FundingRates => ("event_us", 1000),
        Table::Candles => ("open_ms", 1),
        Table::Bt1s | Table::Trade1s | Table::Depth1s => ("second_ms", 1),
        other => {
            return Err(StoreError::fatal(format!("{} has no times of an instrument", other.schema().name)));
        }
    };
    let timeframe = timeframe.filter(|_| table == Table::Candles);
    let mut of = "instrument_id = ?".to_owned();
    if timeframe.is_some() {
        of.push_str(" and timeframe = ?");
    }
    let mut arguments = MySqlArguments::default();
    for _ in ["first", "last"] {
        arguments.add(instrument_id).map_err(unbound)?;
        if let Some(timeframe) = timeframe {
            arguments.add(timeframe).map_err(unbound)?;
        }
    }
    let name = table.schema().name;
    let end = |order: &str| {
        format!("(select {time} div {unit} from {name} where {of} order by {time} {order} limit 1)")
    };
    Ok((format!("select {} as first_ms, {} as last_ms", end("asc"), end("desc")), arguments))
}
