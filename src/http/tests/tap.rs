//! Live events over HTTP.

use std::{sync::Arc, time::Duration};

use fathom_actors::fanout::LiveEvent;
use fathom_market::{
    event::{Body, Event, Level, Quote, Side, Trade, TradeId, TradeKind},
    ids::{InstrumentId, Market, VenueId},
    instrument::{Instrument, InstrumentIdx, InstrumentKind, InstrumentStatus},
};
use rust_decimal::Decimal;
use serde_json::Value;

use super::{World, dec};

fn event(body: Body) -> Arc<LiveEvent> {
    let (venue, market) = (VenueId::new("binance"), Market::Spot);
    let instrument = Instrument {
        id: InstrumentId::derive(venue, market, "BTCUSDT"),
        venue,
        market,
        native: "BTCUSDT".into(),
        unified: "BTC/USDT".into(),
        base: "BTC".into(),
        quote: "USDT".into(),
        settle: None,
        kind: InstrumentKind::Spot,
        status: InstrumentStatus::Trading,
        tick_size: dec("0.01"),
        lot_size: dec("0.001"),
        contract_size: Decimal::ONE,
        price_scale: 2,
        qty_scale: 3,
        valid_from_us: 0,
    };
    let event = Event { instrument: InstrumentIdx(0), event_us: None, sent_us: None, recv_us: 5, body };
    Arc::new(LiveEvent { instrument: Arc::new(instrument), event })
}

fn trade() -> Arc<LiveEvent> {
    let (id, kind) = (TradeId::Number(7), TradeKind::Single);
    event(Body::Trade(Trade { id, kind, raw_ids: None, price: 9_125_010, qty: 500, side: Side::Buy }))
}

fn quote() -> Arc<LiveEvent> {
    let level = Level { price: 1, qty: 1 };
    event(Body::Quote(Quote { update_id: Some(3), bid: level, ask: level }))
}

#[actix_web::test]
async fn wanted_events_are_told_exactly_and_the_rest_is_counted() {
    let world = World::new().await;
    let telling = async {
        loop {
            world.state.system.live().publish(quote);
            (0..10).for_each(|_| world.state.system.live().publish(trade));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reply = tokio::select! {
        reply = world.get("/api/v1/tap?channel=trade&market=spot&limit=3&rate=20") => reply,
        () = telling => unreachable!("it never ends"),
    };
    assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, "application/x-ndjson"));
    let lines: Vec<Value> =
        reply.text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (accounts, events): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["type"] == "tap");
    assert_eq!(events.len(), 3);
    for event in events {
        assert_eq!(
            (&event["type"], &event["price"], &event["qty"]),
            (&"trade".into(), &"91250.1".into(), &"0.5".into())
        );
    }
    let end = accounts.last().expect("an end");
    assert_eq!((&end["state"], &end["sent"]), (&"end".into(), &3.into()));
    assert!(end["left_out"].as_u64() > Some(5), "{end}");
    // The inbox of a listener that left is forgotten with the next event.
    world.state.system.live().publish(quote);
    assert!(world.state.system.live().is_idle());
}

#[actix_web::test]
async fn what_cannot_be_tapped_is_named() {
    let world = World::new().await;
    for (query, parameter) in [("channel=trades", "channel"), ("market=margin", "market"), ("rate=0", "rate")]
    {
        let reply = world.get(&format!("/api/v1/tap?{query}")).await;
        assert_eq!(
            (reply.refusal().0, reply.json()["parameter"].as_str()),
            (400, Some(parameter)),
            "{query}"
        );
    }
    assert_eq!(world.get("/api/v1/tap?symbol=NOUSDT").await.refusal(), (404, "SYMBOL_NOT_FOUND".to_owned()));
}
