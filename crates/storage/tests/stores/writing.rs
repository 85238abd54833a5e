//! What a write stores, counts and refuses.

use std::time::Duration;

use fathom_market::{
    batch::Batch,
    table::{
        CandleRow, CategorySnapshotRow, CollectorStateRow, FundingRow, GapRow, InstrumentRow, OrderbookRow,
        SymbolSnapshotRow, Table, TickerRow,
    },
};
use fathom_storage::{Store, WriteOutcome};

use crate::{
    rows,
    stand::{Kind, Stand, committed, expected},
};

pub(crate) async fn every_table_is_read_back_as_written_and_a_replay_changes_nothing(stand: &Stand) {
    for table in stand.tables() {
        let batch = rows::batch(table, 0..700);
        assert_eq!(stand.store.write(&batch).await, committed(700, 0), "{table:?}");
        let stored = stand.dump(table).await;
        assert_eq!(stored, expected(&batch), "{table:?}");
        assert_eq!(stand.store.write(&batch).await, committed(0, 700), "{table:?}");
        assert_eq!(stand.dump(table).await, stored, "{table:?}");
        assert_eq!(stand.count(table).await, 700, "{table:?}");
    }
}

pub(crate) async fn an_overlapping_batch_adds_what_is_new(stand: &Stand) {
    for table in stand.tables() {
        stand.write(&rows::batch(table, 100..200)).await;
        assert_eq!(stand.store.write(&rows::batch(table, 50..260)).await, committed(110, 100), "{table:?}");
        assert_eq!(stand.dump(table).await, expected(&rows::batch(table, 50..260)), "{table:?}");
    }
}

pub(crate) async fn greatest_and_smallest_values_come_back(stand: &Stand) {
    let widest = rows::dec("9999999999999999.999999999999");
    let least = rows::dec("0.000000000001");
    let funding = |instrument_id, mark, index| FundingRow {
        instrument_id,
        event_us: rows::START_MS * 1000,
        mark_price: mark,
        index_price: Some(index),
        funding_rate: Some(-least),
        next_funding_ms: Some(i64::MAX),
    };
    let fundings = [
        funding(i64::MIN, widest, -widest),
        funding(i64::MAX, least, rows::dec("0.000")),
        FundingRow {
            index_price: None,
            funding_rate: None,
            next_funding_ms: None,
            ..funding(0, -widest, least)
        },
        FundingRow {
            next_funding_ms: Some(i64::MIN),
            ..funding(-1, rows::dec("-0.10"), rows::dec("1.000000000000"))
        },
    ];
    let state = |instrument_id, last| CollectorStateRow {
        instrument_id,
        last_timestamp_ms: last,
        last_updated_us: last,
        ..rows::collector_state(0)
    };
    let gap = GapRow {
        instrument_id: i64::MIN,
        missing: Some(i64::MAX),
        to_us: Some(i64::MAX),
        closed_us: Some(i64::MIN),
        from_id: None,
        to_id: None,
        reason: None,
        ..rows::gap(0)
    };
    let nothing = TickerRow {
        instrument_id: 3,
        event_us: 0,
        last: None,
        bid: None,
        ask: None,
        open: None,
        high: None,
        low: None,
        volume: None,
        quote_volume: None,
        trades: None,
    };
    let batches = [
        Batch::of(fundings),
        Batch::of([state(1, i64::MIN), state(2, i64::MAX), state(3, -1)]),
        Batch::of([gap]),
        Batch::of([nothing]),
    ];
    for batch in batches {
        let rows = batch.len() as u64;
        assert_eq!(stand.store.write(&batch).await, committed(rows, 0), "{batch:?}");
        assert_eq!(stand.dump(batch.table()).await, expected(&batch));
        assert_eq!(stand.store.write(&batch).await, committed(0, rows), "{batch:?}");
    }
}

