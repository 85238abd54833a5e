//! TLS of a simulated venue: an authority made at the start, a certificate of it for loopback, and the wrong ones that a
//! fault shows instead.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use thiserror::Error;

use crate::faults::market::MarketFaults;
use crate::faults::{CertificateProblem, Servers};
use crate::number::now_ms;

/// Why there is no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A certificate cannot be made.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A key cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The authority's file cannot be written.
    #[error("cannot write {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// The certificates of a venue.
#[derive(Clone, Debug)]
pub(crate) struct Certificates {
    sound: Arc<CertifiedKey>,
    other_authority: Arc<CertifiedKey>,
    expired: Arc<CertifiedKey>,
    other_host: Arc<CertifiedKey>,
}

fn authority(name: &str) -> Result<(Issuer<'static, KeyPair>, String), TlsError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let pem = params.self_signed(&key)?.pem();
    Ok((Issuer::new(params, key), pem))
}

fn certificate(
    issuer: &Issuer<'static, KeyPair>,
    hosts: &[&str],
    expired: bool,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let mut params = CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>())?;
    params.not_before = date_time_ymd(2020, 1, 1);
    if expired {
        params.not_after = date_time_ymd(2020, 2, 1);
    }
    let key = KeyPair::generate()?;
    let signed = params.signed_by(&key, issuer)?;
    let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signer = ring::sign::any_supported_type(&secret)?;
    Ok(Arc::new(CertifiedKey::new(vec![signed.der().clone()], signer)))
}

impl Certificates {
    /// Makes an authority and its certificates, and writes `ca.pem` into `folder`; answers its path.
    pub(crate) fn make(folder: &Path) -> Result<(Self, PathBuf), TlsError> {
        const HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
        let (issuer, pem) = authority("fathom simulated exchanges")?;
        let (stranger, _) = authority("nobody knows this authority")?;
        let certificates = Self {
            sound: certificate(&issuer, &HOSTS, false)?,
            other_authority: certificate(&stranger, &HOSTS, false)?,
            expired: certificate(&issuer, &HOSTS, true)?,
            other_host: certificate(&issuer, &["elsewhere.invalid"], false)?,
        };
        let path = folder.join("ca.pem");
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, pem));
        written.map_err(|source| TlsError::File { path: path.clone(), source })?;
        Ok((certificates, path))
    }

    /// The configuration of a server, which looks at the market's faults for every connection.
    pub(crate) fn server(
        &self,
        servers: Servers,
        faults: Arc<MarketFaults>,
    ) -> Result<ServerConfig, TlsError> {
        let resolver = Resolver { certificates: self.clone(), servers, faults };
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        // A resumed session shows no certificate: every connection has to see the present one.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

#[derive(Debug)]
struct Resolver {
    certificates: Certificates,
    servers: Servers,
    faults: Arc<MarketFaults>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = match self.faults.certificate(self.servers, now_ms()) {
            None => &self.certificates.sound,
            Some(CertificateProblem::OtherAuthority) => &self.certificates.other_authority,
            Some(CertificateProblem::Expired) => &self.certificates.expired,
            Some(CertificateProblem::OtherHost) => &self.certificates.other_host,
        };
        Some(Arc::clone(shown))
    }
}
