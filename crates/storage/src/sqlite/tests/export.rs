//! Whole tables out of the store, and the plans by which the API's questions are answered.

use super::super::{gaps, history};
use super::*;
use crate::export::{Key, Page, Span, time_of};

/// Every page of a table, of so many rows.
async fn pages(store: &SqliteStore, table: Table, span: Span, limit: u32) -> Vec<Batch> {
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = store.export(&Page { table, after: after.clone(), span, limit }).await.unwrap();
        let Some(last) = Key::last(&page) else { return pages };
        assert_ne!(Some(&last), after.as_ref(), "a page goes on");
        after = Some(last);
        pages.push(page);
    }
}

#[tokio::test]
async fn every_table_comes_out_as_it_went_in_whatever_the_page() {
    let (_directory, from) = store().await;
    let (_elsewhere, to) = store().await;
    for table in Table::ALL {
        from.write(&rows::batch(*table, 0..23)).await;
        let pages = pages(&from, *table, Span::default(), 5).await;
        assert_eq!(pages.iter().map(Batch::len).collect::<Vec<_>>(), [5, 5, 5, 5, 3], "{table:?}");
        for page in &pages {
            assert_eq!(to.write(page).await, committed(page.len() as u64, 0), "{table:?}");
        }
        assert_eq!(dump(&from, *table).await, dump(&to, *table).await, "{table:?}");
    }
}

#[tokio::test]
async fn a_span_begins_with_its_first_time_and_ends_before_its_last() {
    let (_directory, store) = store().await;
    for table in Table::ALL.iter().filter(|table| time_of(**table).is_some()) {
        let all = rows::batch(*table, 0..9);
        store.write(&all).await;
        let (time, per_ms) = time_of(*table).unwrap();
        let Some(Column::Int(times)) = all.column(time) else { panic!("{time} is a number") };
        let mut times: Vec<i64> = times.iter().map(|time| time / per_ms).collect();
        times.sort_unstable();
        let span = Span { since_ms: Some(times[4]), until_ms: Some(times[4] + 1) };
        let inside = times.iter().filter(|time| **time == times[4]).count() as u64;
        assert_eq!(store.count_in(*table, span).await.unwrap(), inside, "{table:?}");
        let read: usize = pages(&store, *table, span, 2).await.iter().map(Batch::len).sum();
        assert_eq!(read as u64, inside, "{table:?}");
    }
}

/// A page that goes on after a key is looked up, not counted up to.
#[tokio::test]
async fn pages_and_the_questions_of_the_interface_use_an_index() {
    let (_directory, store) = store().await;
    for table in Table::ALL {
        let after = Key::last(&rows::batch(*table, 0..1));
        let page = Page { table: *table, after, span: Span::default(), limit: 10 };
        let sql = crate::export::rows(&page, crate::export::Compare::Rows, table.schema().key).numbered().sql;
        let plan = plan(&store, &sql).await;
        assert!(plan.contains("SEARCH") && plan.contains(">"), "{table:?}: {plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{table:?}: {plan}");
    }
    for table in [Table::CategorySnapshots, Table::SymbolSnapshots, Table::Candles] {
        let schema = table.schema();
        let (time, names) = schema.key.split_last().unwrap();
        for ascending in [true, false] {
            let plan = plan(&store, &history::series(schema, names, time, ascending)).await;
            // The whole key is looked up, and its last column is a range that need not be sorted.
            let wanted = format!("{}=? AND {time}>? AND {time}<?", names.last().unwrap());
            assert!(plan.contains("SEARCH") && plan.contains(&wanted), "{table:?}: {plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{table:?}: {plan}");
        }
    }
    let (ledger, _) = gaps::question(&crate::GapQuery { limit: 9, ..Default::default() }).unwrap();
    let plan = plan(&store, &ledger).await;
    assert!(plan.contains("USING INDEX data_gaps_raw_by_time"), "{plan}");
}

async fn plan(store: &SqliteStore, sql: &str) -> String {
    let rows = query(store, &format!("explain query plan {sql}")).await;
    rows.iter().map(|row| row.get::<String, _>("detail")).collect::<Vec<_>>().join("; ")
}
