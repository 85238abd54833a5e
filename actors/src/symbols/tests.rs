//! When a change is done.

use fathom_market::{ids::Market, sample::SampleState};

use super::*;
use crate::{
    directory::BookCell,
    fixtures::{BINANCE, BookBench, MINUTE_MS, MINUTE_US, World, instrument, sample},
    kernel::OperationState,
    market_supervisor::tests::{market, plan_of},
};

const NOWHERE: ([u8; 4], u16) = ([127, 0, 0, 1], 1);

#[actix_rt::test]
async fn a_change_is_done_when_its_books_are_and_fails_when_they_never_are() {
    let world = World::new(MINUTE_US);
    let directory = Arc::new(Directory::default());
    let operations = world.control.operation_log().clone();
    let markets = [market(NOWHERE.into(), &["BTCUSDT"])];
    let symbols = Symbols::new(&markets, None, directory.clone(), operations, world.clock.clone());
    let desk = symbols.desk(BINANCE, Market::Spot).unwrap().clone();
    let begin = |command: &Command| symbols.begin(command, Reach::default(), "test");
    let add = Command::Add { symbols: vec!["ETHUSDT".into()], tier: None };
    assert_eq!(begin(&add).unwrap_err().code(), "not_ready");

    let runtime = Arc::new(plan_of(&["BTC", "ETH"], &world.clock));
    directory.put_runtime(runtime.clone());
    let state = |operation: &OperationId| {
        symbols.settle();
        let operation = world.control.operation(operation).unwrap();
        (operation.state, operation.error)
    };
    let done = begin(&add).unwrap();
    symbols.save(&done).await.unwrap();
    assert_eq!(state(&done), (OperationState::Running, None), "nobody has planned it");
    let (version, wanted) = desk.wanted();
    assert_eq!(wanted.iter().map(|wish| wish.symbol.as_str()).collect::<Vec<_>>(), ["BTCUSDT", "ETHUSDT"]);
    desk.settle(version);
    assert_eq!(state(&done).0, OperationState::Running, "it has no book");
    let eth = instrument(Market::Spot, "ETH");
    let (bench, cell) = (BookBench::new(&world, &eth).await, Arc::new(BookCell::new(eth.clone())));
    directory.put_book(bench.entry(cell.clone()));
    assert_eq!(state(&done).0, OperationState::Running, "its book is not live");
    cell.publish(Arc::new(sample(&eth, MINUTE_MS, "1", "1", "1")), MINUTE_US);
    assert_eq!(cell.state(MINUTE_US), SampleState::Live);
    assert_eq!(state(&done), (OperationState::Done, None));

    let gone = begin(&Command::Remove { symbols: vec!["ETH/USDT".into()] }).unwrap();
    desk.settle(desk.wanted().0);
    assert_eq!(state(&gone).0, OperationState::Accepted, "its book is there");
    directory.remove_book(&eth);
    assert_eq!(state(&gone), (OperationState::Done, None));

    let late = begin(&add).unwrap();
    desk.settle(desk.wanted().0);
    assert_eq!(state(&late).0, OperationState::Accepted);
    world.time.advance(DONE_WITHIN + Duration::from_secs(1));
    let (state, error) = state(&late);
    assert_eq!(state, OperationState::Failed);
    assert!(error.as_deref().is_some_and(|error| error.contains("ETHUSDT on binance spot")), "{error:?}");
}
