//! local-store in a process of its own: an image server without a bucket starts one beside itself.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::garage::process::Process;
use crate::repo::{Profile, Repo};

/// A local-store that is running.
pub(super) struct Local {
    process: Process,
    keys: Value,
}

impl Local {
    /// Starts one on a free loopback port, with its files in the scratch folder.
    pub(super) fn start(repo: &Repo, scratch: &Path) -> Result<Self> {
        fs::create_dir_all(scratch)?;
        let state = scratch.join("state");
        let mut serve = Command::new(repo.build("image-server", Profile::Dev)?);
        serve.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&state);
        serve.stdout(Stdio::piped()).stderr(File::create(scratch.join("server.log"))?);
        let mut process = Process::start(&mut serve)?;
        process.first_line().context("image-server ended before it listened")?;
        let keys = serde_json::from_slice(&fs::read(state.join("store.json"))?)?;
        Ok(Self { process, keys })
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
        self.process.stop()
    }
}
