//! What the hop from a shard to a book costs: the work of the mix done in place, and the same work with the events of each
//! socket read going through the router and the book's inbox. Both run on one thread, as shard and book do.

#![allow(
    clippy::expect_used,
    missing_docs,
    reason = "a bench stops at the first surprise, and exports nothing"
)]

#[path = "../../crates/venues/benches/support/mod.rs"]
#[allow(dead_code, reason = "shared with the benches of the venues")]
mod support;

use std::{hint::black_box, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fathom_actors::{
    feed::FeedItem,
    kernel::{Clock, Inbox, Overflow, inbox::bounded},
    stream::router::Router,
};
use fathom_market::{
    book::OrderBook,
    depth::{DepthBands, DepthReference},
    event::{Body, Event},
    ids::Market,
};
use fathom_venues::{Decoded, Decoder, registry};
use rust_decimal::Decimal;
use support::frames::{Frame, Generator, table};

const FRAMES_PER_READ: usize = 64;
const READS: usize = 64;

struct Work {
    decoder: Box<dyn Decoder>,
    decoded: Vec<Decoded>,
    book: OrderBook,
    bands: DepthBands,
}

impl Work {
    fn new(market: &mut Generator) -> Self {
        let venue = registry::venue("binance").expect("registered");
        let class = venue.classes(Market::Spot)[0];
        let [bids, asks] = market.snapshot();
        let mut book = OrderBook::new(50_000);
        book.load(&bids, &asks, 5000).expect("a sound snapshot");
        let percents = [15, 30, 50, 80, 150, 300].map(|tenths| Decimal::new(tenths, 1));
        Self {
            decoder: venue.decoder(Market::Spot, class, Arc::new(table())),
            decoded: Vec::new(),
            book,
            bands: DepthBands::new(&percents).expect("six bands"),
        }
    }

    fn decode(&mut self, read: &[Frame], mut each: impl FnMut(Event)) {
        for frame in read {
            self.decoder.decode(black_box(frame.text.as_bytes()), 1, &mut self.decoded);
        }
        for decoded in self.decoded.drain(..) {
            if let Decoded::Event(event) = decoded {
                each(event);
            }
        }
    }

    fn apply(&mut self, event: &Event) {
        if let Body::Delta(delta) = &event.body {
            self.book.apply(&delta.bids, &delta.asks).expect("a sound update");
            black_box(self.book.depth(&self.bands, DepthReference::Mid));
        } else {
            black_box(event);
        }
    }
}

fn hop(criterion: &mut Criterion) {
    let mut market = Generator::new();
    let mut work = Work::new(&mut market);
    let frames = market.mix(READS);
    let mut group = criterion.benchmark_group("hop/mix");
    group.throughput(Throughput::Elements(frames.len() as u64)).measurement_time(Duration::from_secs(5));
    group.bench_function("in_place", |bencher| {
        let mut events = Vec::new();
        bencher.iter(|| {
            for read in frames.chunks(FRAMES_PER_READ) {
                work.decode(read, |event| events.push(event));
                events.drain(..).for_each(|event| work.apply(&event));
            }
        });
    });
    let (mut router, inbox) = route();
    group.bench_function("through_the_inbox", |bencher| {
        bencher.iter(|| {
            for read in frames.chunks(FRAMES_PER_READ) {
                work.decode(read, |event| router.push(event));
                router.flush();
                while let Some(FeedItem::Events(events)) = inbox.try_recv() {
                    events.iter().for_each(|event| work.apply(event));
                }
            }
        });
    });
    group.finish();
}

/// A router whose every instrument leads to one inbox.
fn route() -> (Router, Inbox<FeedItem>) {
    let (outlet, inbox) = bounded("feed", 4096, Overflow::Fault, &Clock::system());
    let outlets = (0..table().len()).map(|_| outlet.clone()).collect::<Vec<_>>();
    (Router::new(Arc::new(ArcSwap::from_pointee(outlets))), inbox)
}

criterion_group!(benches, hop);
criterion_main!(benches);
