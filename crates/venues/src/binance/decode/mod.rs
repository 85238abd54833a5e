//! Decoding of the venue's frames: a fast path for the messages that make the volume, and the full parser for all
//! others and for every deviation. Total: any bytes give events, an ignored frame or a typed error.

mod fast;
mod full;
pub(in crate::binance) mod records;
mod scan;
mod symbols;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use fathom_market::instrument::InstrumentTable;

use self::{fast::Scratch, full::Context, symbols::Symbols};
use super::field::time_us;
use crate::venue::{Decoded, Decoder};

/// The decoder of one line, of either market: the frames themselves tell the shapes apart.
#[derive(Debug, Default)]
pub struct BinanceDecoder {
    symbols: Symbols,
    scratch: Scratch,
    stream: Option<Box<str>>,
}

impl BinanceDecoder {
    /// A decoder of combined frames, `{"stream":...,"data":...}`, and of bare events that name their type.
    pub fn new(table: &InstrumentTable) -> Self {
        Self { symbols: Symbols::new(table), ..Self::default() }
    }

    /// A decoder of a `/ws/<stream>` line, whose frames are not wrapped: spot's `bookTicker` and partial depth say
    /// neither type nor (partial depth) symbol there.
    pub fn of_stream(table: &InstrumentTable, stream: &str) -> Self {
        Self { stream: Some(stream.into()), ..Self::new(table) }
    }

    /// Decodes without the fast path: what [`Decoder::decode`] must agree with.
    pub fn decode_full(&self, frame: &[u8], recv_us: i64, out: &mut Vec<Decoded>) {
        full::decode(frame, Context { symbols: &self.symbols, stream: self.stream.as_deref(), recv_us }, out);
    }

    /// True when the fast path takes this frame.
    pub fn is_fast(&mut self, frame: &[u8]) -> bool {
        fast::decode(frame, &self.symbols, &mut self.scratch, 0).is_some()
    }
}

impl Decoder for BinanceDecoder {
    fn decode(&mut self, frame: &[u8], recv_us: i64, out: &mut Vec<Decoded>) {
        match fast::decode(frame, &self.symbols, &mut self.scratch, recv_us) {
            Some(event) => out.push(Decoded::Event(event)),
            None => self.decode_full(frame, recv_us, out),
        }
    }

    fn set_table(&mut self, table: Arc<InstrumentTable>) {
        self.symbols = Symbols::new(&table);
    }
}
