//! Depth updates that are wrong on purpose: the ids stay sound, the levels do not. Pure.

use super::book::{Book, Changes, Side};
use crate::faults::LevelPart;
use crate::number::scaled;
use crate::universe::Listing;

/// How far above the best ask a crossing bid is put, in ticks.
const ABOVE: i64 = 5;
/// Crossing bids that are remembered to be taken back.
const PHANTOMS: usize = 64;

/// The update with a bid above the best ask, which joins `phantoms`; `None` without an ask.
pub(crate) fn crossed(book: &Book, changes: &Changes, phantoms: &mut Vec<i64>) -> Option<Changes> {
    let (ask, qty) = book.best(Side::Ask)?;
    let price = phantoms.last().copied().filter(|price| *price > ask).unwrap_or(ask + ABOVE);
    if !phantoms.contains(&price) {
        if phantoms.len() >= PHANTOMS {
            return None;
        }
        phantoms.push(price);
    }
    let mut wrong = changes.clone();
    put(&mut wrong, Side::Bid, price, qty);
    Some(wrong)
}

/// The update with the truth about all `phantoms`.
pub(crate) fn uncrossed(book: &Book, changes: &Changes, phantoms: &[i64]) -> Changes {
    let mut right = changes.clone();
    for price in phantoms {
        put(&mut right, Side::Bid, *price, book.side(Side::Bid).get(price).copied().unwrap_or(0));
    }
    right
}

/// The update with one wrong level at `rank`, which is told in `said`; `None` when the book is not that deep.
pub(crate) fn corrupted(
    book: &Book,
    changes: &Changes,
    listing: &Listing,
    (what, rank): (LevelPart, usize),
    said: &mut String,
) -> Option<Changes> {
    let side = if changes.last.is_multiple_of(2) { Side::Bid } else { Side::Ask };
    let (price, qty) = book.top(side, rank + 1).into_iter().nth(rank)?;
    let away = if side == Side::Bid { -1 } else { 1 };
    let (wrong_price, wrong_qty) = match what {
        LevelPart::Qty => (price, qty * 2 + 1),
        LevelPart::Price => {
            let vacant =
                |distance: i64| Some(price + away * distance).filter(|at| !book.side(side).contains_key(at));
            ((1..1000).find_map(vacant).filter(|at| *at > 0)?, qty)
        }
    };
    let truth = book.side(side).get(&wrong_price).copied().unwrap_or(0);
    let spelled = |value: i64| scaled(i128::from(value), listing.qty_scale, listing.qty_decimals);
    *said = format!(
        "{} id {}: {} {} sent as {}, truly {}",
        listing.native,
        changes.last,
        if side == Side::Bid { "bid" } else { "ask" },
        scaled(i128::from(wrong_price), listing.price_scale, listing.price_decimals),
        spelled(wrong_qty),
        spelled(truth),
    );
    let mut wrong = changes.clone();
    put(&mut wrong, side, wrong_price, wrong_qty);
    Some(wrong)
}

/// Sets a level of an update, best first.
fn put(changes: &mut Changes, side: Side, price: i64, qty: i64) {
    let levels = match side {
        Side::Bid => &mut changes.bids,
        Side::Ask => &mut changes.asks,
    };
    levels.retain(|(at, _)| *at != price);
    levels.push((price, qty));
    levels.sort_unstable();
    if side == Side::Bid {
        levels.reverse();
    }
}

#[cfg(test)]
mod tests {
    use fathom_market::ids::Market;

    use super::super::book::Levels;
    use super::*;
    use crate::config::Symbols;
    use crate::universe::listings;

    fn book() -> (Book, Changes) {
        let bids = (1..=50).map(|price| (price * 2, price)).collect::<Levels>();
        let asks = (60..=120).map(|price| (price * 2, price)).collect::<Levels>();
        let mut book = Book::new(10, bids, asks);
        let mark = book.mark();
        book.set(Side::Ask, 120, 7, 12, 0);
        let changes = book.since(mark).unwrap();
        (book, changes)
    }

    #[test]
    fn a_crossing_bid_is_put_and_taken_back() {
        let (book, changes) = book();
        let mut phantoms = Vec::new();
        let wrong = crossed(&book, &changes, &mut phantoms).unwrap();
        assert_eq!((wrong.bids, wrong.asks), (vec![(125, 7)], vec![(120, 7)]));
        assert_eq!((wrong.first, wrong.last), (changes.first, changes.last));
        crossed(&book, &changes, &mut phantoms).unwrap();
        assert_eq!(phantoms, [125], "one is enough while it crosses");
        assert_eq!(uncrossed(&book, &changes, &phantoms).bids, [(125, 0)]);
    }

    #[test]
    fn one_level_is_wrong_and_named() {
        let (book, changes) = book();
        let listing = listings(Market::Spot, &Symbols::Named(vec!["BTCUSDT".to_owned()]), 100).remove(0);
        let mut said = String::new();
        let wrong = corrupted(&book, &changes, &listing, (LevelPart::Qty, 10), &mut said).unwrap();
        assert_eq!(wrong.bids, [(80, 81)], "the eleventh bid is 40 at 80");
        assert_eq!(said, "BTCUSDT id 12: bid 0.80000000 sent as 0.00081000, truly 0.00040000");
        let vacant = corrupted(&book, &changes, &listing, (LevelPart::Price, 10), &mut said).unwrap();
        assert_eq!(vacant.bids, [(79, 40)]);
        assert!(corrupted(&book, &changes, &listing, (LevelPart::Qty, 500), &mut said).is_none());
    }
}
