//! `/api/categories/{category}`, `/api/categories/all` and `/api/stats/categories`: minutes from the store, the newest
//! minute as published, live values from the aggregators.

use std::collections::BTreeSet;

use actix_web::web::{Path, ServiceConfig};
use fathom_actors::{aggregator::GetLive, kernel::AskError};
use fathom_delivery::cache::CategoryRange;
use fathom_market::{
    category::{CategoryKey, CategoryRule, category_row},
    ids::{Market, Scope},
    table::CategorySnapshotRow,
};
use fathom_storage::{CategoryQuery, GapQuery, read::CategoryStat};
use futures_util::future::join_all;
use rust_decimal::Decimal;
use serde::Serialize;

use super::{
    AppState, Shared,
    coverage::RangeCoverage,
    error::{Answer, ApiError, ok},
    params::{Params, Range},
    read,
    view::{LatestPoint, Num, SeriesPoint, in_order},
};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(read("/api/stats/categories", stats));
    config.service(read("/api/categories/{category}", category));
}

/// What is asked of which books.
pub(super) struct Subject {
    pub(super) scope: Scope,
    pub(super) market: Market,
    pub(super) depth: Decimal,
}

impl Subject {
    pub(super) fn read(state: &AppState, params: &Params) -> Result<Self, ApiError> {
        let depth = params.depth(&state.system.settings().depth.levels)?;
        Ok(Self { depth, market: params.market()?, scope: params.scope(state)? })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Series<'a> {
    category: &'a str,
    market_type: &'static str,
    exchange: &'static str,
    depth: Num,
    data: Vec<SeriesPoint>,
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    coverage: Option<RangeCoverage>,
    timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    live: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Latest {
    market_type: &'static str,
    exchange: &'static str,
    depth: Num,
    #[serde(serialize_with = "ordered")]
    categories: Vec<(Box<str>, LatestPoint)>,
    timestamp: i64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    live: bool,
}

#[allow(clippy::ptr_arg, reason = "serde passes the field as it is")]
fn ordered<S: serde::Serializer>(
    pairs: &Vec<(Box<str>, LatestPoint)>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    in_order(pairs, serializer)
}

async fn category(state: Shared, name: Path<String>, params: Params) -> Answer {
    if name.eq_ignore_ascii_case("all") {
        return all(&state, &params).await;
    }
    let rule = rule(&state, &name)?;
    let subject = Subject::read(&state, &params)?;
    let range = params.page(state.max_rows)?;
    let live = params.flag("live")?;
    let rows = if live {
        live_row(&state, &subject, &rule.name).await?.into_iter().collect()
    } else {
        let query = CategoryQuery {
            scope: subject.scope.as_str().to_owned(),
            market_type: subject.market.label().to_owned(),
            category: rule.name.to_string(),
            depth: subject.depth,
            from_ms: range.from_ms,
            to_ms: range.to_ms,
            limit: range.limit,
        };
        stored(&state, &query).await?
    };
    let coverage = if live { None } else { Some(covered(&state, &subject, rule, range, &rows).await) };
    let ends = (rows.first().map(|row| row.timestamp_ms), rows.last().map(|row| row.timestamp_ms));
    ok(&Series {
        next: range.next(rows.len(), ends).filter(|_| !live),
        category: &rule.name,
        market_type: subject.market.label(),
        exchange: subject.scope.as_str(),
        depth: Num(subject.depth),
        count: rows.len(),
        data: rows.iter().map(SeriesPoint::from).collect(),
        coverage,
        timestamp: state.now_ms(),
        live,
    })
}

/// The category of this name, in any case.
pub(super) fn rule<'a>(state: &'a AppState, name: &str) -> Result<&'a CategoryRule, ApiError> {
    let categories = &state.system.settings().depth.categories;
    categories.get(name.trim()).ok_or_else(|| {
        let valid: Vec<&str> = categories.names().collect();
        ApiError::bad("INVALID_CATEGORY").with("validCategories", valid)
    })
}

/// Minutes from the cache, where nothing can be missing in it; else from the store.
async fn stored(state: &AppState, query: &CategoryQuery) -> Result<Vec<CategorySnapshotRow>, ApiError> {
    if let Some(cache) = state.system.cache() {
        let range = CategoryRange {
            scope: &query.scope,
            market: &query.market_type,
            category: &query.category,
            depth: query.depth,
            from_ms: query.from_ms,
            to_ms: query.to_ms,
            limit: query.limit,
        };
        if let Some(rows) = cache.category_range(&range, state.now_ms()).await {
            return Ok(rows);
        }
    }
    Ok(state.system.store().history().category_range(query).await?)
}

/// What the members' books may have missed while these minutes were taken.
async fn covered(
    state: &AppState,
    subject: &Subject,
    rule: &CategoryRule,
    range: Range,
    rows: &[CategorySnapshotRow],
) -> RangeCoverage {
    let query = GapQuery {
        venue: match subject.scope {
            Scope::Venue(venue) => Some(venue.to_string()),
            Scope::All => None,
        },
        market: Some(subject.market.to_string()),
        channel: Some("depth".into()),
        ..GapQuery::default()
    };
    let markets = state.system.directory().markets();
    let instruments = markets.iter().flat_map(|entry| entry.table.iter()).map(|(_, one)| one);
    let members: BTreeSet<_> = instruments.filter(|one| rule.contains(&one.base)).map(|one| one.id).collect();
    let times = (rows.first().map(|row| row.timestamp_ms), rows.last().map(|row| row.timestamp_ms));
    RangeCoverage::of_those(state, query, range.reach(times), |gap| members.contains(&gap.instrument)).await
}

