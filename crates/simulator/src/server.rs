//! Starts and stops a simulator: ports, threads, and the handle that reaches into it.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use fathom_market::ids::Market;
use rustls::ServerConfig;
use thiserror::Error;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use crate::config::{MarketConfig, SimulatorConfig, Source};
use crate::control::{Control, MarketStatus, TrueBook, configure};
use crate::engine::Runner;
use crate::engine::cell::Cell;
use crate::faults::{Fault, FaultError, Servers};
use crate::hub::made::Memory;
use crate::ledger::Ledger;
use crate::ledger::entries::StreamSummary;
use crate::market::MarketState;
use crate::number::now_ms;
use crate::rate::Pace;
use crate::recorded::{RecordedManifest, Replay, ScanError};
use crate::roster::Roster;
use crate::tls::{Certificates, TlsError};
use crate::universe::listings;
use crate::{rest, ws};

/// Why a simulator did not start.
#[derive(Debug, Error)]
pub enum SimulatorError {
    /// A port is taken, or a thread could not be started.
    #[error("cannot start the simulator: {0}")]
    Io(#[from] std::io::Error),
    /// A recording cannot be used.
    #[error("recording: {0}")]
    Recording(#[from] ScanError),
    /// There are no certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The configuration names no market.
    #[error("no market is configured")]
    NoMarket,
}

/// The simulated venue.
#[derive(Clone, Copy, Debug)]
pub struct Simulator;

/// A running simulator; dropping it stops it.
pub struct SimulatorHandle {
    control: Control,
    control_addr: SocketAddr,
    addresses: Vec<(Market, SocketAddr, SocketAddr)>,
    ca_file: Option<PathBuf>,
    runtime: Option<Runtime>,
    http: Vec<ServerHandle>,
    http_thread: Option<JoinHandle<()>>,
}

/// A market's data before its state is built.
struct Prepared {
    market: Market,
    config: MarketConfig,
    roster: Arc<Roster>,
    replay: Option<Arc<Replay>>,
}

fn prepare(market: Market, config: &MarketConfig) -> Result<Prepared, SimulatorError> {
    let (listings, replay) = match &config.source {
        Source::Seeded(seeded) => (listings(market, &seeded.symbols, seeded.max_levels), None),
        Source::Recorded(recorded) => {
            let manifest = RecordedManifest::scan(market, &recorded.files)?;
            (manifest.listings(), Some(Arc::new(Replay::new(recorded.clone(), manifest))))
        }
    };
    Ok(Prepared { market, config: config.clone(), roster: Arc::new(Roster::new(listings)), replay })
}

impl Prepared {
    fn state(self, ledger: &Arc<Ledger>, now: i64, config: &SimulatorConfig) -> Arc<MarketState> {
        let memory = Memory::new(config.remembered);
        let cells = self.roster.iter().map(|listing| match &self.config.source {
            Source::Recorded(_) => Cell::recorded(&memory),
            Source::Seeded(seeded) => {
                let first_id = seeded.first_id.unwrap_or(now.unsigned_abs() * 1000);
                Cell::seeded(self.market, listing, seeded, first_id, now, &memory)
            }
        });
        let cells = cells.collect();
        Arc::new(MarketState::new(
            self.market,
            self.config,
            self.roster,
            cells,
            Arc::clone(ledger),
            (self.replay, memory),
            config.tls.is_some(),
        ))
    }
}

fn bind(host: IpAddr, port: u16) -> Result<(TcpListener, SocketAddr), std::io::Error> {
    let listener = TcpListener::bind((host, port))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

impl Simulator {
    /// Starts the simulator and returns once every port answers.
    ///
    /// # Errors
    /// A port that cannot be bound, a recording that cannot be read, no market.
    pub fn start(config: SimulatorConfig) -> Result<SimulatorHandle, SimulatorError> {
        let mut prepared = Vec::new();
        for market in Market::ALL {
            prepared.extend(config.market(market).map(|of| prepare(market, of)).transpose()?);
        }
        if prepared.is_empty() {
            return Err(SimulatorError::NoMarket);
        }
        let known = |market| {
            let found = prepared.iter().find(|prepared| prepared.market == market);
            found.map_or_else(|| Arc::new(Roster::new(Vec::new())), |prepared| Arc::clone(&prepared.roster))
        };
        let ledger = Arc::new(Ledger::new(config.ledger_cap.max(1), Market::ALL.map(known)));
        let now = now_ms();
        let markets: Vec<_> =
            prepared.into_iter().map(|prepared| prepared.state(&ledger, now, &config)).collect();
        let control = Control { ledger, markets };
        let certificates = config.tls.as_ref().map(|tls| Certificates::make(&tls.folder)).transpose()?;
        Self::open(&config, control, now, certificates)
    }

    fn open(
        config: &SimulatorConfig,
        control: Control,
        now: i64,
        certificates: Option<(Certificates, PathBuf)>,
    ) -> Result<SimulatorHandle, SimulatorError> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).thread_name("simulator").enable_all().build()?;
        let (control_listener, control_addr) = bind(config.host, config.control_port)?;
        let ids = Arc::new(AtomicU64::new(0));
        let (mut addresses, mut rests) = (Vec::new(), Vec::new());
        for state in &control.markets {
            let (rest_listener, rest_addr) = bind(config.host, state.config.rest_port)?;
            let (ws_listener, ws_addr) = bind(config.host, state.config.ws_port)?;
            addresses.push((state.market, rest_addr, ws_addr));
            let tls = |servers| {
                let made =
                    certificates.as_ref().map(|(made, _)| made.server(servers, Arc::clone(&state.faults)));
                made.transpose()
            };
            rests.push(Rest { listener: rest_listener, state: Arc::clone(state), tls: tls(Servers::Rest)? });
            let acceptor = tls(Servers::Ws)?.map(|config| TlsAcceptor::from(Arc::new(config)));
            let handle = runtime.handle();
            let accepting = {
                let _inside = handle.enter();
                tokio::net::TcpListener::from_std(ws_listener)?
            };
            handle.spawn(ws::serve(accepting, Arc::clone(state), Arc::clone(&ids), acceptor));
            match (&state.config.source, &state.replay) {
                (Source::Seeded(seeded), _) => {
                    drop(handle.spawn(Runner::new(Arc::clone(state), seeded, now).run()))
                }
                (_, Some(replay)) => drop(handle.spawn(Arc::clone(replay).run(Arc::clone(state)))),
                _ => {}
            }
        }
        let (http_thread, http) = serve_http(control_listener, rests, control.clone())?;
        Ok(SimulatorHandle {
            control,
            control_addr,
            addresses,
            ca_file: certificates.map(|(_, path)| path),
            runtime: Some(runtime),
            http,
            http_thread: Some(http_thread),
        })
    }
}

/// A REST server to be.
struct Rest {
    listener: TcpListener,
    state: Arc<MarketState>,
    tls: Option<ServerConfig>,
}

/// Runs the HTTP servers on a thread of their own and waits until they are up.
fn serve_http(
    control_listener: TcpListener,
    rests: Vec<Rest>,
    control: Control,
) -> Result<(JoinHandle<()>, Vec<ServerHandle>), std::io::Error> {
    let (ready, up) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("simulator-http".to_owned()).spawn(move || {
        actix_rt::System::new().block_on(async move {
            match http_servers(control_listener, rests, control) {
                Ok(servers) => {
                    let _ = ready.send(Ok(servers.iter().map(actix_web::dev::Server::handle).collect()));
                    futures_util::future::join_all(servers).await;
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        });
    })?;
    let handles = up.recv().map_err(|_| std::io::Error::other("the HTTP thread ended"))??;
    Ok((thread, handles))
}

fn http_servers(
    control_listener: TcpListener,
    rests: Vec<Rest>,
    control: Control,
) -> Result<Vec<actix_web::dev::Server>, std::io::Error> {
    let data = web::Data::new(control);
    let controls = HttpServer::new(move || App::new().app_data(data.clone()).configure(configure));
    let mut servers =
        vec![controls.workers(1).disable_signals().shutdown_timeout(0).listen(control_listener)?.run()];
    for Rest { listener, state, tls } in rests {
        let data = web::Data::new(state);
        let rest = HttpServer::new(move || {
            App::new().app_data(data.clone()).default_service(web::route().to(rest::handle))
        });
        let rest = rest.workers(1).disable_signals().shutdown_timeout(0);
        let rest = match tls {
            Some(config) => rest.listen_rustls_0_23(listener, config)?,
            None => rest.listen(listener)?,
        };
        servers.push(rest.run());
    }
    Ok(servers)
}

impl SimulatorHandle {
    fn addresses(&self, market: Market) -> Option<&(Market, SocketAddr, SocketAddr)> {
        self.addresses.iter().find(|(of, _, _)| *of == market)
    }

    /// The authority to be trusted, where the servers speak TLS.
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// Base of the REST paths, such as `http://127.0.0.1:4711`; `None` for a market that is not simulated.
    pub fn rest_url(&self, market: Market) -> Option<String> {
        let scheme = if self.ca_file.is_some() { "https" } else { "http" };
        self.addresses(market).map(|(_, rest, _)| format!("{scheme}://{rest}"))
    }

    /// Base of the WebSocket paths `/stream` and `/ws`. On futures `class` is `public` or `market`; spot has one class only
    /// and does not look at it.
    pub fn ws_url(&self, market: Market, class: &str) -> Option<String> {
        let scheme = if self.ca_file.is_some() { "wss" } else { "ws" };
        self.addresses(market).map(|(_, _, ws)| match market {
            Market::Spot => format!("{scheme}://{ws}"),
            Market::Futures => format!("{scheme}://{ws}/{class}"),
        })
    }

    /// Base of the control paths `/sim/...`.
    pub fn control_url(&self) -> String {
        format!("http://{}", self.control_addr)
    }

    /// What was sent, to whom, and what happened.
    pub fn ledger(&self) -> &Ledger {
        &self.control.ledger
    }

    /// Puts a fault in and answers its id in the ledger.
    ///
    /// # Errors
    /// A market, stream or symbol that does not exist, or no connection to hit.
    pub fn inject(&self, fault: &Fault) -> Result<u64, FaultError> {
        self.control.inject(fault)
    }

    /// Takes a fault back.
    ///
    /// # Errors
    /// There is no fault of that id.
    pub fn take_back(&self, id: u64) -> Result<(), FaultError> {
        self.control.take_back(id)
    }

    /// Sets the pace of a market; `None` where it is not simulated.
    pub fn set_pace(&self, market: Market, pace: Pace) -> Option<Pace> {
        self.control.set_pace(market, pace)
    }

    /// What each stream made in a range of times, both ends in it, and who got it.
    pub fn summary(&self, market: Market, from_ms: i64, to_ms: i64) -> Vec<StreamSummary> {
        self.control.summary(market, (from_ms, to_ms))
    }

    /// A market in figures.
    pub fn status(&self, market: Market) -> Option<MarketStatus> {
        self.control.status(market)
    }

    /// The true book of a symbol, now or as it was at an id of the last 60 s.
    pub fn book(&self, market: Market, symbol: &str, id: Option<u64>) -> Option<TrueBook> {
        self.control.book(market, symbol, id)
    }

    /// Native symbols of a market, dead ones included.
    pub fn symbols(&self, market: Market) -> Vec<String> {
        let state = self.control.market(market);
        state
            .map(|state| state.roster.iter().map(|listing| listing.native.clone()).collect())
            .unwrap_or_default()
    }

    /// What a recorded market holds; `None` for other markets.
    pub fn manifest(&self, market: Market) -> Option<&RecordedManifest> {
        self.control.market(market)?.replay.as_ref().map(|replay| &replay.manifest)
    }

    /// Sets recorded markets going, whatever they wait for.
    pub fn start_replay(&self) {
        self.control.start_replay();
    }

    /// Stops every server and thread. Connections are cut.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        for server in self.http.drain(..) {
            // The command is sent by the call; nobody waits for its answer.
            drop(server.stop(false));
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        if let Some(thread) = self.http_thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for SimulatorHandle {
    fn drop(&mut self) {
        self.stop();
    }
}