pub(crate) async fn text_comes_back_to_the_byte_and_tells_keys_apart(stand: &Stand) {
    // Of each of these words a comparison that folds case, accents, widths or trailing blanks makes one of two.
    let words = [
        "a",
        "A",
        " a",
        "ä",
        "a\u{308}",
        "ａ",
        "ß",
        "ss",
        "我踏马来了",
        "🦀🦀",
        "o'neil",
        "\"q\"",
        "\\n",
        "\n",
        "%s",
        "{}",
        "null",
        "",
        "\t",
        "\u{feff}a",
        "a\u{200b}",
    ];
    let gap = |(n, word): (usize, &&str)| GapRow {
        gap_id: (*word).to_owned(),
        reason: Some((*word).to_owned()),
        from_id: Some((*word).to_owned()),
        ..rows::gap(n as i64)
    };
    let gaps = Batch::of(words.iter().enumerate().map(gap));
    assert_eq!(stand.store.write(&gaps).await, committed(words.len() as u64, 0));
    assert_eq!(stand.dump(Table::DataGaps).await, expected(&gaps));
    let named = words.iter().enumerate().map(|(n, word)| InstrumentRow {
        native: (*word).to_owned(),
        symbol: (*word).to_owned(),
        facts: "f".repeat(70_000),
        ..rows::instrument(n as i64)
    });
    let named = Batch::of(named);
    assert_eq!(stand.store.write(&named).await, committed(words.len() as u64, 0));
    assert_eq!(stand.dump(Table::Instruments).await, expected(&named));
    let meme = |name: &str| CategorySnapshotRow { category: name.to_owned(), ..rows::category_snapshot(0) };
    let categories = Batch::of(["MEME", "meme", "Meme"].map(meme));
    assert_eq!(stand.store.write(&categories).await, committed(3, 0));
    let latest = stand.store.history().latest_categories("binance", "SPOT", rows::dec("5")).await.unwrap();
    let names: Vec<_> = latest.iter().map(|row| row.category.as_str()).collect();
    assert_eq!(names, ["MEME", "Meme", "meme"]);
    // A store whose comparisons do not see a blank at the end must not take such a key for another one.
    let blank = Batch::of([rows::category_snapshot(5), meme("MEME ")]);
    if stand.kind == Kind::Mariadb {
        let WriteOutcome::Poison { rows } = stand.store.write(&blank).await else { panic!("not poison") };
        assert_eq!(rows.iter().map(|poison| poison.row).collect::<Vec<_>>(), [1]);
    } else {
        assert_eq!(stand.store.write(&blank).await, committed(2, 0));
    }
}

pub(crate) async fn the_first_of_a_key_stays(stand: &Stand) {
    let version = |n: i64| CategorySnapshotRow { symbol_count: n, ..rows::category_snapshot(1) };
    let other = rows::category_snapshot(2);
    // Twice in one batch, in one that holds other rows, and later.
    let first = Batch::of([version(10), other.clone(), version(11)]);
    assert_eq!(stand.store.write(&first).await, committed(2, 1));
    let later = Batch::of([version(12), rows::category_snapshot(3), version(13)]);
    assert_eq!(stand.store.write(&later).await, committed(1, 2));
    let wanted = Batch::of([version(10), other, rows::category_snapshot(3)]);
    assert_eq!(stand.dump(Table::CategorySnapshots).await, expected(&wanted));
}

