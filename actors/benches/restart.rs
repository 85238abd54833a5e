//! How long it takes from a panic until the next instance takes a message, with a thousand actors alive.
//!
//! Books and shards have other limits, so each of them is measured: by the rules of a book and by those of a shard. An
//! actor panics on an item of its inbox; behind it waits a question, which only the next instance can answer.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a bench panics on purpose, prints what it measured and stops at the first surprise"
)]

use std::time::{Duration, Instant};

use actix::{AsyncContext, Context, StreamHandler};
use fathom_actors::{
    kernel::{
        ChildBuilder, ChildSpec, Fault, Inbox, Kernel, KernelConfig, Kind, Lifeline, Outlet, Overflow,
        Service, inbox::bounded,
    },
    limits, service_actor,
};
use tokio::sync::oneshot;

const ACTORS: usize = 1000;
const PANICS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(60);

enum Item {
    Panic,
    Ask(oneshot::Sender<u64>),
}

struct Idle {
    life: Lifeline,
    inbox: Inbox<Item>,
}

service_actor!(Idle);

impl Service for Idle {
    type Detail = ();

    fn lifeline(&self) -> &Lifeline {
        &self.life
    }

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        ctx.add_stream(self.inbox.stream(&self.life));
        Ok(())
    }
}

impl StreamHandler<Item> for Idle {
    fn handle(&mut self, item: Item, _: &mut Context<Self>) {
        match item {
            Item::Panic => panic!("told to"),
            Item::Ask(answer) => drop(answer.send(self.life.generation())),
        }
    }

    fn finished(&mut self, _: &mut Context<Self>) {}
}

async fn measure(name: &str, rules: impl Fn(ChildBuilder<Idle>) -> ChildBuilder<Idle>) {
    let kernel = Kernel::start(KernelConfig::default()).expect("a system");
    let mut outlets: Vec<Outlet<Item>> = Vec::with_capacity(ACTORS);
    for n in 0..ACTORS {
        let (out, inbox) = bounded("items", 8, Overflow::Fault, &KernelConfig::default().clock);
        outlets.push(out);
        let factory = move |life| Idle { life, inbox: inbox.clone() };
        let spec = rules(ChildSpec::builder(format!("idle/{n}"), Kind("idle"), factory)).build();
        kernel.supervisor().spawn_detached(spec).expect("room for it");
    }
    for out in &outlets {
        generation(out).await;
    }
    let mut taken = Vec::with_capacity(PANICS);
    for _ in 0..PANICS {
        let out = &outlets[rand::random::<u32>() as usize % ACTORS];
        let before = generation(out).await;
        let since = Instant::now();
        assert!(out.offer(Item::Panic).is_ok(), "the inbox takes it");
        assert_eq!(generation(out).await, before + 1, "the next instance answers");
        taken.push(since.elapsed());
    }
    taken.sort_unstable();
    let at = |percent: usize| taken[(PANICS * percent / 100).min(PANICS - 1)];
    println!(
        "{name}: from panic to the next instance taking a message, {PANICS} panics, {ACTORS} actors alive: \
         p50 {:?}, p99 {:?}, max {:?}",
        at(50),
        at(99),
        taken[PANICS - 1]
    );
    kernel.shutdown(PATIENCE).await;
}

async fn generation(out: &Outlet<Item>) -> u64 {
    let (answer, asked) = oneshot::channel();
    assert!(out.offer(Item::Ask(answer)).is_ok(), "the inbox takes it");
    tokio::time::timeout(PATIENCE, asked).await.expect("an answer in time").expect("an answer")
}

fn main() {
    actix::System::new().block_on(async {
        measure("book", limits::book).await;
        measure("shard", limits::stream).await;
    });
}
