//! `cargo xtask sdk`: clients that are not ours against image-server, and ours against what is not.
//!
//! - `image-prep create` against a service that is made of the classes of the cloud's own Python SDK (PyPI), and against image-server
//!   (`sdk/create.py`): every field that can be typed arrives over REST and gRPC, and tokens are got as the SDK gets them.
//! - The cloud's own Python SDK (PyPI), in plaintext and over TLS with discovery (`sdk/check.py`).
//! - Its Node SDK (npm), over TLS (`sdk/check.mjs`). Where there is no `node`, PyPI has one.
//! - Google's Python client for Compute Engine (PyPI), in plaintext, for everybody and with a token (`sdk/check_google.py`); and
//!   `image-prep create --cloud gcp` against a service that is made of its messages, and against image-server (`sdk/create_google.py`).
//! - schemathesis (PyPI), which makes requests of the OpenAPI document that the server serves, good ones and bad ones, and holds
//!   the answers against it ([`schemathesis`]).
//!
//! All are of fixed versions and live in folders under `target/sdk`; nothing of them is in the repository. Over TLS the SDKs ask
//! for the endpoints, exchange a JWT of a service account for a token, and wait for operations in their own ways. The command fails if
//! one of them finds something, and if one cannot be had, unless `--no-install` says that it need not be.

mod schemathesis;
mod server;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::child::{Job, Limits};
use crate::repo::{Profile, Repo};
use server::{Served, Server};
use tools::Tools;

/// Arguments of `sdk`.
#[derive(Debug, Args)]
pub(crate) struct SdkArgs {
    /// Check the build for development: it is there sooner
    #[arg(long)]
    dev: bool,
    /// Skip, and say so, what is not installed yet
    #[arg(long)]
    no_install: bool,
    /// Run these only
    #[arg(long, value_delimiter = ',')]
    only: Vec<Client>,
}

/// A client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Client {
    /// image-prep, against a service of the Python SDK's classes
    Create,
    /// The Python SDK
    Python,
    /// The Node SDK
    Node,
    /// Google's Python client
    Google,
    /// What finds where the server is not as its OpenAPI document says
    Schemathesis,
}

const ALL: [Client; 5] = [Client::Create, Client::Python, Client::Node, Client::Google, Client::Schemathesis];

/// The longest time of one SDK's walk; it takes seconds.
const WALK: std::time::Duration = std::time::Duration::from_secs(300);

/// Runs each client against a server of its own.
pub(crate) fn run_sdk(repo: &Repo, args: &SdkArgs) -> Result<ExitCode> {
    let profile = if args.dev { Profile::Dev } else { Profile::Release };
    let server = Server {
        image_prep: repo.build("image-prep", profile)?,
        image_server: repo.build("image-server", profile)?,
        image: repo.path("testdata/disk.qcow2"),
        fixtures: repo.path("crates/image-server/tests"),
        slow: server::silent_source()?,
    };
    let tools = Tools { folder: repo.target().join("sdk"), may_install: !args.no_install };
    let scripts = repo.path("xtask/src/sdk");
    let scratch = tools.folder.join("state");
    let _ = fs::remove_dir_all(&scratch);
    let mut missing = Vec::new();
    for client in ALL.into_iter().filter(|client| args.only.is_empty() || args.only.contains(client)) {
        let dir = scratch.join(format!("{client:?}").to_lowercase());
        let is_there = match client {
            Client::Create => create(&tools, &server, &scripts, &dir)?,
            Client::Python => python(&tools, &server, &scripts, &dir)?,
            Client::Node => node(&tools, &server, &scripts, &dir)?,
            Client::Google => google(&tools, &server, &scripts, &dir)?,
            Client::Schemathesis => match tools.schemathesis()? {
                Some(program) => schemathesis::check(&program, &server, &scripts, &dir).map(|()| true)?,
                None => false,
            },
        };
        if !is_there {
            missing.push(format!("{client:?}"));
        }
    }
    fs::remove_dir_all(&scratch)?;
    if missing.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("SKIPPED, not installed: {}; without --no-install they are", missing.join(", "));
    Ok(ExitCode::SUCCESS)
}

