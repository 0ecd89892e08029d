//! The cloud of `--local`: an object store and an image server inside this process, on loopback.
//!
//! It is [`image_server`]'s embedded default in a folder of the user: the real protocols, and state that survives the process. The
//! folder is locked while a command uses it. The store keeps its port and its keys there, so that the URLs of an operation that a
//! kill interrupted are good when the next command takes it up.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use image_api::{Client, ClientOptions, Token, Transport, Uuid};
use image_server::{Config, Running, Server};
use object_io::{Journal, Store};

use crate::context::Context;
use crate::error::Error;
use crate::{folders, resume};

/// For the servers to end what they are busy with, above all the removal of what was deleted. The next start takes up the rest.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// The servers while they run.
pub(crate) struct Local {
    running: Running,
    client: Client,
    token: Token,
}

impl Local {
    /// Starts the servers over `dir`, the user's own folder where `None`.
    ///
    /// Images may be read from anywhere: an earlier command may have left an operation on a URL of its own, which was checked
    /// when it was typed. Others on this machine have no token, so they can name no URL.
    pub(crate) async fn start(
        dir: Option<&Path>,
        transport: Transport,
        context: &Context,
    ) -> Result<Self, Error> {
        let dir = dir.map_or_else(default_dir, |dir| Ok(dir.to_owned()))?;
        let mut config = Config::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), dir);
        config.memory = context.memory();
        config.jobs = Some(context.jobs());
        config.any_uri_host = true;
        // A UUID has 122 random bits, and its digits are those of a token.
        let text = Uuid::new_v4().simple().to_string();
        let token = Token::new(&text).ok_or_else(|| Error::Token { place: "this program".to_owned() })?;
        config.tokens.push(token.clone());
        let running = Server::start(config).await.map_err(|source| Error::Local { source })?;
        let options = ClientOptions { transport, ..ClientOptions::default() };
        let client = Client::with_options(&running.endpoint, Some(token.clone()), &options)?;
        Ok(Self { running, client, token })
    }

    /// A client of the image server.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Scheme and address of the image server.
    pub(crate) fn endpoint(&self) -> &str {
        &self.running.endpoint
    }

    /// What the image server asks for.
    pub(crate) fn token(&self) -> &Token {
        &self.token
    }

    /// The object store.
    pub(crate) fn store(&self) -> &Store {
        &self.running.store
    }

    /// Makes a bucket where it is missing, and removes what uploads to it left behind that a kill interrupted and no journal
    /// knows: nobody else uploads, the folder is locked.
    pub(crate) async fn bucket(&self, bucket: &str, context: &Context) -> Result<(), Error> {
        self.running.store.create_bucket_if_missing(bucket, &context.cancel).await?;
        let journalled = resume::folder().map(|folder| Journal::upload_ids(&folder)).unwrap_or_default();
        for upload in self.running.store.list_uploads(bucket, "", &context.cancel).await? {
            if journalled.contains(&upload.id) {
                continue;
            }
            self.running.store.abort_upload(bucket, &upload.key, &upload.id, &context.cancel).await?;
        }
        Ok(())
    }

    /// Stops the servers, for a bounded time.
    pub(crate) async fn stop(self, context: &Context) {
        let late = async {
            let interrupted =
                context.cancel.run_until_cancelled(tokio::time::sleep(STOP_GRACE)).await.is_none();
            if interrupted {
                tokio::time::sleep(context.grace.local_servers()).await;
            }
        };
        // Its idle connections would be waited for.
        drop(self.client);
        tokio::select! {
            () = self.running.shutdown() => {}
            () = late => tracing::info!("the local servers are cut off"),
        }
    }
}

/// `$XDG_DATA_HOME/image-prep/local`.
fn default_dir() -> Result<PathBuf, Error> {
    Ok(folders::of_user("XDG_DATA_HOME", ".local/share").ok_or(Error::NoDataHome)?.join("local"))
}
