//! A plain task that keeps the supervisor alive: restarts it when it dies or stops sweeping, so many times a minute.
//!
//! No actix actor, no state but the count. When it gives up the process has to end (exit code 70).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use actix::{Arbiter, Context};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::breaker::{Breaker, BreakerSpec, BreakerState, Threshold};
use super::clock::between;
use super::isolate::install_panic_hook;
use super::registry::Registry;
use super::supervisor::RootSupervisor;

/// Without a sweep for so long the supervisor counts as stuck.
const SWEEP_PATIENCE: Duration = Duration::from_secs(5);

/// Starts the guardian. The sender tells `true` when it has given up.
#[allow(clippy::disallowed_methods, reason = "the guardian is the root: nobody above it could own the task")]
pub(crate) fn start(env: Arc<Registry>, lost: watch::Sender<bool>) {
    install_panic_hook();
    drop(actix_rt::spawn(async move {
        guard(&env).await;
        lost.send_replace(true);
    }));
}

async fn guard(env: &Arc<Registry>) {
    let threshold =
        Threshold { failures: env.config.max_supervisor_restarts + 1, window: Duration::from_secs(60) };
    let mut breaker = Breaker::new(threshold, BreakerSpec::default());
    let mut arbiter = None;
    loop {
        env.last_sweep.store(env.clock.now_us(), Relaxed);
        match launch(env, &mut arbiter).await {
            Some(task) => watch_over(env, task).await,
            None => tracing::error!("the supervisor's thread does not take it"),
        }
        if finished(env) {
            return retire(arbiter);
        }
        let now = env.clock.now_us();
        breaker.on_failure(now);
        if breaker.state(now) != BreakerState::Closed {
            tracing::error!("the supervisor died too often, giving up");
            return;
        }
        tracing::error!("the supervisor died, starting it again");
        retire(arbiter.take());
    }
}

fn retire(arbiter: Option<Arbiter>) {
    if let Some(arbiter) = arbiter {
        arbiter.stop();
    }
}

fn finished(env: &Registry) -> bool {
    super::lifeline::locked(&env.shutdown).as_ref().is_some_and(|plan| plan.done)
}

#[allow(clippy::disallowed_methods, reason = "the handle goes to the guardian, which watches it")]
async fn launch(env: &Arc<Registry>, arbiter: &mut Option<Arbiter>) -> Option<JoinHandle<()>> {
    let (tx, rx) = oneshot::channel();
    let fresh = Arbiter::try_new().ok()?;
    let env = Arc::clone(env);
    fresh.spawn_fn(move || {
        let task = actix_rt::spawn(Context::new().into_future(RootSupervisor(env)));
        drop(tx.send(task));
    });
    *arbiter = Some(fresh);
    tokio::time::timeout(Duration::from_secs(5), rx).await.ok()?.ok()
}

/// Returns when the supervisor is over: dead, stuck, or its work done.
async fn watch_over(env: &Registry, mut task: JoinHandle<()>) {
    loop {
        if let Ok(end) = tokio::time::timeout(Duration::from_millis(100), &mut task).await {
            return tracing::error!(?end, "the supervisor ended");
        }
        if finished(env) {
            return task.abort();
        }
        let silent = between(env.last_sweep.load(Relaxed), env.clock.now_us());
        if silent > SWEEP_PATIENCE {
            tracing::error!(?silent, "the supervisor does not sweep");
            return task.abort();
        }
    }
}
