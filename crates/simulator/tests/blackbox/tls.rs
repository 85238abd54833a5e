//! TLS with an authority of the simulator's own, and certificates that must not be trusted.

use std::path::Path;
use std::sync::Arc;

use fathom_market::ids::Market;
use fathom_simulator::{
    CertificateProblem, Effect, Fault, FaultError, Servers, Simulator, SimulatorConfig, SimulatorHandle,
    TlsConfig,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::Connector;

use crate::client::{Ws, eventually, small, start};

const QUOTES: &str = "btcusdt@bookTicker";

fn simulator(folder: &Path) -> SimulatorHandle {
    let tls = Some(TlsConfig { folder: folder.to_owned() });
    Simulator::start(SimulatorConfig { tls, ..SimulatorConfig::seeded(&small(500.0)) }).unwrap()
}

fn trusting(authority: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

async fn ws(simulator: &SimulatorHandle, config: &Arc<ClientConfig>) -> Result<Ws, String> {
    let url = format!("{}/stream?streams={QUOTES}", simulator.ws_url(Market::Spot, "").unwrap());
    let connector = Some(Connector::Rustls(Arc::clone(config)));
    let opened = tokio_tungstenite::connect_async_tls_with_config(url, None, false, connector).await;
    opened.map(|(socket, _)| Ws(socket)).map_err(|error| format!("{error:?}"))
}

async fn ping(simulator: &SimulatorHandle, config: &Arc<ClientConfig>) -> Result<String, String> {
    let base = simulator.rest_url(Market::Spot).unwrap();
    let host = base.strip_prefix("https://").unwrap();
    let socket = TcpStream::connect(host).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connected = TlsConnector::from(Arc::clone(config)).connect(name, socket).await;
    let mut socket = connected.map_err(|error| format!("{error:?}"))?;
    let request = format!("GET /api/v3/ping HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    // A server may end without a close_notify.
    let _ = socket.read_to_end(&mut text).await;
    Ok(String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn websocket_and_rest_are_served_to_those_who_trust_the_authority() {
    let folder = TempDir::new().unwrap();
    let simulator = simulator(folder.path());
    let trusting = trusting(simulator.ca_file().unwrap());
    ws(&simulator, &trusting).await.unwrap().data(QUOTES).await;
    assert!(ping(&simulator, &trusting).await.unwrap().starts_with("HTTP/1.1 200"));
    let empty = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let stranger = ws(&simulator, &Arc::new(empty)).await.err().unwrap();
    assert!(stranger.contains("UnknownIssuer"), "{stranger}");
}

#[tokio::test]
async fn wrong_certificates_are_shown_and_refused() {
    let folder = TempDir::new().unwrap();
    let simulator = simulator(folder.path());
    let trusting = trusting(simulator.ca_file().unwrap());
    let mut before = ws(&simulator, &trusting).await.unwrap();
    for (problem, word) in [
        (CertificateProblem::OtherAuthority, "UnknownIssuer"),
        (CertificateProblem::Expired, "Expired"),
        (CertificateProblem::OtherHost, "NotValidForName"),
    ] {
        let effect = Effect::WrongCertificate { problem, on: Servers::Both };
        let id = simulator.inject(&Fault::new(Market::Spot, effect)).unwrap();
        let shown = ws(&simulator, &trusting).await.err().unwrap();
        assert!(shown.contains(word) || shown.contains("BadSignature"), "{problem:?}: {shown}");
        let shown = ping(&simulator, &trusting).await.unwrap_err();
        assert!(shown.contains(word) || shown.contains("BadSignature"), "{problem:?}: {shown}");
        simulator.take_back(id).unwrap();
        ws(&simulator, &trusting).await.unwrap();
    }
    before.data(QUOTES).await;
    let rest_only = Effect::WrongCertificate { problem: CertificateProblem::Expired, on: Servers::Rest };
    simulator.inject(&Fault::new(Market::Spot, rest_only).lasting(500)).unwrap();
    ws(&simulator, &trusting).await.unwrap();
    eventually("it ends", async || ping(&simulator, &trusting).await.is_ok()).await;
}

#[tokio::test]
async fn without_tls_there_is_no_certificate_to_be_wrong() {
    let effect = Effect::WrongCertificate { problem: CertificateProblem::Expired, on: Servers::Both };
    assert_eq!(start(10.0).inject(&Fault::new(Market::Spot, effect)), Err(FaultError::NoTls));
}
