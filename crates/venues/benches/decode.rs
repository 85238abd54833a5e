//! Decoding of the messages that make the volume, each and as the mix, against typed `serde_json`; decoding, applying
//! and summing against decimals in a `BTreeMap`.
//!
//! `cargo bench -p fathom-venues --bench decode`

#![allow(missing_docs, reason = "criterion's macros write undocumented items")]
#![allow(clippy::expect_used, reason = "a bench that cannot go on has nothing to measure")]

mod support;

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fathom_market::{
    book::OrderBook,
    depth::{DepthBands, DepthReference},
    event::{Body, Event},
};
use fathom_venues::{Decoded, Decoder, binance::decode::BinanceDecoder};
use rust_decimal::Decimal;
use support::{
    frames::{Frame, Generator, table},
    reference::{self, Read},
};

fn percents() -> Vec<Decimal> {
    [(15, 1), (3, 0), (5, 0), (8, 0), (15, 0), (30, 0)].map(|(n, scale)| Decimal::new(n, scale)).to_vec()
}

fn decoding(criterion: &mut Criterion) {
    let mut market = Generator::new();
    let sets: [(&str, Vec<Frame>); 4] = [
        ("book_ticker", (0..100).map(|_| market.ticker()).collect()),
        ("agg_trade", (0..100).map(|_| market.trade()).collect()),
        ("depth_update", (0..100).map(|_| market.depth()).collect()),
        ("mix", market.mix(4)),
    ];
    for (name, frames) in &sets {
        let mut decoder = BinanceDecoder::new(&table());
        let mut out = Vec::new();
        assert!(frames.iter().all(|frame| decoder.is_fast(frame.text.as_bytes())));
        let mut group = criterion.benchmark_group(format!("decode/{name}"));
        group.throughput(Throughput::Elements(frames.len() as u64)).measurement_time(Duration::from_secs(3));
        group.bench_function("ours", |bencher| {
            bencher.iter(|| {
                for frame in frames {
                    decoder.decode(black_box(frame.text.as_bytes()), 1, &mut out);
                    black_box(&out);
                    out.clear();
                }
            });
        });
        group.bench_function("full_parser", |bencher| {
            bencher.iter(|| {
                for frame in frames {
                    decoder.decode_full(black_box(frame.text.as_bytes()), 1, &mut out);
                    black_box(&out);
                    out.clear();
                }
            });
        });
        group.bench_function("serde_json_i64", |bencher| {
            bencher.iter(|| {
                frames.iter().for_each(|frame| drop(black_box(reference::read::<i64>(black_box(frame)))))
            });
        });
        group.bench_function("serde_json_decimal", |bencher| {
            bencher.iter(|| {
                frames.iter().for_each(|frame| drop(black_box(reference::read::<Decimal>(black_box(frame)))))
            });
        });
        group.finish();
    }
}

/// A book and its bands, and the work of one event.
struct Ours {
    decoder: BinanceDecoder,
    book: OrderBook,
    bands: DepthBands,
}

impl Ours {
    fn new(market: &mut Generator) -> Self {
        let [bids, asks] = market.snapshot();
        let mut book = OrderBook::new(50_000);
        book.load(&bids, &asks, 5000).expect("a sound snapshot");
        Self {
            decoder: BinanceDecoder::new(&table()),
            book,
            bands: DepthBands::new(&percents()).expect("six bands"),
        }
    }

    fn work(&mut self, frame: &Frame, out: &mut Vec<Decoded>) {
        let start = out.len();
        self.decoder.decode(black_box(frame.text.as_bytes()), 1, out);
        for decoded in &out[start..] {
            if let Decoded::Event(Event { body: Body::Delta(delta), .. }) = decoded {
                self.book.apply(&delta.bids, &delta.asks).expect("a sound update");
                black_box(self.book.depth(&self.bands, DepthReference::Mid));
            }
        }
    }
}

fn pipeline(criterion: &mut Criterion) {
    let mut market = Generator::new();
    let mut ours = Ours::new(&mut market);
    let mut book = reference::Book::default();
    book.bids
        .extend(ours.book.bids().map(|level| (Decimal::new(level.price, 8), Decimal::new(level.qty, 8))));
    book.asks
        .extend(ours.book.asks().map(|level| (Decimal::new(level.price, 8), Decimal::new(level.qty, 8))));
    let (frames, percents) = (market.mix(4), percents());
    let mut out = Vec::new();
    let mut group = criterion.benchmark_group("decode_apply_sums/mix");
    group.throughput(Throughput::Elements(frames.len() as u64)).measurement_time(Duration::from_secs(3));
    group.bench_function("ours", |bencher| {
        bencher.iter(|| {
            for frame in &frames {
                ours.work(frame, &mut out);
                out.clear();
            }
        });
    });
    group.bench_function("serde_json_decimal_btreemap", |bencher| {
        bencher.iter(|| {
            for frame in &frames {
                match reference::read::<Decimal>(black_box(frame)) {
                    Read::Depth(update) => {
                        book.apply(&update);
                        black_box(book.sums(&percents));
                    }
                    other => drop(black_box(other)),
                }
            }
        });
    });
    group.finish();
}

criterion_group!(benches, decoding, pipeline);
criterion_main!(benches);
