//! Whole tables out of the store.

use super::*;
use crate::export::{Key, Page, Span, time_of};

/// Every page of a table, of so many rows.
async fn pages(store: &MysqlStore, table: Table, span: Span, limit: u32) -> Vec<Batch> {
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
    let Some((_database, from)) = store().await else { return };
    let Some((_elsewhere, to)) = store().await else { return };
    for table in kept() {
        from.write(&rows::batch(table, 0..23)).await;
        let pages = pages(&from, table, Span::default(), 5).await;
        assert_eq!(pages.iter().map(Batch::len).collect::<Vec<_>>(), [5, 5, 5, 5, 3], "{table:?}");
        for page in &pages {
            assert_eq!(to.write(page).await, committed(page.len() as u64, 0), "{table:?}");
        }
        assert_eq!(dump(&from, table).await, dump(&to, table).await, "{table:?}");
    }
    for table in unsupported_tables() {
        assert!(pages(&from, *table, Span::default(), 5).await.is_empty());
        assert_eq!(from.count_in(*table, Span::default()).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_span_begins_with_its_first_time_and_ends_before_its_last() {
    let Some((_database, store)) = store().await else { return };
    for table in kept().filter(|table| time_of(*table).is_some()) {
        let all = rows::batch(table, 0..9);
        store.write(&all).await;
        let (time, per_ms) = time_of(table).unwrap();
        let Some(Column::Int(times)) = all.column(time) else { panic!("{time} is a number") };
        let mut times: Vec<i64> = times.iter().map(|time| time / per_ms).collect();
        times.sort_unstable();
        let span = Span { since_ms: Some(times[4]), until_ms: Some(times[4] + 1) };
        let inside = times.iter().filter(|time| **time == times[4]).count() as u64;
        assert_eq!(store.count_in(table, span).await.unwrap(), inside, "{table:?}");
        let read: usize = pages(&store, table, span, 2).await.iter().map(Batch::len).sum();
        assert_eq!(read as u64, inside, "{table:?}");
    }
}
