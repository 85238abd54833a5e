//! Trade bars made anew after a repair: see [`crate::trade_bars`]. Marks are set by triggers on the gap ledger.

use fathom_market::{
    batch::Batch,
    table::{Table, TradeBarRow},
};
use sqlx::{AssertSqlSafe, Connection as _, Sqlite, Transaction, sqlite::SqliteRow};

use super::{
    bind,
    classify::store_error,
    row::value,
    statements::column_list,
    writer::{BEGIN, Writer},
};
use crate::{
    error::StoreError,
    trade_bars::{Interval, Known, PASS_MS, STREAMED_WITHIN_US, StoredBar, StoredTrade, rebuild},
};

fn failed(error: &sqlx::Error) -> StoreError {
    store_error(error).while_doing("trade bars")
}

/// Makes the bars of at most `limit` repaired gaps anew. A gap waits until a later bar of its instrument is stored: bars
/// come in order, so its own are stored then too. Gives the gaps.
pub(super) async fn roll_up(writer: &Writer, limit: u64) -> Result<u64, StoreError> {
    let marks = marks(writer, limit).await?;
    for (gap_id, instrument_id, repaired) in &marks {
        recompute(writer, *instrument_id, *repaired).await?;
        let mut lease = writer.lease().await?;
        sqlx::query("delete from trade_bars_dirty where gap_id = ? and from_us >= ? and to_us <= ?")
            .bind(gap_id)
            .bind(repaired.from_us)
            .bind(repaired.to_us)
            .execute(&mut lease.connection)
            .await
            .map_err(|error| failed(&error))?;
        lease.give_back();
    }
    Ok(marks.len() as u64)
}

async fn marks(writer: &Writer, limit: u64) -> Result<Vec<(String, i64, Interval)>, StoreError> {
    let mut lease = writer.lease().await?;
    let rows = sqlx::query(
        "select gap_id, instrument_id, from_us, to_us from trade_bars_dirty d \
         where exists (select 1 from trade_1s_raw b \
             where b.instrument_id = d.instrument_id and b.second_ms > (d.to_us + ?) / 1000) \
         order by to_us limit ?",
    )
    .bind(STREAMED_WITHIN_US)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(&mut lease.connection)
    .await
    .map_err(|error| failed(&error))?;
    lease.give_back();
    let mark = |row: &SqliteRow| {
        let repaired = Interval { from_us: value(row, "from_us")?, to_us: value(row, "to_us")? };
        Ok((value(row, "gap_id")?, value(row, "instrument_id")?, repaired))
    };
    rows.iter().map(mark).collect()
}

/// Marks whose bars expire are of no use.
pub(super) async fn before_expiry(writer: &Writer, oldest_ms: i64) -> Result<(), StoreError> {
    let mut lease = writer.lease().await?;
    sqlx::query("delete from trade_bars_dirty where to_us / 1000 < ?")
        .bind(oldest_ms)
        .execute(&mut lease.connection)
        .await
        .map_err(|error| failed(&error))?;
    lease.give_back();
    Ok(())
}

/// Makes the bars of an interval anew and gives how many were changed.
pub(super) async fn recompute(
    writer: &Writer,
    instrument_id: i64,
    repaired: Interval,
) -> Result<u64, StoreError> {
    let (first_ms, behind_ms) = repaired.seconds_ms();
    let (mut from_ms, mut changed) = (first_ms, 0);
    while from_ms < behind_ms {
        let to_ms = behind_ms.min(from_ms.saturating_add(PASS_MS));
        let mut lease = writer.lease().await?;
        let pass = async {
            let mut transaction = lease.connection.begin_with(BEGIN).await.map_err(|error| failed(&error))?;
            let known = known(&mut transaction, instrument_id, (from_ms, to_ms)).await?;
            let bars = rebuild(instrument_id, (from_ms, to_ms), repaired, &known);
            let count = bars.len() as u64;
            if count > 0 {
                put(&mut transaction, bars).await?;
            }
            transaction.commit().await.map_err(|error| failed(&error))?;
            Ok::<_, StoreError>(count)
        };
        changed += pass.await?;
        lease.give_back();
        from_ms = to_ms;
    }
    Ok(changed)
}

