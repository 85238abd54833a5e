//! `/api/v1/streams`: what operators may do with the streams of one symbol, `binance/spot/BTCUSDT`.

use actix_web::web::{Path, ServiceConfig};
use fathom_actors::{
    directory::BookEntry,
    kernel::NewOperation,
    operator::{Errand, ResyncBook},
};
use fathom_market::ids::Market;

use super::{
    AppState, Shared,
    auth::Caller,
    commands::{self, Body, Deed},
    error::{Answer, ApiError},
    write,
};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(write("/api/v1/streams/{id:.+}/resync", resync));
}

/// A book is given up and loaded anew without touching its socket; the operation is done when it is live again.
async fn resync(state: Shared, caller: Caller, id: Path<String>, body: Body) -> Answer {
    let reason = commands::reason_of(body)?;
    let book = book(&state, &id)?;
    let deed = Deed { action: "resync", target: &id, reason: &reason };
    commands::run(&state, &caller, &format!("resync {id}"), &deed, |control| {
        let operation = control.operation_log().begin(NewOperation {
            kind: "stream.resync",
            target: id.clone(),
            requested_by: caller.by.clone(),
            reason: reason.clone(),
            from_generation: None,
        });
        let operation = operation.ok_or_else(commands::too_many)?;
        let instrument = &book.cell.instrument;
        let actor = format!("book/{}/{}/{}", instrument.venue, instrument.market, instrument.native);
        let errand = Errand::Resync(ResyncBook {
            operation: operation.clone(),
            book: book.actor.clone(),
            actor: actor.as_str().into(),
            instrument: instrument.id,
        });
        commands::send(&state, control, operation, errand)
    })
}

/// The book that a stream's id names: `{venue}/{market}/{symbol}`, where the symbol may be a unified one.
fn book(state: &AppState, id: &str) -> Result<BookEntry, ApiError> {
    let unknown = || ApiError::not_found("STREAM_NOT_FOUND", format!("no stream {id}")).with("id", id);
    let (venue, rest) = id.split_once('/').ok_or_else(unknown)?;
    let (market, symbol) = rest.split_once('/').ok_or_else(unknown)?;
    let market = Market::ALL.into_iter().find(|known| known.as_str() == market).ok_or_else(unknown)?;
    let venues = fathom_actors::system::venues(state.system.settings());
    let venue = venues.into_iter().find(|known| known.as_str() == venue).ok_or_else(unknown)?;
    state.system.directory().book(venue, market, symbol).ok_or_else(unknown)
}
