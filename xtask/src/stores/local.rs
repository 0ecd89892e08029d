//! local-store in a process of its own: an image server without a bucket starts one beside itself.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde_json::Value;

use crate::image_server::ImageServer;
use crate::repo::{Profile, Repo};

/// A local-store that is running.
pub(super) struct Local {
    server: ImageServer,
    keys: Value,
}

impl Local {
    /// Starts one on a free loopback port, with its files in the scratch folder.
    pub(super) fn start(repo: &Repo, scratch: &Path) -> Result<Self> {
        fs::create_dir_all(scratch)?;
        let state = scratch.join("state");
        let server = ImageServer::start(&repo.build("image-server", Profile::Dev)?, &state, &[])?;
        let keys = serde_json::from_slice(&fs::read(state.join("store.json"))?)?;
        Ok(Self { server, keys })
    }

    /// What a client of it finds in its environment.
    pub(super) fn environment(&self, command: &mut Command) {
        for (variable, key) in [
            ("AWS_ENDPOINT_URL_S3", "endpoint"),
            ("AWS_REGION", "region"),
            ("AWS_ACCESS_KEY_ID", "accessKey"),
            ("AWS_SECRET_ACCESS_KEY", "secretKey"),
        ] {
            command.env(variable, self.keys[key].as_str().unwrap_or_default());
        }
    }

    /// Ends it.
    pub(super) fn stop(self) -> Result<()> {
        self.server.stop()
    }
}
