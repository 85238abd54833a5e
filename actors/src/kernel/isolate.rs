//! Runs one instance so that whatever it does ends in exactly one report.
//!
//! `panic = "unwind"` in every profile is a precondition. A second panic, in `stopped()`, would abort the process if
//! the context were dropped while unwinding; so the context is awaited by reference and dropped afterwards.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};

use futures_util::FutureExt;

use super::exit::{ActorId, ExitReason};
use super::lifeline::Lifeline;
use super::slot::AnySlot;

tokio::task_local! {
    static CURRENT: (ActorId, u64);
}

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Reports the end of an instance when it is dropped, wherever that happens: after a clean end, after a panic, at an
/// abort, with its arbiter, or with a start that never ran.
pub(crate) struct Obituary {
    slot: Arc<dyn AnySlot>,
    life: Lifeline,
    finished: bool,
}

impl Obituary {
    pub(crate) fn new(slot: Arc<dyn AnySlot>, life: Lifeline) -> Self {
        Self { slot, life, finished: false }
    }

    /// The instance ran to its end; without this its end counts as the loss of its thread.
    pub(crate) fn finished(&mut self) {
        self.finished = true;
    }
}

impl Drop for Obituary {
    fn drop(&mut self) {
        let by_itself = match (self.finished, self.life.is_stopping()) {
            (true, true) => ExitReason::Asked,
            (true, false) => ExitReason::Finished,
            (false, _) => ExitReason::ArbiterLost,
        };
        self.life.condemn(by_itself.clone());
        let reason = self.life.reason().unwrap_or(by_itself);
        let phase = self.life.phase();
        self.life.fence();
        self.slot.unplug(self.life.generation());
        self.slot.core().post_end(self.life.generation(), reason, phase);
    }
}

/// Runs the context of an instance.
pub(crate) async fn isolate(context: impl Future<Output = ()> + 'static, mut obituary: Obituary) {
    let life = obituary.life.clone();
    let mut context = Box::pin(context);
    let name = (life.id().clone(), life.generation());
    let outcome = CURRENT.scope(name.clone(), AssertUnwindSafe(context.as_mut()).catch_unwind()).await;
    if let Err(payload) = outcome {
        life.condemn(ExitReason::Panicked(panic_text(payload.as_ref())));
    }
    let dropped = catch_unwind(AssertUnwindSafe(|| CURRENT.sync_scope(name, move || drop(context))));
    if dropped.is_err() {
        tracing::warn!(actor = %life.id(), "second panic while the instance was dropped, contained");
    }
    obituary.finished();
}

/// Builds an instance; a panic of the factory is its end.
pub(crate) fn build<A>(life: &Lifeline, factory: impl FnOnce() -> A) -> Option<A> {
    let name = (life.id().clone(), life.generation());
    let made = catch_unwind(AssertUnwindSafe(|| CURRENT.sync_scope(name, factory)));
    made.map_err(|payload| life.condemn(ExitReason::Panicked(panic_text(payload.as_ref())))).ok()
}

/// Logs each panic once, with its place and its actor, and keeps its text for the report. Panics outside of actors
/// go on to the hook that was there before.
pub(crate) fn install_panic_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let place =
                info.location().map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
            let text = format!("{}{place}", payload_text(info.payload()));
            let known = CURRENT.try_with(|(id, generation)| {
                tracing::error!(actor = %id, generation, panic = %text, "actor panicked");
            });
            let _ = LAST_PANIC.try_with(|last| last.replace(Some(text)));
            if known.is_err() {
                before(info);
            }
        }));
    });
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    LAST_PANIC.with(RefCell::take).unwrap_or_else(|| payload_text(payload))
}

fn payload_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let mut text =
        text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".into());
    if text.len() > 1000 {
        let cut = (0..=1000).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(cut);
    }
    text
}
