//! Puts faults in: finds the streams, connections or symbols that a fault is aimed at, and hands it to them.

use std::sync::Arc;

use fathom_market::ids::Market;

use super::active::Active;
use super::{BookPart, DropHow, Effect, Fault, FaultError, Target};
use crate::hub::{Conn, End};
use crate::market::MarketState;

impl MarketState {
    /// Puts a fault in and answers its id in the ledger.
    pub(crate) fn inject(&self, fault: &Fault, now_ms: i64) -> Result<u64, FaultError> {
        self.check(fault)?;
        let active = match &fault.effect {
            Effect::Silence { .. }
            | Effect::Skip
            | Effect::Duplicate
            | Effect::Reorder
            | Effect::Garbage
            | Effect::CrossedBook { on: BookPart::Stream }
            | Effect::CorruptLevel { .. } => return self.on_streams(fault, now_ms),
            Effect::Drop { .. } | Effect::HalfOpen | Effect::SlowNetwork { .. } | Effect::StopReading => {
                return self.on_connections(fault, now_ms);
            }
            Effect::SetStatus { .. } | Effect::List | Effect::Delist { .. } => {
                return self.on_symbol(fault, now_ms);
            }
            Effect::CrossedBook { on: BookPart::Snapshot }
            | Effect::LifeLimit { .. }
            | Effect::RefuseConnections
            | Effect::WrongCertificate { .. }
            | Effect::RestError { .. }
            | Effect::SlowRest { .. }
            | Effect::RestHang { .. }
            | Effect::StaleSnapshot { .. }
            | Effect::TimeJump { .. } => self.ledger.fault(fault, now_ms),
        };
        self.faults.add(Arc::clone(&active));
        if matches!(fault.effect, Effect::LifeLimit { .. }) {
            self.life_changed.send_modify(|changes| *changes += 1);
        }
        Ok(active.id)
    }

    /// Takes a fault back. Connections whose life it limited are told.
    pub(crate) fn take_back(&self, active: &Active, now_ms: i64) {
        active.end(now_ms);
        self.life_changed.send_modify(|changes| *changes += 1);
    }

    fn check(&self, fault: &Fault) -> Result<(), FaultError> {
        let Target { stream, symbol, .. } = &fault.target;
        if let Some(name) = stream.as_ref().filter(|name| !self.knows_stream(name)) {
            return Err(FaultError::UnknownStream(name.clone()));
        }
        let unknown = |name: &&String| self.symbol(name).is_none() && !matches!(fault.effect, Effect::List);
        if let Some(name) = symbol.as_ref().filter(unknown) {
            return Err(FaultError::UnknownSymbol(name.clone()));
        }
        let seeded_only = matches!(
            fault.effect,
            Effect::CrossedBook { .. } | Effect::CorruptLevel { .. } | Effect::TimeJump { .. } | Effect::List
        );
        match fault.effect {
            Effect::RestError { status, .. } if !matches!(status, 429 | 418 | 500 | 503) => {
                Err(FaultError::BadStatus(status))
            }
            Effect::WrongCertificate { .. } if !self.tls => Err(FaultError::NoTls),
            _ if seeded_only && self.replay.is_some() => Err(FaultError::Recorded),
            _ => Ok(()),
        }
    }

    fn on_streams(&self, fault: &Fault, now_ms: i64) -> Result<u64, FaultError> {
        let books = matches!(fault.effect, Effect::CrossedBook { .. } | Effect::CorruptLevel { .. });
        let streams = self.streams_hit(&fault.target, books);
        if streams.is_empty() {
            return Err(FaultError::NoStream);
        }
        let active = self.ledger.fault(fault, now_ms);
        // Held open until every stream has it: the first may be done before the last is reached.
        active.wait();
        streams.iter().for_each(|name| self.afflict_stream(name, &active));
        active.done(now_ms);
        Ok(active.id)
    }

    fn on_connections(&self, fault: &Fault, now_ms: i64) -> Result<u64, FaultError> {
        let mut conns = self.connections_hit(&fault.target);
        conns.truncate(fault.count.map_or(usize::MAX, |count| count as usize));
        if conns.is_empty() {
            return Err(FaultError::NoConnection);
        }
        let active = self.ledger.fault(fault, now_ms);
        active.wait();
        conns.iter().for_each(|conn| on_connection(conn, &active, now_ms));
        active.done(now_ms);
        Ok(active.id)
    }

    fn on_symbol(&self, fault: &Fault, now_ms: i64) -> Result<u64, FaultError> {
        let symbol = fault.target.symbol.as_ref().ok_or(FaultError::NoSymbol)?;
        let unknown = || FaultError::UnknownSymbol(symbol.clone());
        match &fault.effect {
            Effect::List => {
                let known = self.symbol(symbol);
                let trades = |index| self.with_cell(index, now_ms, |cell, _| cell.status == "TRADING");
                let index = match known {
                    Some(index) => Some(index).filter(|index| !trades(*index)),
                    None => self.list(symbol, now_ms),
                };
                let index = index.ok_or_else(|| FaultError::CannotList(symbol.clone()))?;
                self.set_status(index, "TRADING", now_ms);
            }
            Effect::Delist { status, gone } => {
                let index = self.symbol(symbol).ok_or_else(unknown)?;
                let usual = if self.market == Market::Spot { "BREAK" } else { "SETTLING" };
                self.set_status(index, status.as_deref().unwrap_or(usual), now_ms);
                if *gone {
                    self.roster.forget(index);
                }
            }
            Effect::SetStatus { status } => {
                self.set_status(self.symbol(symbol).ok_or_else(unknown)?, status, now_ms);
            }
            _ => {}
        }
        let active = self.ledger.fault(fault, now_ms);
        active.acted(now_ms, None);
        active.end(now_ms);
        Ok(active.id)
    }
}

fn on_connection(conn: &Arc<Conn>, active: &Arc<Active>, now_ms: i64) {
    active.acted(now_ms, Some(conn.id));
    match active.fault.effect {
        Effect::Drop { how: DropHow::Cut } => conn.finish(End::Cut("fault".to_owned())),
        Effect::Drop { how: DropHow::Close } => conn.finish(End::Close(1001, "fault".to_owned())),
        _ => conn.afflict(Arc::clone(active)),
    }
}
