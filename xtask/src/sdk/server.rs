//! The server that the clients are let loose on: of its own folder, with its own store, and an image there to be made of.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::garage::process::Process;
use crate::repo::output;

/// What a server is started from.
pub(super) struct Server {
    pub(super) image_prep: PathBuf,
    pub(super) image_server: PathBuf,
    pub(super) image: PathBuf,
    pub(super) fixtures: PathBuf,
    /// Host and port of [`silent_source`].
    pub(super) slow: String,
}

/// A server that runs.
pub(super) struct Served {
    pub(super) process: Process,
    /// Host and port.
    pub(super) endpoint: String,
    pub(super) is_tls: bool,
    /// The pre-signed URL of an image.
    pub(super) good: String,
    /// How Compute Engine's API names an archive of the same disk.
    pub(super) archive: String,
    /// The server's own store.
    pub(super) store: Keys,
    pub(super) log: PathBuf,
}

impl Server {
    /// Starts one in a folder: in plaintext for everybody on this machine, or over TLS for the service account of the tests, who
    /// may do everything in the folder `b1gfolder`.
    pub(super) fn start(&self, dir: &Path, is_tls: bool) -> Result<Served> {
        self.start_with(dir, is_tls, &[])
    }

    /// The same with more options.
    pub(super) fn start_with(&self, dir: &Path, is_tls: bool, options: &[&str]) -> Result<Served> {
        fs::create_dir_all(dir)?;
        let state = dir.join("server");
        let port = free_port()?;
        let endpoint = format!("localhost:{port}");
        let serve = || {
            let mut serve = Command::new(&self.image_server);
            serve.args(["serve", "--data-dir"]).arg(&state);
            serve.args(["--listen", &format!("127.0.0.1:{port}")]);
            serve
        };
        // The store inside the server chooses its port at its first start, and keeps it.
        start(&mut serve(), &dir.join("first.log"))?.stop()?;
        let store = Keys::read(&state)?;
        let mut serve = serve();
        serve.args(["--allow-http", "--allow-uri-host", &self.slow, "--allow-uri-host", store.host()]);
        serve.args(options);
        if is_tls {
            serve.arg("--tls-cert").arg(self.fixtures.join("tls/cert.pem"));
            serve.arg("--tls-key").arg(self.fixtures.join("tls/key.pem"));
            serve.arg("--account-key").arg(self.fixtures.join("iam/key.json"));
            serve.args(["--grant", "ajeaccount=admin@b1gfolder"]);
            // The Python SDK makes the audience from what it takes for a domain, the Node SDK has the cloud's own.
            serve.args(["--audience", &format!("https://iam.{endpoint}/iam/v1/tokens")]);
            serve.args(["--audience", "https://iam.api.cloud.yandex.net/iam/v1/tokens"]);
        }
        let log = dir.join("server.log");
        let process = start(&mut serve, &log)?;
        let good = self.upload(&store, "disk.qcow2", &[])?;
        let archive = "up/disk.tar.gz";
        self.upload(&store, archive, &["--to", "gce"])?;
        let archive = format!("https://storage.googleapis.com/{}/{archive}", store.bucket);
        Ok(Served { process, endpoint, is_tls, good, archive, store, log })
    }

    /// Uploads an image to the server's own store; gives its pre-signed URL.
    fn upload(&self, store: &Keys, key: &str, options: &[&str]) -> Result<String> {
        let mut upload = Command::new(&self.image_prep);
        upload.arg("upload").arg(&self.image).arg(format!("s3://{}/{key}", store.bucket)).args(options);
        upload.env("AWS_ENDPOINT_URL", &store.endpoint).env("AWS_REGION", &store.region);
        upload.env("AWS_ACCESS_KEY_ID", &store.access_key).env("AWS_SECRET_ACCESS_KEY", &store.secret_key);
        upload.args(["--no-resume", "--json"]);
        let said: serde_json::Value = serde_json::from_str(&output(&mut upload)?)?;
        Ok(said["url"].as_str().context("`image-prep upload --json` printed no `url`")?.to_owned())
    }
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
pub(super) struct Keys {
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

    /// Tells a script where it is, and what it is opened by.
    pub(super) fn tell(&self, script: &mut Command) {
        script.env("STORE_ENDPOINT", &self.endpoint).env("STORE_REGION", &self.region);
        script.env("STORE_ACCESS_KEY", &self.access_key).env("STORE_SECRET_KEY", &self.secret_key);
        script.env("STORE_BUCKET", &self.bucket);
    }

    fn host(&self) -> &str {
        self.endpoint.trim_start_matches("http://")
    }
}

/// A server that takes requests and never answers: what is read from it lasts until it is cancelled.
pub(super) fn silent_source() -> Result<String> {
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
