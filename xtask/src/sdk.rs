//! `cargo xtask sdk`: the official Python SDK of the cloud against image-server, over TLS with discovery and in plaintext.
//!
//! The SDK comes from PyPI, of a fixed version, into a virtual environment under `target/sdk`; nothing of it is in the
//! repository. Over TLS it asks for the endpoints, exchanges a JWT of a service account for a token, and waits for operations
//! in its own way; in plaintext it is told the endpoint for each client and shows no token. What it does is in `sdk/check.py`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::garage::process::Process;
use crate::repo::{Profile, Repo, output, run};

/// Arguments of `sdk`.
#[derive(Debug, Args)]
pub(crate) struct SdkArgs {
    /// Check the build for development: it is there sooner
    #[arg(long)]
    dev: bool,
    /// Skip, and say so, where the SDK is not installed yet
    #[arg(long)]
    no_install: bool,
}

/// The version that is checked.
const VERSION: &str = "0.413.0";

/// Runs the SDK against both kinds of server.
pub(crate) fn run_sdk(repo: &Repo, args: &SdkArgs) -> Result<ExitCode> {
    let Some(python) = python(repo, args.no_install)? else {
        println!("SKIPPED: the SDK is not there; `cargo xtask sdk` installs it from PyPI");
        return Ok(ExitCode::SUCCESS);
    };
    let profile = if args.dev { Profile::Dev } else { Profile::Release };
    let tools = Tools {
        python,
        image_prep: repo.build("image-prep", profile)?,
        image_server: repo.build("image-server", profile)?,
        script: repo.path("xtask/src/sdk/check.py"),
        image: repo.path("testdata/disk.qcow2"),
        fixtures: repo.path("crates/image-server/tests"),
    };
    let scratch = repo.target().join("sdk/state");
    let _ = fs::remove_dir_all(&scratch);
    let slow = silent_source()?;
    for is_tls in [false, true] {
        check(&tools, &scratch.join(if is_tls { "tls" } else { "plaintext" }), &slow, is_tls)?;
    }
    fs::remove_dir_all(&scratch)?;
    Ok(ExitCode::SUCCESS)
}

struct Tools {
    python: PathBuf,
    image_prep: PathBuf,
    image_server: PathBuf,
    script: PathBuf,
    image: PathBuf,
    fixtures: PathBuf,
}

/// A Python that has the SDK, made if it is not there; `None` if it must not be.
fn python(repo: &Repo, no_install: bool) -> Result<Option<PathBuf>> {
    let folder = repo.target().join("sdk").join(VERSION);
    let (python, ready) = (folder.join("bin/python"), folder.join("ready"));
    if !ready.exists() {
        if no_install {
            return Ok(None);
        }
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        let package = format!("yandexcloud=={VERSION}");
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", &package]))?;
        fs::write(ready, VERSION)?;
    }
    Ok(Some(python))
}

fn check(tools: &Tools, dir: &Path, slow: &str, is_tls: bool) -> Result<()> {
    fs::create_dir_all(dir)?;
    let state = dir.join("server");
    let port = free_port()?;
    let endpoint = format!("localhost:{port}");
    let serve = || {
        let mut serve = Command::new(&tools.image_server);
        serve.args(["serve", "--data-dir"]).arg(&state);
        serve.args(["--listen", &format!("127.0.0.1:{port}")]);
        serve
    };
    // The store inside the server chooses its port at its first start, and keeps it.
    start(&mut serve(), &dir.join("first.log"))?.stop()?;
    let store = Keys::read(&state)?;
    let mut serve = serve();
    serve.args(["--allow-http", "--allow-uri-host", slow, "--allow-uri-host", store.host()]);
    if is_tls {
        serve.arg("--tls-cert").arg(tools.fixtures.join("tls/cert.pem"));
        serve.arg("--tls-key").arg(tools.fixtures.join("tls/key.pem"));
        serve.arg("--account-key").arg(tools.fixtures.join("iam/key.json"));
        serve.args(["--grant", "ajeaccount=admin@b1gfolder"]);
        // The SDK makes the audience from what it takes for a domain.
        serve.args(["--audience", &format!("https://iam.{endpoint}/iam/v1/tokens")]);
    }
    let server = start(&mut serve, &dir.join("server.log"))?;
    let mut script = Command::new(&tools.python);
    script.arg(&tools.script).env("ENDPOINT", &endpoint);
    script.env("GOOD_URI", upload(tools, &store)?).env("SLOW_URI", format!("http://{slow}/disk?signature=x"));
    if is_tls {
        script.env("ROOT", tools.fixtures.join("tls/root.pem"));
        script.env("ACCOUNT_KEY", tools.fixtures.join("iam/key.json"));
        script.env("ACCOUNT_PRIVATE_KEY", tools.fixtures.join("iam/private.pem"));
    }
    run(&mut script).with_context(|| format!("the server's log is {}", dir.join("server.log").display()))?;
    server.stop()
}

fn start(serve: &mut Command, log: &Path) -> Result<Process> {
    let mut server = Process::start(serve.stdout(Stdio::piped()).stderr(fs::File::create(log)?))?;
    let line = server.first_line().context("image-server ended before it listened")?;
    ensure!(line.starts_with("listening on "), "image-server said {line:?}");
    Ok(server)
}

/// What a server's `store.json` says.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Keys {
    endpoint: String,
    region: String,
    bucket: String,
    access_key: String,
    secret_key: String,
}

impl Keys {
    fn read(state: &Path) -> Result<Self> {
        Ok(serde_json::from_slice(&fs::read(state.join("store.json"))?)?)
    }

    fn host(&self) -> &str {
        self.endpoint.trim_start_matches("http://")
    }
}

/// Uploads an image to the server's own store; gives its pre-signed URL.
fn upload(tools: &Tools, store: &Keys) -> Result<String> {
    let mut upload = Command::new(&tools.image_prep);
    upload.arg("upload").arg(&tools.image).arg(format!("s3://{}/disk.qcow2", store.bucket));
    upload.env("AWS_ENDPOINT_URL", &store.endpoint).env("AWS_REGION", &store.region);
    upload.env("AWS_ACCESS_KEY_ID", &store.access_key).env("AWS_SECRET_ACCESS_KEY", &store.secret_key);
    upload.args(["--no-resume", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&output(&mut upload)?)?;
    Ok(said["url"].as_str().context("`image-prep upload --json` printed no `url`")?.to_owned())
}

/// A server that takes requests and never answers: what is read from it lasts until it is cancelled.
fn silent_source() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    // Ends with the process.
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.flush();
            open.push(stream);
        }
    });
    Ok(address)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