pub(crate) async fn the_newest_of_a_key_wins_and_a_tie_replaces(stand: &Stand) {
    let version =
        |updated_us: i64, close: &str| CandleRow { updated_us, close: rows::dec(close), ..rows::candle(1) };
    let steps = [
        (version(100, "1"), committed(1, 0), version(100, "1")),
        (version(100, "1"), committed(0, 1), version(100, "1")),
        (version(100, "1.0"), committed(0, 1), version(100, "1")),
        (version(100, "2"), committed(1, 0), version(100, "2")),
        (version(99, "3"), committed(0, 1), version(100, "2")),
        (version(101, "4"), committed(1, 0), version(101, "4")),
    ];
    for (row, outcome, stored) in steps {
        assert_eq!(stand.store.write(&Batch::of([row.clone()])).await, outcome, "{row:?}");
        assert_eq!(stand.dump(Table::Candles).await, expected(&Batch::of([stored])), "{row:?}");
    }
    // Many of one key in a batch, out of order: the newest stays, the last of a tie.
    let rows =
        [version(103, "5"), version(102, "6"), version(105, "7"), version(104, "8"), version(105, "9")];
    let WriteOutcome::Committed { inserted, duplicate } = stand.write(&Batch::of(rows)).await else { return };
    assert!(inserted >= 1 && inserted + duplicate == 5, "{inserted} and {duplicate}");
    assert_eq!(stand.dump(Table::Candles).await, expected(&Batch::of([version(105, "9")])));
}

pub(crate) async fn versions_of_an_instrument_follow_each_other(stand: &Stand) {
    let version = |from: i64, facts: &str| InstrumentRow {
        valid_from_us: from,
        facts: facts.to_owned(),
        ..rows::instrument(7)
    };
    let ended = |from, facts, to| InstrumentRow { valid_to_us: Some(to), ..version(from, facts) };
    let first = Batch::of([version(10, "a")]);
    assert_eq!(stand.store.write(&first).await, committed(1, 0));
    // The same facts later: nothing. Other facts: the row in force ends. Both in one batch too.
    assert_eq!(stand.store.write(&Batch::of([version(15, "a")])).await, committed(0, 1));
    let both = Batch::of([version(20, "b"), version(25, "b"), version(30, "c")]);
    assert_eq!(stand.store.write(&both).await, committed(2, 1));
    // What is older than the row in force is known already.
    assert_eq!(stand.store.write(&first).await, committed(0, 1));
    assert_eq!(stand.store.write(&Batch::of([version(22, "d")])).await, committed(0, 1));
    assert_eq!(stand.store.write(&both).await, committed(0, 3));
    let wanted = Batch::of([ended(10, "a", 20), ended(20, "b", 30), version(30, "c")]);
    assert_eq!(stand.dump(Table::Instruments).await, expected(&wanted));
    assert_eq!(stand.store.history().instruments().await.unwrap(), vec![version(30, "c")]);
}

pub(crate) async fn decimals_that_do_not_fit_are_named(stand: &Stand) {
    let row =
        |n: i64, text: &str| SymbolSnapshotRow { bid_volume: rows::dec(text), ..rows::symbol_snapshot(n) };
    let batch = Batch::of([
        row(0, "1"),
        row(1, "0.0000000000001"),
        row(2, "10000000000000000"),
        row(3, "9999999999999999"),
        row(4, "-10000000000000000"),
    ]);
    let WriteOutcome::Poison { rows } = stand.store.write(&batch).await else { panic!("not poison") };
    assert_eq!(rows.iter().map(|poison| poison.row).collect::<Vec<_>>(), [1, 2, 4]);
    assert!(rows[0].error.contains("bid_volume"), "{}", rows[0].error);
    assert_eq!(stand.count(Table::SymbolSnapshots).await, 0);
    assert_eq!(stand.store.write(&batch.select(&[0, 3])).await, committed(2, 0));
}

pub(crate) async fn rows_that_no_table_takes_are_named(stand: &Stand) {
    let bad = [2, 150, 299];
    let gap = |n: i64| {
        let status = if bad.contains(&n) { "mislaid" } else { "open" };
        GapRow { status: status.to_owned(), ..rows::gap(n) }
    };
    let batch = Batch::of((0..300).map(gap));
    let WriteOutcome::Poison { rows } = stand.store.write(&batch).await else { panic!("not poison") };
    assert_eq!(rows.iter().map(|poison| poison.row as i64).collect::<Vec<_>>(), bad);
    assert!(rows.iter().all(|poison| !poison.error.is_empty()));
    assert_eq!(stand.count(Table::DataGaps).await, 0);
    assert!(stand.store.status().reachable, "a refused row is no trouble of the store");
    let sound: Vec<usize> = (0..300).filter(|row| !bad.contains(&(*row as i64))).collect();
    assert_eq!(stand.store.write(&batch.select(&sound)).await, committed(297, 0));
}

