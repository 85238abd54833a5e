//! A recorded session of the real exchange on each store: the same trades, to the last digit and the microsecond.

use std::collections::BTreeMap;

use fathom_testkit::{Database, Server};
use rust_decimal::Decimal;
use tempfile::TempDir;

use super::db::ServerDb;
use crate::{
    harness::{check, eventually},
    recorded::{SPOT, STORED_WITHIN, Trade, Trades, Truth, final_book, recording, service_on, simulator},
};

#[test]
fn a_recorded_session_is_the_same_on_postgres() {
    replayed(Server::Postgres, "postgres");
}

#[test]
fn a_recorded_session_is_the_same_on_mariadb() {
    replayed(Server::Mariadb, "mariadb");
}

fn replayed(server: Server, kind: &str) {
    let Some(files) = recording(&SPOT) else { return };
    let Some(database) = Database::fresh(server) else { return };
    let truth = Truth::read(SPOT.market, &files);
    let folder = TempDir::new().expect("folder");
    let simulator = simulator(folder.path(), &SPOT, &files);
    let mut settings = vec![format!("store.kind={kind}"), format!("store.url={}", database.url())];
    if server == Server::Mariadb {
        // Raw ticks are not kept there; bars and stored books are.
        settings.push("raw.trades=false".to_owned());
    }
    let service = service_on(folder.path(), &SPOT, &simulator, &settings);
    let book = final_book(&service, &SPOT, truth.id);
    assert_eq!(truth.book().difference(&book), None, "recorded and served book differ");
    let sent = simulator.trades(SPOT.market);
    let first = sent.iter().filter(|trade| !trade.to.is_empty()).map(|trade| trade.id).min();
    let expected: Trades =
        truth.trades.range(first.expect("trades were sent")..).map(|(id, trade)| (*id, *trade)).collect();
    let db = ServerDb::new(server, database.url());
    if server == Server::Mariadb {
        bars_hold_all_trades(&db, &expected);
    } else {
        eventually("every trade is stored as it was recorded", STORED_WITHIN, || {
            let stored = trades(&db);
            check(stored == expected, || format!("{} of {}", stored.len(), expected.len()))
        });
    }
    service.stop("TERM");
}

fn trades(db: &ServerDb) -> Trades {
    let columns = ["trade_id", "event_us", "price_m", "price_scale", "qty_m", "qty_scale", "side"];
    let rows = db.rows(&columns, "trades_raw where kind = 'trade'");
    let read = |row: &Vec<Option<String>>| {
        let number = |at: usize| row[at].as_deref().unwrap_or("").parse::<i64>().expect("a number");
        let decimal = |at: usize| Decimal::new(number(at), number(at + 1) as u32);
        let side = row[6].as_deref() == Some("sell");
        let trade = Trade { price: decimal(2), qty: decimal(4), ts_ms: number(1) / 1000, taker_sold: side };
        (number(0), trade)
    };
    rows.iter().map(read).collect::<BTreeMap<_, _>>()
}

/// Bars are made as trades arrive; all of them together hold each trade once.
fn bars_hold_all_trades(db: &ServerDb, expected: &Trades) {
    let volume: Decimal = expected.values().map(|trade| trade.qty).sum();
    let sold: Decimal = expected.values().filter(|trade| trade.taker_sold).map(|trade| trade.qty).sum();
    let quote: Decimal = expected.values().map(|trade| trade.qty * trade.price).sum();
    let wanted = [Decimal::from(expected.len()), volume, sold, quote];
    eventually("the bars hold every recorded trade", STORED_WITHIN, || {
        let sums = ["sum(trades)", "sum(volume)", "sum(sell_volume)", "sum(quote_volume)"];
        let rows = db.rows(&sums, "trade_1s_raw");
        let read =
            |cell: &Option<String>| cell.as_deref().unwrap_or("0").parse::<Decimal>().expect("a decimal");
        let stored: Vec<Decimal> = rows[0].iter().map(read).collect();
        check(stored == wanted, || format!("{stored:?} of {wanted:?}"))
    });
}
