//! The instruments of a decoder, found by the bytes of the venue's symbol.

use fathom_market::instrument::{Instrument, InstrumentIdx, InstrumentTable};
use rustc_hash::FxHashMap;

/// What decoding needs of an instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) idx: InstrumentIdx,
    pub(super) price_scale: u8,
    pub(super) qty_scale: u8,
}

impl Listed {
    pub(super) fn of(instrument: &Instrument, idx: InstrumentIdx) -> Self {
        Self { idx, price_scale: instrument.price_scale, qty_scale: instrument.qty_scale }
    }
}

/// A copy of the table that is cheaper to ask: one look-up gives index and scales, and bytes that equal a key need no
/// UTF-8 test.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    by_native: FxHashMap<Box<[u8]>, Listed>,
}

impl Symbols {
    pub(super) fn new(table: &InstrumentTable) -> Self {
        let entry = |(idx, instrument): (_, &std::sync::Arc<Instrument>)| {
            (Box::from(instrument.native.as_bytes()), Listed::of(instrument, idx))
        };
        Self { by_native: table.iter().map(entry).collect() }
    }

    #[inline]
    pub(super) fn find(&self, native: &[u8]) -> Option<Listed> {
        self.by_native.get(native).copied()
    }
}