async fn all(state: &AppState, params: &Params) -> Answer {
    let subject = Subject::read(state, params)?;
    let live = params.flag("live")?;
    let rows = if live { live_rows(state, &subject).await? } else { newest_rows(state, &subject).await? };
    ok(&Latest {
        market_type: subject.market.label(),
        exchange: subject.scope.as_str(),
        depth: Num(subject.depth),
        categories: rows.iter().map(|row| (row.category.as_str().into(), LatestPoint::from(row))).collect(),
        timestamp: state.now_ms(),
        live,
    })
}

/// The newest row of each configured category: as published, or as stored by an earlier process.
async fn newest_rows(state: &AppState, subject: &Subject) -> Result<Vec<CategorySnapshotRow>, ApiError> {
    let names: Vec<&str> = state.system.settings().depth.categories.names().collect();
    let mut found: Vec<Option<CategorySnapshotRow>> =
        names.iter().map(|name| published(state, subject, name)).collect();
    if found.iter().any(Option::is_none) {
        let (scope, market) = (subject.scope.as_str(), subject.market.label());
        match state.system.store().history().latest_categories(scope, market, subject.depth).await {
            Ok(stored) => fill(&names, &mut found, stored),
            // What is published is answered even while the store is away.
            Err(error) if found.iter().any(Option::is_some) => tracing::warn!(%error, "newest categories"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found.into_iter().flatten().collect())
}

fn published(state: &AppState, subject: &Subject, name: &str) -> Option<CategorySnapshotRow> {
    let rows = state.system.directory().latest(subject.scope, subject.market, name)?;
    rows.iter().find(|row| row.depth == subject.depth).cloned()
}

fn fill(names: &[&str], found: &mut [Option<CategorySnapshotRow>], stored: Vec<CategorySnapshotRow>) {
    for row in stored {
        if let Some(at) = names.iter().position(|name| *name == row.category) {
            found[at].get_or_insert(row);
        }
    }
}

async fn live_rows(state: &AppState, subject: &Subject) -> Result<Vec<CategorySnapshotRow>, ApiError> {
    let names: Vec<&str> = state.system.settings().depth.categories.names().collect();
    let asked = join_all(names.iter().map(|name| live_row(state, subject, name))).await;
    let rows: Result<Vec<_>, ApiError> = asked.into_iter().collect();
    Ok(rows?.into_iter().flatten().collect())
}

/// The category as its aggregator folds it now; `None` where nothing of the market is collected.
async fn live_row(
    state: &AppState,
    subject: &Subject,
    name: &str,
) -> Result<Option<CategorySnapshotRow>, ApiError> {
    let Some(aggregator) = state.system.aggregator(subject.market, name) else { return Ok(None) };
    let levels = &state.system.settings().depth.levels;
    let at = levels.iter().position(|depth| *depth == subject.depth);
    let asked: Result<_, AskError> =
        aggregator.ask(GetLive { scope: subject.scope }, state.ask_deadline).await;
    let aggregates = asked?;
    let Some(aggregate) = at.and_then(|at| aggregates.get(at)).filter(|found| found.member_count > 0) else {
        return Ok(None);
    };
    let now_us = state.now_us();
    let key = CategoryKey {
        scope: subject.scope,
        market: subject.market,
        category: name,
        depth: subject.depth,
        boundary_ms: now_us / 1000,
    };
    category_row(aggregate, &key, now_us).map(|fitted| Some(fitted.row)).map_err(ApiError::internal)
}

#[derive(Serialize)]
struct Stats {
    stats: Vec<CategoryStats>,
    timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CategoryStats {
    category: String,
    market_type: String,
    #[serde(rename = "_count")]
    count: u64,
    #[serde(rename = "_min")]
    min: At,
    #[serde(rename = "_max")]
    max: At,
}

/// A time, milliseconds.
#[derive(Serialize)]
struct At {
    timestamp: i64,
}

async fn stats(state: Shared, params: Params) -> Answer {
    let scope = params.scope(&state)?;
    let stored = state.system.store().history().category_stats(scope.as_str()).await?;
    let limit = params.range(state.max_rows)?.limit as usize;
    let after = params.get("after").and_then(|text| text.split_once(':'));
    if let (None, Some(text)) = (after, params.get("after")) {
        return Err(ApiError::parameter("after", text, "the next of a page"));
    }
    // In the order of the store: by name, and spot before futures.
    let follows = |stat: &CategoryStat| {
        after
            .is_none_or(|(name, market)| (stat.category.as_str(), market) > (name, stat.market_type.as_str()))
    };
    let mut stored: Vec<CategoryStat> = stored.into_iter().filter(follows).collect();
    let more = stored.len() > limit;
    stored.truncate(limit);
    let last = stored.last().filter(|_| more);
    let next = last.map(|stat| format!("{}:{}", stat.category, stat.market_type));
    let stats = stored.into_iter().map(|stat| CategoryStats {
        category: stat.category,
        market_type: stat.market_type,
        count: stat.count,
        min: At { timestamp: stat.first_ms },
        max: At { timestamp: stat.last_ms },
    });
    ok(&Stats { stats: stats.collect(), timestamp: state.now_ms(), next })
}