async fn known(
    within: &mut Transaction<'_, Sqlite>,
    instrument_id: i64,
    (from_ms, to_ms): (i64, i64),
) -> Result<Known, StoreError> {
    let (from_us, to_us) = (from_ms.saturating_mul(1000), to_ms.saturating_mul(1000));
    let mut ask = async |sql: &'static str, from: i64, to: i64| {
        let rows = sqlx::query(sql).bind(instrument_id).bind(from).bind(to).fetch_all(&mut **within).await;
        rows.map_err(|error| failed(&error))
    };
    let trades = ask(
        "select kind, trade_id, event_us, recv_us, price_m, qty_m, price_scale, qty_scale, side from trades_raw \
         where instrument_id = ? and event_us >= ? and event_us < ?",
        from_us.saturating_sub(STREAMED_WITHIN_US),
        to_us.saturating_add(STREAMED_WITHIN_US),
    )
    .await?;
    let bars = ask(
        "select second_ms, trades, partial from trade_1s_raw where instrument_id = ? and second_ms >= ? and second_ms < ?",
        from_ms,
        to_ms,
    )
    .await?;
    let holes = ask(
        "select from_us, coalesce(to_us, 9223372036854775807) as to_us from data_gaps_raw where instrument_id = ? \
         and channel = 'trade' and status not in ('repaired', 'none_missed') \
         and coalesce(to_us, 9223372036854775807) >= ? and from_us < ?",
        from_us,
        to_us,
    )
    .await?;
    let oldest_us: Option<i64> =
        sqlx::query_scalar("select min(event_us) from trades_raw where instrument_id = ?")
            .bind(instrument_id)
            .fetch_one(&mut **within)
            .await
            .map_err(|error| failed(&error))?;
    let bar = |row: &SqliteRow| {
        Ok((
            value(row, "second_ms")?,
            StoredBar { trades: value(row, "trades")?, partial: value(row, "partial")? },
        ))
    };
    let hole =
        |row: &SqliteRow| Ok(Interval { from_us: value(row, "from_us")?, to_us: value(row, "to_us")? });
    Ok(Known {
        trades: trades.iter().map(trade).collect::<Result<_, _>>()?,
        bars: bars.iter().map(bar).collect::<Result<_, StoreError>>()?,
        holes: holes.iter().map(hole).collect::<Result<_, StoreError>>()?,
        oldest_us: oldest_us.unwrap_or(i64::MAX),
    })
}

fn trade(row: &SqliteRow) -> Result<StoredTrade, StoreError> {
    Ok(StoredTrade {
        kind: value(row, "kind")?,
        trade_id: value(row, "trade_id")?,
        event_us: value(row, "event_us")?,
        recv_us: value(row, "recv_us")?,
        price_m: value(row, "price_m")?,
        qty_m: value(row, "qty_m")?,
        price_scale: value(row, "price_scale")?,
        qty_scale: value(row, "qty_scale")?,
        side: value(row, "side")?,
    })
}

/// Writes bars over what is stored of their seconds: no other writing does that.
async fn put(within: &mut Transaction<'_, Sqlite>, bars: Vec<TradeBarRow>) -> Result<(), StoreError> {
    let schema = Table::Trade1s.schema();
    let marks = vec!["?"; schema.columns.len()].join(", ");
    let sql = format!("insert or replace into {} ({}) values ({marks})", schema.name, column_list(schema));
    let batch = Batch::of(bars);
    for row in 0..batch.len() {
        let arguments = bind::rows(&batch, &[row]).map_err(|error| failed(&sqlx::Error::Encode(error)))?;
        sqlx::query_with(AssertSqlSafe(sql.clone()), arguments)
            .execute(&mut **within)
            .await
            .map_err(|error| failed(&error))?;
    }
    Ok(())
}
