//! exchangeInfo of both markets (binance sheet, section 5.2).

use fathom_market::ids::Market;
use serde_json::{Value, json};

use super::ApiError;
use super::endpoints::named;
use super::params::Params;
use crate::market::{MarketState, delivery_ms};
use crate::number::scaled;
use crate::universe::{Contract, Listing};
use crate::wire::futures::pair;

pub(crate) fn exchange_info(state: &MarketState, params: &Params, now: i64) -> Result<String, ApiError> {
    let spot = state.market == Market::Spot;
    let chosen: Vec<usize> = match (spot, params.get("symbol"), params.symbols()?) {
        (true, Some(name), _) => vec![state.symbol(name).ok_or_else(ApiError::symbol)?],
        (true, None, Some(names)) => {
            let found = names.iter().map(|name| state.symbol(name).ok_or_else(ApiError::symbol));
            found.collect::<Result<_, _>>()?
        }
        _ => named(state).collect(),
    };
    let short = params.get("showPermissionSets") == Some("false");
    let symbols = chosen.into_iter().map(|index| {
        let status = state.with_cell(index, now, |cell, _| cell.status.clone());
        let listing = &state.roster[index];
        if spot { spot_symbol(listing, &status, short) } else { futures_symbol(listing, &status) }
    });
    let symbols: Vec<Value> = symbols.collect();
    let weight = state.config.limits.weight_per_minute;
    let mut limits = vec![
        json!({"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": weight}),
    ];
    let mut body = json!({"timezone": "UTC", "serverTime": now, "exchangeFilters": [], "symbols": symbols});
    if spot {
        limits.push(json!({"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 300_000}));
    } else {
        body["assets"] = json!([
            {"asset": "USDT", "marginAvailable": true, "autoAssetExchange": "-10000"},
            {"asset": "USDC", "marginAvailable": true, "autoAssetExchange": "-10000"},
        ]);
    }
    body["rateLimits"] = json!(limits);
    Ok(body.to_string())
}

fn price(listing: &Listing, ticks: i64) -> String {
    scaled(i128::from(ticks), listing.price_scale, listing.price_decimals)
}

fn qty(listing: &Listing, lots: i64) -> String {
    scaled(i128::from(lots), listing.qty_scale, listing.qty_decimals)
}

fn spot_symbol(listing: &Listing, status: &str, short: bool) -> Value {
    let permissions = if short { json!([]) } else { json!([["SPOT", "MARGIN", "TRD_GRP_004"]]) };
    json!({
        "symbol": listing.native, "status": status,
        "baseAsset": listing.base, "baseAssetPrecision": 8,
        "quoteAsset": listing.quote, "quotePrecision": 8, "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8, "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"],
        "icebergAllowed": true, "ocoAllowed": true, "otoAllowed": true,
        "quoteOrderQtyMarketAllowed": true, "allowTrailingStop": true, "cancelReplaceAllowed": true,
        "isSpotTradingAllowed": true, "isMarginTradingAllowed": true,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": price(listing, 1), "maxPrice": price(listing, 1_000_000_000_000), "tickSize": price(listing, 1)},
            {"filterType": "LOT_SIZE", "minQty": qty(listing, 1), "maxQty": qty(listing, 900_000_000_000), "stepSize": qty(listing, 1)},
            {"filterType": "ICEBERG_PARTS", "limit": 10},
            {"filterType": "MARKET_LOT_SIZE", "minQty": "0.00000000", "maxQty": qty(listing, 9_000_000_000), "stepSize": "0.00000000"},
            {"filterType": "PERCENT_PRICE_BY_SIDE", "bidMultiplierUp": "5", "bidMultiplierDown": "0.2", "askMultiplierUp": "5", "askMultiplierDown": "0.2", "avgPriceMins": 5},
            {"filterType": "NOTIONAL", "minNotional": "5.00000000", "applyMinToMarket": true, "maxNotional": "9000000.00000000", "applyMaxToMarket": false, "avgPriceMins": 5},
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
        ],
        "permissions": [], "permissionSets": permissions,
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
    })
}

fn futures_symbol(listing: &Listing, status: &str) -> Value {
    // A contract that waits for its listing has no type yet (recorded 2021).
    let contract = if status == "PENDING_TRADING" { "" } else { listing.contract.name() };
    json!({
        "symbol": listing.native, "pair": pair(listing), "contractType": contract,
        "deliveryDate": delivery_ms(listing), "onboardDate": listing.onboard_ms, "status": status,
        "maintMarginPercent": "2.5000", "requiredMarginPercent": "5.0000",
        "baseAsset": listing.base, "quoteAsset": listing.quote, "marginAsset": listing.margin,
        // Not the tick and the step: precisions are wider, as the venue warns.
        "pricePrecision": listing.price_scale.max(2), "quantityPrecision": listing.qty_scale, "baseAssetPrecision": 8, "quotePrecision": 8,
        "underlyingType": if listing.contract == Contract::TradFi { "COMMODITY" } else { "COIN" },
        "underlyingSubType": ["PoW"], "settlePlan": 0, "triggerProtect": "0.0500",
        "liquidationFee": "0.012500", "marketTakeBound": "0.05", "maxMoveOrderLimit": 10000,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": price(listing, 1), "maxPrice": price(listing, 1_000_000_000_000), "tickSize": price(listing, 1)},
            {"filterType": "LOT_SIZE", "minQty": qty(listing, 1), "maxQty": qty(listing, 1_000_000_000), "stepSize": qty(listing, 1)},
            {"filterType": "MARKET_LOT_SIZE", "minQty": qty(listing, 1), "maxQty": qty(listing, 100_000_000), "stepSize": qty(listing, 1)},
            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
            {"filterType": "MAX_NUM_ALGO_ORDERS", "limit": 10},
            {"filterType": "MIN_NOTIONAL", "notional": "5"},
            {"filterType": "PERCENT_PRICE", "multiplierUp": "1.0500", "multiplierDown": "0.9500", "multiplierDecimal": "4"},
        ],
        "orderTypes": ["LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"], "permissionSets": ["GRID", "COPY"],
    })
}
