//! The composition root: store, actors, HTTP; and the way down.

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::Context;
use fathom_actors::{kernel::Clock, system::MarketSystem};

use crate::{
    config::Config,
    http,
    settings::{kernel, settings},
    statistics::Totals,
    stores::open_sink,
};

const STATISTICS_EVERY: Duration = Duration::from_secs(60);

/// A service that has come up.
pub struct Running {
    /// The actors.
    pub system: Arc<MarketSystem>,
    /// Where HTTP is served.
    pub address: std::net::SocketAddr,
    server: actix_web::dev::ServerHandle,
    grace: Duration,
    read: Totals,
    sum: Totals,
}

/// Brings the service up: store, actors, HTTP.
///
/// # Errors
/// When the store cannot be opened, the address not be bound, or the configuration not be met.
pub async fn start(config: &Config) -> anyhow::Result<Running> {
    fathom_transport::install_provider();
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    if config.http.token.is_none() {
        tracing::warn!("no token is set: writing calls are open on {}", config.http.host);
    }
    let clock = Clock::system();
    let store = open_sink(config, &clock).await?;
    let started_us = clock.now_us();
    let system = MarketSystem::start(settings(config)?, kernel(config, clock), store).await?;
    let system = Arc::new(system);
    let state = http::AppState::new(system.clone(), config, started_us);
    let (server, address) = http::serve(state, &config.http)
        .with_context(|| format!("bind {}:{}", config.http.host, config.http.port))?;
    let handle = server.handle();
    spawn_server(server);
    tracing::info!("serving on http://{address}");
    let grace = config.supervision.shutdown_deadline;
    Ok(Running { system, address, server: handle, grace, read: Totals::default(), sum: Totals::default() })
}

/// Runs the service until `shutdown` is ready, then takes it down: intake first, the writer last.
///
/// # Errors
/// As [`start`]; and when the actors' supervisor is lost, or something did not stop in its time.
pub async fn run(config: &Config, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let mut running = start(config).await?;
    let lost = running.serve_until(shutdown).await;
    let stopped = running.stop().await;
    if lost {
        return Err(Lost.into());
    }
    stopped
}

/// The root supervisor could not be kept alive.
#[derive(Debug, thiserror::Error)]
#[error("the supervisor could not be kept alive")]
pub struct Lost;

impl Running {
    /// Prints statistics until `shutdown` is ready. True when the supervisor was lost instead.
    pub async fn serve_until(&mut self, shutdown: impl Future<Output = ()>) -> bool {
        let system = self.system.clone();
        let mut shutdown = std::pin::pin!(shutdown);
        let mut lost = std::pin::pin!(system.lost());
        loop {
            tokio::select! {
                () = &mut shutdown => return false,
                () = &mut lost => return true,
                () = tokio::time::sleep(STATISTICS_EVERY) => {
                    tracing::info!("\n{}", self.tally().block("last 60s"));
                }
            }
        }
    }

    /// What was added since the last call.
    fn tally(&mut self) -> Totals {
        let now = Totals::read(&self.system);
        let added = now.since(&self.read);
        self.sum.add(&added);
        self.read = now;
        added
    }

    /// Stops intake, drains, flushes, closes; prints final statistics.
    ///
    /// # Errors
    /// When an actor did not stop in its time: what it held may be lost.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        tracing::info!("stopping");
        self.tally();
        let report = self.system.shutdown(self.grace).await;
        self.server.stop(false).await;
        self.tally();
        tracing::info!("\n{}", self.sum.block("since the start"));
        tracing::info!(stopped = report.stopped.len(), elapsed_ms = report.elapsed_ms, "stopped");
        if report.culprits.is_empty() {
            return Ok(());
        }
        let names: Vec<String> =
            report.culprits.iter().map(|culprit| format!("{} ({})", culprit.id, culprit.phase)).collect();
        anyhow::bail!("did not stop in time: {}", names.join(", "))
    }
}

#[allow(clippy::disallowed_methods, reason = "the server ends with the process; its handle stops it")]
fn spawn_server(server: actix_web::dev::Server) {
    drop(actix_rt::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the HTTP server ended");
        }
    }));
}

/// Ready at SIGTERM or ctrl-C.
pub async fn signals() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
