//! What an actor of ours implements, and the kernel code that runs inside its context.
//!
//! ```text
//! struct Counter { life: Lifeline, inbox: Inbox<u64>, sum: u64 }
//! service_actor!(Counter);                      // actix::Actor, routed through the kernel
//! impl Service for Counter {
//!     type Detail = u64;
//!     fn lifeline(&self) -> &Lifeline { &self.life }
//!     fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
//!         ctx.add_stream(self.inbox.stream(&self.life));
//!         Ok(())
//!     }
//! }
//! impl StreamHandler<u64> for Counter {
//!     fn handle(&mut self, item: u64, _: &mut Context<Self>) {
//!         let _busy = self.life.enter("add");
//!         self.sum += item;
//!         self.publish(self.sum);
//!     }
//!     fn finished(&mut self, _: &mut Context<Self>) {}   // actix would stop the actor
//! }
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use actix::fut::{ActorFutureExt, ActorStreamExt, wrap_future, wrap_stream};
use actix::{Actor, ActorContext, AsyncContext, Context};
use serde::Serialize;

use super::exit::{ExitReason, Fault};
use super::lifeline::{Command, Lifeline};

const BEAT_EVERY: Duration = Duration::from_millis(250);

/// An actor under supervision. `service_actor!(Type)` implements `actix::Actor` for it.
pub trait Service: Actor<Context = Context<Self>> + Unpin + Sized {
    /// The state that it publishes.
    type Detail: Serialize + Send + Sync + 'static;

    /// The lifeline that its factory was given.
    fn lifeline(&self) -> &Lifeline;

    /// Starts streams and timers. The kernel calls it once an instance, inside the context.
    ///
    /// # Errors
    /// A fault ends the instance; the restart policy decides what follows.
    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault>;

    /// Called after `on_start` when an instance before this one still works (see `RestartMode::Handover`). Whoever needs
    /// time to take over calls `Lifeline::took_over` later; the default does it at once.
    fn on_handover(&mut self, _ctx: &mut Context<Self>) {
        self.lifeline().took_over(serde_json::json!({}));
    }

    /// Asked to stop: finish what must be finished, then call `ctx.stop()`, inside the grace of the specification.
    /// The default stops at once; what waits in an inbox is kept.
    fn on_drain(&mut self, ctx: &mut Context<Self>) {
        ctx.stop();
    }

    /// The last call. After a panic the state may be broken; it must not send, block or start anything.
    fn on_stop(&mut self, _why: &ExitReason) {}

    /// Publishes the state; see `Lifeline::publish`.
    fn publish(&self, detail: Self::Detail) {
        self.lifeline().publish(detail);
    }
}

/// Implements `actix::Actor` for a type that implements `Service`, routing its life cycle through the kernel.
#[macro_export]
macro_rules! service_actor {
    ($type:ty) => {
        impl ::actix::Actor for $type {
            type Context = ::actix::Context<Self>;

            fn started(&mut self, ctx: &mut Self::Context) {
                $crate::kernel::service::started(self, ctx);
            }

            fn stopped(&mut self, _: &mut Self::Context) {
                $crate::kernel::service::stopped(self);
            }
        }
    };
}

/// Called from `Actor::started`: heart beat, commands, kill signal, then `on_start`.
pub fn started<A: Service>(actor: &mut A, ctx: &mut Context<A>) {
    let life = actor.lifeline().clone();
    life.beat();
    if let Some(commands) = life.take_commands() {
        ctx.spawn(
            wrap_stream(Box::pin(commands))
                .map(|command, actor: &mut A, ctx| obey(command, actor, ctx))
                .finish(),
        );
    }
    let killed = life.kill_token().clone().cancelled_owned();
    ctx.spawn(wrap_future(killed).map(|(), _: &mut A, ctx: &mut Context<A>| ctx.terminate()));
    ctx.run_interval(BEAT_EVERY, |actor, _| actor.lifeline().beat());
    match actor.on_start(ctx) {
        Ok(()) => life.ready(),
        Err(fault) => return life.fail(ctx, fault),
    }
    if life.has_predecessor() {
        actor.on_handover(ctx);
    }
}

/// Called from `Actor::stopped`: `on_stop`, with its panics contained.
pub fn stopped<A: Service>(actor: &mut A) {
    let life = actor.lifeline().clone();
    let by_itself = if life.is_stopping() { ExitReason::Asked } else { ExitReason::Finished };
    let why = life.reason().unwrap_or(by_itself);
    if catch_unwind(AssertUnwindSafe(|| actor.on_stop(&why))).is_err() {
        tracing::warn!(actor = %life.id(), generation = life.generation(), "panic in on_stop contained");
    }
}

fn obey<A: Service>(command: Command, actor: &mut A, ctx: &mut Context<A>) {
    match command {
        Command::Drain => {
            actor.lifeline().stopping();
            actor.on_drain(ctx);
        }
        #[cfg(any(test, feature = "fault-injection"))]
        Command::Inject(fault) => inject(fault, actor, ctx),
    }
}

/// A fault to be made inside an actor, by tests.
#[cfg(any(test, feature = "fault-injection"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inject {
    /// It panics.
    Panic,
    /// It awaits something that never comes, with its context paused.
    Hang,
    /// It blocks its thread.
    BlockThread {
        /// For how long, milliseconds.
        ms: u64,
    },
    /// It states a fault.
    Fail,
}

#[cfg(any(test, feature = "fault-injection"))]
#[allow(clippy::panic, clippy::disallowed_methods, reason = "making an actor fail is the purpose")]
fn inject<A: Service>(fault: Inject, actor: &mut A, ctx: &mut Context<A>) {
    let life = actor.lifeline().clone();
    match fault {
        Inject::Panic => panic!("injected panic"),
        Inject::Hang => ctx.wait(wrap_future(std::future::pending::<()>())),
        Inject::BlockThread { ms } => std::thread::sleep(Duration::from_millis(ms)),
        Inject::Fail => life.fail(ctx, Fault::new("injected", "injected fault")),
    }
}
