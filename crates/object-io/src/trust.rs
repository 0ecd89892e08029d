//! Which authorities are trusted: the system's, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
//!
//! A machine without any (a bare container) must still reach loopback. Both HTTP stacks take its absence for a defect, one by a
//! panic, so they are told to trust nobody there; TLS then fails as it must, when it is used.

use std::sync::LazyLock;

use aws_smithy_http_client::tls::{TlsContext, TrustStore};

static ANY: LazyLock<bool> = LazyLock::new(|| !rustls_native_certs::load_native_certs().certs.is_empty());

/// For the SDK's HTTP client.
pub(crate) fn sdk_context() -> TlsContext {
    let store = TrustStore::empty().with_native_roots(*ANY);
    // Only custom certificates can fail.
    TlsContext::builder().with_trust_store(store).build().unwrap_or_default()
}

/// For the HTTP client of ranges.
pub(crate) fn of_system(builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
    if *ANY { builder } else { builder.tls_certs_only([]) }
}