pub(crate) async fn large_batches_are_stored_whole(stand: &Stand) {
    // More values than a statement of any store has parameters.
    assert_eq!(stand.store.write(&rows::batch(Table::Candles, 0..12_000)).await, committed(12_000, 0));
    assert_eq!(stand.store.write(&rows::batch(Table::Candles, 6_000..18_000)).await, committed(6_000, 6_000));
    // More bytes than a packet of any store.
    let side = format!("[{}[\"1\",\"2\"]]", "[\"61837.63\",\"0.00000005\"],".repeat(8_000));
    let book = |n: i64| OrderbookRow {
        instrument_id: 1,
        timestamp_ms: rows::START_MS + n,
        last_update_id: n,
        bids: side.clone(),
        asks: side.clone(),
    };
    let books = Batch::of((0..80).map(book));
    assert!(books.bytes() > 30_000_000, "{}", books.bytes());
    assert_eq!(stand.store.write(&books).await, committed(80, 0));
    let lengths =
        stand.select(&["min(length(bids))", "max(length(asks))"], Table::OrderbookData.schema().name).await;
    assert_eq!(lengths, vec![vec![Some(side.len().to_string()); 2]]);
}

pub(crate) async fn nothing_is_written_for_nothing(stand: &Stand) {
    for table in stand.tables() {
        assert_eq!(stand.store.write(&Batch::new(table)).await, committed(0, 0), "{table:?}");
        assert_eq!(stand.count(table).await, 0, "{table:?}");
    }
}

/// Writes until it is decided, as the drain of the spool does; gives the rows inserted.
async fn decided(store: &dyn Store, batch: &Batch) -> u64 {
    for _ in 0..200 {
        match store.write(batch).await {
            WriteOutcome::Committed { inserted, duplicate } => {
                assert_eq!(inserted + duplicate, batch.len() as u64);
                return inserted;
            }
            WriteOutcome::Transient { retry_after, .. } => {
                tokio::time::sleep(retry_after.min(Duration::from_millis(50))).await;
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("{:?} is never stored", batch.schema().name)
}

pub(crate) async fn two_writers_of_the_same_rows_store_them_once(stand: &Stand) {
    let other = stand.beside().await;
    for table in [Table::CategorySnapshots, Table::Trade1s, Table::Depth1s] {
        let mut inserted = 0;
        for from in (0..2_000).step_by(200) {
            // Each begins where the other ends, so that they meet.
            let (one, two) =
                (rows::batch(table, from..from + 200), rows::batch(table, from + 100..from + 300));
            let both = tokio::join!(decided(&*stand.store, &one), decided(&*other, &two));
            inserted += both.0 + both.1;
        }
        assert_eq!(inserted, 2_100, "{table:?}");
        assert_eq!(stand.dump(table).await, expected(&rows::batch(table, 0..2_100)), "{table:?}");
    }
    other.close().await;
}

pub(crate) async fn two_writers_of_other_versions_leave_the_newest(stand: &Stand) {
    let other = stand.beside().await;
    let candle = |n: i64, version: i64| CandleRow { updated_us: version, trades: version, ..rows::candle(n) };
    for round in 0..10 {
        // In opposite orders, which is how writers come to wait for each other.
        let one = Batch::of((0..300).map(|n| candle(n, 2 * round)));
        let two = Batch::of((0..300).rev().map(|n| candle(n, 2 * round + 1)));
        tokio::join!(decided(&*stand.store, &one), decided(&*other, &two));
        let wanted = expected(&Batch::of((0..300).map(|n| candle(n, 2 * round + 1))));
        assert_eq!(stand.dump(Table::Candles).await, wanted, "round {round}");
    }
    other.close().await;
}
