//! The TLS configuration that WebSocket and REST share: Mozilla's roots and, where configured, one more authority.
//!
//! Certificate checks are never switched off here; a private endpoint is trusted by naming its authority.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::TransportError;

/// Whom to trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// A PEM file of further certificate authorities, trusted beside the built-in roots.
    pub extra_ca: Option<PathBuf>,
}

impl TlsConfig {
    /// Builds the client configuration, and installs the process's crypto provider where there is none yet.
    ///
    /// # Errors
    /// [`TransportError::Tls`] when the file cannot be read, holds no certificate, or holds one that cannot be an
    /// authority.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, TransportError> {
        install_provider();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| TransportError::Tls(e.to_string()))?
            .with_root_certificates(self.roots()?)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, TransportError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let Some(path) = &self.extra_ca else { return Ok(roots) };
        let failed = |reason: String| TransportError::Tls(format!("extra ca {}: {reason}", path.display()));

        let mut added = 0;
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| failed(e.to_string()))? {
            let certificate = certificate.map_err(|e| failed(e.to_string()))?;
            roots.add(certificate).map_err(|e| failed(e.to_string()))?;
            added += 1;
        }
        if added == 0 {
            return Err(failed("no certificate in it".into()));
        }
        Ok(roots)
    }
}

/// Makes ring the process's crypto provider, unless one is installed already. Call it before any library makes a TLS
/// client of its own; calling it again does nothing.
pub fn install_provider() {
    if CryptoProvider::get_default().is_none() {
        // Another thread may have won the race, which is as good.
        let _ = ring::default_provider().install_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installs_a_provider_once() {
        install_provider();
        install_provider();
        assert!(CryptoProvider::get_default().is_some());
        assert!(TlsConfig::default().client_config().is_ok());
    }

    #[test]
    fn an_authority_is_trusted_beside_the_built_in_roots() {
        let extra_ca = Some(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/authority.pem").into());
        let roots = TlsConfig { extra_ca }.roots().unwrap();
        assert_eq!(roots.len(), webpki_roots::TLS_SERVER_ROOTS.len() + 1);
    }

    #[test]
    fn an_unusable_authority_file_is_named() {
        let missing = TlsConfig { extra_ca: Some("no/such/authority.pem".into()) };
        let error = missing.client_config().unwrap_err();
        assert!(error.to_string().contains("no/such/authority.pem"), "{error}");

        let empty = TlsConfig { extra_ca: Some(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into()) };
        let error = empty.client_config().unwrap_err();
        assert!(error.to_string().contains("no certificate in it"), "{error}");
        assert_eq!(error.class(), crate::ErrorClass::Fatal);
    }
}