/// False where it is not installed.
fn create(tools: &Tools, server: &Server, scripts: &Path, dir: &Path) -> Result<bool> {
    let Some(python) = tools.python_sdk()? else { return Ok(false) };
    // Some of the Images are to be pooled.
    let pool = dir.join("pool").to_string_lossy().into_owned();
    let served = server.start_with(dir, false, &["--pool", &pool, "--pool-quota", "1T"])?;
    let mut script = Command::new(python);
    script.arg(scripts.join("create.py")).env("IMAGE_PREP", &server.image_prep);
    walk(&mut script, server, served, dir)?;
    Ok(true)
}

/// False where it is not installed.
fn python(tools: &Tools, server: &Server, scripts: &Path, dir: &Path) -> Result<bool> {
    let Some(python) = tools.python_sdk()? else { return Ok(false) };
    for (name, is_tls) in [("plaintext", false), ("tls", true)] {
        let dir = dir.join(name);
        let served = server.start(&dir, is_tls)?;
        walk(Command::new(&python).arg(scripts.join("check.py")), server, served, &dir)?;
    }
    Ok(true)
}

/// False where it is not installed.
fn node(tools: &Tools, server: &Server, scripts: &Path, dir: &Path) -> Result<bool> {
    let Some((node, packages)) = tools.node_sdk()? else { return Ok(false) };
    let served = server.start(dir, true)?;
    // A module finds packages above itself.
    let script: PathBuf = packages.join("check.mjs");
    fs::copy(scripts.join("check.mjs"), &script).context("cannot copy check.mjs")?;
    walk(Command::new(node).arg(script), server, served, dir)?;
    Ok(true)
}

/// False where it is not installed.
fn google(tools: &Tools, server: &Server, scripts: &Path, dir: &Path) -> Result<bool> {
    let Some(python) = tools.google()? else { return Ok(false) };
    for (name, token) in [("anonymous", None), ("token", Some("google"))] {
        let dir = dir.join(name);
        let mut options = vec!["--source-bucket", "images"];
        options.extend(token.map(|token| ["--token", token]).iter().flatten());
        let served = server.start_with(&dir, false, &options)?;
        let mut script = Command::new(&python);
        script.arg(scripts.join("check_google.py")).env("ARCHIVE", &served.archive);
        if let Some(token) = token {
            script.env("TOKEN", token);
        }
        walk(&mut script, server, served, &dir)?;
    }
    let dir = dir.join("create");
    let served = server.start_with(&dir, false, &["--source-bucket", "images"])?;
    let mut script = Command::new(&python);
    script.arg(scripts.join("create_google.py")).env("IMAGE_PREP", &server.image_prep);
    served.store.tell(script.env("DISK", &server.image));
    walk(&mut script, server, served, &dir)?;
    Ok(true)
}

/// Runs a script against a server, tells what it says, and stops the server.
fn walk(script: &mut Command, server: &Server, served: Served, dir: &Path) -> Result<()> {
    script.env("ENDPOINT", &served.endpoint);
    script.env("GOOD_URI", &served.good).env("SLOW_URI", format!("http://{}/disk?signature=x", server.slow));
    script.env("ACCOUNT_KEY", server.fixtures.join("iam/key.json"));
    script.env("ACCOUNT_PRIVATE_KEY", server.fixtures.join("iam/private.pem"));
    if served.is_tls {
        script.env("ROOT", server.fixtures.join("tls/root.pem"));
    }
    let (said, complaints) = (dir.join("walk.log"), dir.join("walk.err"));
    let walked = Job::new(script, &complaints, Limits::wall(WALK)).printing_to(&said).succeed();
    print!("{}", fs::read_to_string(said).unwrap_or_default());
    if let Err(error) = walked {
        bail!("{error:#}\nthe server's log is {}", served.log.display());
    }
    served.process.stop()
}
