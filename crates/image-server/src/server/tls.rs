//! Certificate and key, by rustls with ring.

use std::{path::Path, sync::Arc};

use axum_server::tls_rustls::RustlsConfig;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::{ServerError, TlsFiles};

pub(crate) fn load(files: &TlsFiles) -> Result<RustlsConfig, ServerError> {
    let TlsFiles { certificate, key } = files;
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|source| unusable(certificate, source))?;
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|source| unusable(key, source))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth())
        .and_then(|builder| builder.with_single_cert(chain, key_der))
        .map_err(|source| unusable(certificate, source))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(RustlsConfig::from_config(Arc::new(config)))
}

fn unusable(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> ServerError {
    ServerError::Tls { path: path.to_owned(), source: Box::new(source) }
}
