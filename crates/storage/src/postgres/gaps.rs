//! The questions about gaps and the ends of streams, as this store's text and arguments.

use fathom_market::table::Table;
use sqlx::{Arguments as _, postgres::PgArguments};

use super::{history::unbound, statements::column_list};
use crate::{
    error::StoreError,
    read::{GapQuery, MAX_ROWS},
};

#[derive(Default)]
struct Question {
    conditions: Vec<String>,
    arguments: PgArguments,
    bound: usize,
}

impl Question {
    /// Binds a value and gives its place.
    fn place<'a, T>(&mut self, value: T) -> Result<String, StoreError>
    where
        T: sqlx::Encode<'a, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        self.arguments.add(value).map_err(unbound)?;
        self.bound += 1;
        Ok(format!("${}", self.bound))
    }

    /// Adds a condition with the value in place of its question mark, where one is asked for.
    fn when<'a, T>(&mut self, condition: &str, value: Option<T>) -> Result<(), StoreError>
    where
        T: sqlx::Encode<'a, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        let Some(value) = value else { return Ok(()) };
        let place = self.place(value)?;
        self.conditions.push(condition.replace('?', &place));
        Ok(())
    }
}

pub(super) fn question(query: &GapQuery) -> Result<(String, PgArguments), StoreError> {
    let mut asked = Question { conditions: vec!["true".to_owned()], ..Question::default() };
    asked.when("instrument_id = ?", query.instrument_id)?;
    let of =
        |column: &str| format!("instrument_id in (select instrument_id from instruments where {column} = ?)");
    asked.when(&of("venue"), query.venue.as_deref())?;
    asked.when(&of("market"), query.market.as_deref())?;
    match query.channel.as_deref() {
        Some("candle") => asked.conditions.push("channel like 'candle:%'".to_owned()),
        channel => asked.when("channel = ?", channel)?,
    }
    asked.when("cause = ?", query.cause.map(|cause| cause.as_str()))?;
    asked.when("status = ?", query.status.map(|status| status.as_str()))?;
    if query.holes {
        asked.conditions.push("status in ('open', 'resynced', 'lost')".to_owned());
    }
    asked.when("from_us <= ?", query.to_us)?;
    asked.when("(to_us is null or to_us >= ?)", query.from_us)?;
    if let Some((from_us, name)) = &query.after {
        let (from, name) = (asked.place(*from_us)?, asked.place(name.as_str())?);
        asked.conditions.push(format!("(from_us, gap_id) < ({from}, {name})"));
    }
    let limit = asked.place(i64::from(query.limit.min(MAX_ROWS)))?;
    let table = Table::DataGaps.schema();
    let sql = format!(
        "select {} from {} where {} order by from_us desc, gap_id desc limit {limit}",
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
) -> Result<(String, PgArguments), StoreError> {
    let (time, unit) = match table {
        Table::Trades | Table::DepthEvents | Table::FundingRates => ("event_us", 1000),
        Table::Candles => ("open_ms", 1),
        Table::Bt1s | Table::Trade1s | Table::Depth1s => ("second_ms", 1),
        other => {
            return Err(StoreError::fatal(format!("{} has no times of an instrument", other.schema().name)));
        }
    };
    let mut asked = Question::default();
    asked.when("instrument_id = ?", Some(instrument_id))?;
    asked.when("timeframe = ?", timeframe.filter(|_| table == Table::Candles))?;
    let (name, of) = (table.schema().name, asked.conditions.join(" and "));
    let end = |order: &str| {
        format!("(select {time} / {unit} from {name} where {of} order by {time} {order} limit 1)")
    };
    let sql = format!("select {} as first_ms, {} as last_ms", end("asc"), end("desc"));
    Ok((sql, asked.arguments))
}
