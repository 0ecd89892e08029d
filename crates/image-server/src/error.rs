//! Why a server does not start.

use std::{io, net::SocketAddr, path::PathBuf};

use object_io::{ObjectError, UriError};

use crate::service::AccountKeyError;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a server does not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Without a token everyone may call, so everyone must be on this machine.
    #[error("listening on {listen} without a token would be open to the network")]
    OpenToTheNetwork {
        /// Where it was to listen.
        listen: SocketAddr,
    },
    /// Another server works in the folder.
    #[error("`{}` is in use by another server", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// A file or folder cannot be used.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// `store.json` is not what this version writes.
    #[error("`{}` is damaged", path.display())]
    StoreFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// `store.json` names no bucket.
    #[error("`{}` names no bucket", path.display())]
    StoreBucket {
        /// The file.
        path: PathBuf,
        /// What is wrong with the name.
        source: UriError,
    },
    /// The socket.
    #[error("cannot listen on {listen}")]
    Listen {
        /// Where.
        listen: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Certificate or key.
    #[error("cannot use `{}` for TLS", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Cause,
    },
    /// The catalog.
    #[error("cannot open the catalog")]
    Catalog {
        /// Why not.
        source: Cause,
    },
    /// The store of blocks.
    #[error("cannot use the store of blocks")]
    Store {
        /// Why not.
        source: ObjectError,
    },
    /// Manifests and blocks cannot be looked at.
    #[error("cannot use the store of blocks")]
    Blocks {
        /// Why not.
        source: Cause,
    },
    /// The blocks are another catalog's: what that one uses, this one would remove.
    #[error("the blocks in {bucket} belong to another catalog")]
    ForeignStore {
        /// Bucket, and folder in it.
        bucket: String,
    },
    /// The disks in the pool are not this catalog's: it would find that no image needs them, and remove them.
    #[error("`{}` is the pool of another catalog, or holds disks of others", dir.display())]
    ForeignPool {
        /// The folder.
        dir: PathBuf,
    },
    /// The store inside this process.
    #[error("the embedded store failed")]
    EmbeddedStore {
        /// Why.
        source: local_store::Error,
    },
    /// A key file of a service account.
    #[error("`{}` registers no service account", path.display())]
    AccountKey {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: AccountKeyError,
    },
    /// The descriptors that gRPC reflection serves; a defect.
    #[error("the descriptors of the services cannot be read")]
    Descriptors {
        /// Why not.
        source: tonic_reflection::server::Error,
    },
    /// The CPU workers.
    #[error("cannot start the cpu workers")]
    Workers {
        /// Why not.
        source: io::Error,
    },
}

impl ServerError {
    /// What would help, where something would.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::OpenToTheNetwork { .. } => Some("give --token, or listen on 127.0.0.1"),
            Self::Locked { .. } => Some("stop the other server, or choose another --data-dir"),
            Self::ForeignStore { .. } => Some(
                "choose another bucket or folder in it, or that catalog's --database-url; if that catalog is gone for good, remove the \
                 object `owner` and everything beside it",
            ),
            Self::ForeignPool { .. } => Some(
                "choose another --pool, or that catalog's --database-url; if that catalog is gone for good, remove the file `owner` and \
                 the *.raw beside it",
            ),
            _ => None,
        }
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
