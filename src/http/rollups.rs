//! `/api/v1/categories/{category}/rollup`: hours and days of a category.

use actix_web::web::{Path, ServiceConfig};
use fathom_storage::{CategoryRollup, RollupQuery, RollupWidth};
use rust_decimal::Decimal;
use serde::Serialize;

use super::{
    Shared,
    categories::{Subject, rule},
    error::{Answer, ApiError, ok},
    params::Params,
    read,
    view::text,
};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(read("/api/v1/categories/{category}/rollup", rollup));
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Series<'a> {
    category: &'a str,
    market_type: &'static str,
    exchange: &'static str,
    depth: String,
    width: &'static str,
    data: Vec<Bucket>,
    count: usize,
    next: Option<String>,
    timestamp: i64,
}

/// An hour or a day; times in milliseconds, volumes in dollars.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bucket {
    bucket: i64,
    bid_volume: Spread,
    ask_volume: Spread,
    avg_price: Option<String>,
    avg_symbol_count: String,
    count: u64,
}

#[derive(Serialize)]
struct Spread {
    avg: String,
    max: String,
    min: String,
}

impl From<[Decimal; 3]> for Spread {
    fn from([avg, max, min]: [Decimal; 3]) -> Self {
        Self { avg: text(avg), max: text(max), min: text(min) }
    }
}

impl From<&CategoryRollup> for Bucket {
    fn from(row: &CategoryRollup) -> Self {
        Self {
            bucket: row.bucket_ms,
            bid_volume: row.bid_volume_usd.into(),
            ask_volume: row.ask_volume_usd.into(),
            avg_price: row.avg_price.map(text),
            avg_symbol_count: text(row.avg_symbol_count),
            count: row.count,
        }
    }
}

async fn rollup(state: Shared, name: Path<String>, params: Params) -> Answer {
    let rule = rule(&state, &name)?;
    let subject = Subject::read(&state, &params)?;
    let (word, width) = width(&params)?;
    let range = params.page(state.max_rows)?;
    let query = RollupQuery {
        scope: subject.scope.as_str().to_owned(),
        market_type: subject.market.label().to_owned(),
        category: rule.name.to_string(),
        depth: subject.depth,
        width,
        from_ms: range.from_ms,
        to_ms: range.to_ms,
        limit: range.limit,
    };
    let rows = state.system.store().history().category_rollup(&query).await?;
    let ends = (rows.first().map(|row| row.bucket_ms), rows.last().map(|row| row.bucket_ms));
    ok(&Series {
        category: &rule.name,
        market_type: subject.market.label(),
        exchange: subject.scope.as_str(),
        depth: text(subject.depth),
        width: word,
        count: rows.len(),
        data: rows.iter().map(Bucket::from).collect(),
        next: range.next(rows.len(), ends),
        timestamp: state.now_ms(),
    })
}

fn width(params: &Params) -> Result<(&'static str, RollupWidth), ApiError> {
    match params.get("width") {
        None | Some("1h") => Ok(("1h", RollupWidth::Hour)),
        Some("1d") => Ok(("1d", RollupWidth::Day)),
        Some(other) => Err(ApiError::parameter("width", other, "1h or 1d")),
    }
}
