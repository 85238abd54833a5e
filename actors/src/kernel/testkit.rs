//! An actor that fails on command, and waiting without sleeping blindly. For tests only.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{
    ActorContext, AsyncContext, Context, Handler, Message, MessageResult, StreamHandler, WrapFuture,
};

use super::{ExitReason, Fault, Inbox, ItemTag, Lifeline, Service};

/// What [`Faulty`] does with an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// Notes the number.
    Note(u32),
    /// Panics, naming the item.
    Panic(u64),
    /// Panics, and again in `on_stop`.
    PanicTwice,
    /// States a fault.
    Fail,
    /// Awaits for ever with its context paused.
    Hang,
    /// Blocks its thread.
    Block(Duration),
    /// Starts an operation that never ends, while its loop goes on.
    HangInside,
    /// Stops by itself.
    Finish,
    /// Says that it has taken over.
    TakeOver,
}

/// The notes of all instances of a [`Faulty`].
pub type Notes = Arc<Mutex<Vec<u32>>>;

/// Asks for the notes.
#[derive(Message)]
#[rtype(result = "Vec<u32>")]
pub struct Seen;

/// Asks which instance answers.
#[derive(Message)]
#[rtype(result = "u64")]
pub struct Which;

/// Blocks the thread inside a handler.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Doze(pub Duration);

/// The actor that fails on command.
pub struct Faulty {
    life: Lifeline,
    inbox: Option<Inbox<Item>>,
    notes: Notes,
    panics_in_stop: bool,
    ignores_drain: bool,
    waits_to_take_over: bool,
    operation: Option<super::Busy>,
}

crate::service_actor!(Faulty);

impl Faulty {
    /// An instance; `inbox` is where its commands come from.
    #[must_use]
    pub fn new(life: Lifeline, inbox: Option<Inbox<Item>>, notes: Notes) -> Self {
        Self {
            life,
            inbox,
            notes,
            panics_in_stop: false,
            ignores_drain: false,
            waits_to_take_over: false,
            operation: None,
        }
    }

    /// An instance that does not stop when it is asked.
    #[must_use]
    pub fn stubborn(mut self) -> Self {
        self.ignores_drain = true;
        self
    }

    /// An instance that takes over only when it is told to.
    #[must_use]
    pub fn patient(mut self) -> Self {
        self.waits_to_take_over = true;
        self
    }

    fn notes(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service for Faulty {
    type Detail = usize;

    fn lifeline(&self) -> &Lifeline {
        &self.life
    }

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        if let Some(inbox) = &self.inbox {
            ctx.add_stream(inbox.stream(&self.life));
        }
        Ok(())
    }

    fn on_handover(&mut self, _: &mut Context<Self>) {
        if !self.waits_to_take_over {
            self.life.took_over(serde_json::json!({}));
        }
    }

    fn on_drain(&mut self, ctx: &mut Context<Self>) {
        if !self.ignores_drain {
            ctx.stop();
        }
    }

    #[allow(clippy::panic, reason = "failing is its purpose")]
    fn on_stop(&mut self, _: &ExitReason) {
        if self.panics_in_stop {
            panic!("second panic");
        }
    }
}

impl StreamHandler<Item> for Faulty {
    #[allow(clippy::panic, clippy::disallowed_methods, reason = "failing is its purpose")]
    fn handle(&mut self, item: Item, ctx: &mut Context<Self>) {
        let tag = match item {
            Item::Panic(tag) => ItemTag(tag),
            _ => ItemTag(0),
        };
        if self.life.refuses(tag) {
            return;
        }
        let _busy = self.life.enter_item("item", tag);
        match item {
            Item::Note(number) => {
                self.notes().push(number);
                let seen = self.notes().len();
                self.publish(seen);
            }
            Item::Panic(tag) => panic!("panic on {tag}"),
            Item::PanicTwice => {
                self.panics_in_stop = true;
                panic!("first panic");
            }
            Item::Fail => self.life.fail(ctx, Fault::new("told", "told to fail")),
            Item::Hang => ctx.wait(std::future::pending::<()>().into_actor(self)),
            Item::Block(time) => std::thread::sleep(time),
            Item::HangInside => self.operation = Some(self.life.enter("endless")),
            Item::Finish => ctx.stop(),
            Item::TakeOver => self.life.took_over(serde_json::json!({ "told": true })),
        }
    }

    fn finished(&mut self, _: &mut Context<Self>) {}
}

impl Handler<Seen> for Faulty {
    type Result = MessageResult<Seen>;

    fn handle(&mut self, _: Seen, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.notes().clone())
    }
}

impl Handler<Which> for Faulty {
    type Result = MessageResult<Which>;

    fn handle(&mut self, _: Which, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.life.generation())
    }
}

impl Handler<Doze> for Faulty {
    type Result = ();

    #[allow(clippy::disallowed_methods, reason = "blocking is its purpose")]
    fn handle(&mut self, doze: Doze, _: &mut Context<Self>) {
        std::thread::sleep(doze.0);
    }
}

/// Waits until the condition holds; false when it does not within the deadline.
pub async fn eventually(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = tokio::time::Instant::now() + deadline;
    while !condition() {
        if tokio::time::Instant::now() > end {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    true
}
