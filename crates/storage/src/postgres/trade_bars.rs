//! Trade bars made anew after a repair: see [`crate::trade_bars`]. Marks are set by a trigger on the gap ledger.

use fathom_market::{
    batch::{Batch, Column},
    table::{Table, TradeBarRow},
};
use sqlx::{AssertSqlSafe, PgPool, postgres::PgRow};

use super::{
    bind,
    classify::store_error,
    connect::{Lease, lease},
    layout::key,
    row::value,
    statements::column_list,
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
pub(super) async fn roll_up(pool: &PgPool, limit: u64) -> Result<u64, StoreError> {
    let marks = marks(pool, limit).await?;
    for (gap_id, instrument_id, repaired) in &marks {
        recompute(pool, *instrument_id, *repaired).await?;
        sqlx::query("delete from trade_bars_dirty where gap_id = $1 and from_us >= $2 and to_us <= $3")
            .bind(gap_id)
            .bind(repaired.from_us)
            .bind(repaired.to_us)
            .execute(pool)
            .await
            .map_err(|error| failed(&error))?;
    }
    Ok(marks.len() as u64)
}

async fn marks(pool: &PgPool, limit: u64) -> Result<Vec<(String, i64, Interval)>, StoreError> {
    let rows = sqlx::query(
        "select gap_id, instrument_id, from_us, to_us from trade_bars_dirty d \
         where exists (select 1 from trade_1s_raw b \
             where b.instrument_id = d.instrument_id and b.second_ms > (d.to_us + $1) / 1000) \
         order by to_us limit $2",
    )
    .bind(STREAMED_WITHIN_US)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(pool)
    .await
    .map_err(|error| failed(&error))?;
    let mark = |row: &PgRow| {
        let repaired = Interval { from_us: value(row, "from_us")?, to_us: value(row, "to_us")? };
        Ok((value(row, "gap_id")?, value(row, "instrument_id")?, repaired))
    };
    rows.iter().map(mark).collect()
}

/// Marks whose bars expire are of no use.
pub(super) async fn before_expiry(pool: &PgPool, oldest_ms: i64) -> Result<(), StoreError> {
    sqlx::query("delete from trade_bars_dirty where to_us / 1000 < $1")
        .bind(oldest_ms)
        .execute(pool)
        .await
        .map_err(|error| failed(&error))?;
    Ok(())
}

/// Makes the bars of an interval anew and gives how many were changed.
pub(super) async fn recompute(
    pool: &PgPool,
    instrument_id: i64,
    repaired: Interval,
) -> Result<u64, StoreError> {
    let (first_ms, behind_ms) = repaired.seconds_ms();
    let (mut from_ms, mut changed) = (first_ms, 0);
    while from_ms < behind_ms {
        let to_ms = behind_ms.min(from_ms.saturating_add(PASS_MS));
        let mut lease = lease(pool).await?;
        lease.run("begin").await.map_err(|error| failed(&error))?;
        let known = known(&mut lease, instrument_id, (from_ms, to_ms)).await?;
        let bars = rebuild(instrument_id, (from_ms, to_ms), repaired, &known);
        changed += bars.len() as u64;
        if !bars.is_empty() {
            put(&mut lease, bars).await?;
        }
        lease.run("commit").await.map_err(|error| failed(&error))?;
        lease.give_back();
        from_ms = to_ms;
    }
    Ok(changed)
}

async fn known(
    lease: &mut Lease,
    instrument_id: i64,
    (from_ms, to_ms): (i64, i64),
) -> Result<Known, StoreError> {
    let (from_us, to_us) = (from_ms.saturating_mul(1000), to_ms.saturating_mul(1000));
    let mut ask = async |sql: &'static str, from: i64, to: i64| {
        let rows =
            sqlx::query(sql).bind(instrument_id).bind(from).bind(to).fetch_all(lease.connection()).await;
        rows.map_err(|error| failed(&error))
    };
    let trades = ask(
        "select kind, trade_id, event_us, recv_us, price_m, qty_m, price_scale, qty_scale, side from trades_raw \
         where instrument_id = $1 and event_us >= $2 and event_us < $3",
        from_us.saturating_sub(STREAMED_WITHIN_US),
        to_us.saturating_add(STREAMED_WITHIN_US),
    )
    .await?;
    let bars = ask(
        "select second_ms, trades, partial from trade_1s_raw where instrument_id = $1 and second_ms >= $2 and second_ms < $3",
        from_ms,
        to_ms,
    )
    .await?;
    let holes = ask(
        "select from_us, coalesce(to_us, 9223372036854775807) as to_us from data_gaps_raw where instrument_id = $1 \
         and channel = 'trade' and status not in ('repaired', 'none_missed') \
         and coalesce(to_us, 9223372036854775807) >= $2 and from_us < $3",
        from_us,
        to_us,
    )
    .await?;
    let oldest_us: Option<i64> =
        sqlx::query_scalar("select min(event_us) from trades_raw where instrument_id = $1")
            .bind(instrument_id)
            .fetch_one(lease.connection())
            .await
            .map_err(|error| failed(&error))?;
    let bar = |row: &PgRow| {
        Ok((
            value(row, "second_ms")?,
            StoredBar { trades: value(row, "trades")?, partial: value(row, "partial")? },
        ))
    };
    let hole = |row: &PgRow| Ok(Interval { from_us: value(row, "from_us")?, to_us: value(row, "to_us")? });
    Ok(Known {
        trades: trades.iter().map(trade).collect::<Result<_, _>>()?,
        bars: bars.iter().map(bar).collect::<Result<_, StoreError>>()?,
        holes: holes.iter().map(hole).collect::<Result<_, StoreError>>()?,
        oldest_us: oldest_us.unwrap_or(i64::MAX),
    })
}

fn trade(row: &PgRow) -> Result<StoredTrade, StoreError> {
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
async fn put(lease: &mut Lease, bars: Vec<TradeBarRow>) -> Result<(), StoreError> {
    let schema = Table::Trade1s.schema();
    let places: Vec<String> = (1..=schema.columns.len()).map(|at| format!("${at}")).collect();
    let values = schema.columns.iter().filter(|column| !schema.key.contains(&column.name));
    let set: Vec<String> = values.map(|column| format!("{0} = excluded.{0}", column.name)).collect();
    let sql = format!(
        "insert into {} ({}) values ({}) on conflict ({}) do update set {}",
        schema.name,
        column_list(schema),
        places.join(", "),
        key(schema).join(", "),
        set.join(", ")
    );
    let batch = Batch::of(bars);
    let columns: Vec<&Column> = batch.columns().iter().collect();
    for row in 0..batch.len() {
        let arguments = bind::arguments(&columns, row).map_err(|error| failed(&error))?;
        sqlx::query_with(AssertSqlSafe(sql.clone()), arguments)
            .execute(lease.connection())
            .await
            .map_err(|error| failed(&error))?;
    }
    Ok(())
}
