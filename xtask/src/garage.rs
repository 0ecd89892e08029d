//! `cargo xtask garage`: the main job against garage, an object store that somebody else wrote, as the bucket of both ends.
//!
//! garage 2.5 is under the AGPL: it runs as a process of its own, and nothing links it. Building it takes some 17 minutes of CPU, so
//! it is built once, under `target/garage`. It verifies part checksums and full-object checksums, which few stores do.

pub(crate) mod process;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::content::Content;
use crate::images::{self, Size, Table, check_operation, compare_back};
use crate::repo::{Profile, Repo, output, run};
use process::Process;

/// Arguments of `garage`.
#[derive(Debug, Args)]
pub(crate) struct GarageArgs {
    /// How large the disks are
    #[arg(long, value_enum, default_value_t = Size::Small)]
    size: Size,
    /// Check the build for development: it is there sooner, and runs slower
    #[arg(long)]
    dev: bool,
    /// Only the forms whose names contain this; may be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Skip, and say so, where garage is not built yet
    #[arg(long)]
    no_install: bool,
}

/// The version that the facts in this file are about.
const VERSION: &str = "2.5.0";

/// garage's word for its region; signatures must name it.
const REGION: &str = "garage";

/// One bucket for both ends: uploads at its top, blocks in a folder.
const BUCKET: &str = "images";
const BLOCKS: &str = "s3://images/blocks";

/// Long enough for a loaded machine; it takes 0.2 s on an idle one.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// Runs `create` of every form against garage.
pub(crate) fn run_garage(repo: &Repo, args: &GarageArgs) -> Result<ExitCode> {
    let Some(binary) = binary(repo, args.no_install)? else {
        println!("SKIPPED: garage is not there; `cargo xtask garage` builds it (17 CPU minutes)");
        return Ok(ExitCode::SUCCESS);
    };
    let (folder, forms) = images::prepare(repo, args.size, &args.only)?;
    let profile = if args.dev { Profile::Dev } else { Profile::Release };
    let tools = Tools {
        image_prep: repo.build("image-prep", profile)?,
        image_server: repo.build("image-server", profile)?,
        read_back: repo.build("read-back", profile)?,
        scratch: folder.join("garage"),
    };
    let _ = fs::remove_dir_all(&tools.scratch);
    fs::create_dir_all(&tools.scratch)?;
    let garage = Garage::start(&binary, &tools.scratch, BUCKET)?;
    let server = serve(&tools, &garage)?;
    let mut table = Table::new(&["create", "read back", "cleaned up"]);
    for form in &forms {
        let results = check(&tools, &garage, &server.endpoint, &folder.join(&form.file), &form.name);
        table.row(&form.name, &results);
    }
    server.process.stop()?;
    garage.stop()?;
    fs::remove_dir_all(&tools.scratch)?;
    Ok(table.finish())
}

/// The program, built if it is not there; `None` if it must not be.
pub(crate) fn binary(repo: &Repo, no_install: bool) -> Result<Option<PathBuf>> {
    let root = repo.target().join("garage");
    let binary = root.join("bin/garage");
    if !binary.exists() {
        if no_install {
            return Ok(None);
        }
        println!("building garage {VERSION}, which takes some 17 CPU minutes");
        let mut install = repo.cargo();
        install.args(["install", "garage", "--locked", "--version", VERSION, "--root"]).arg(&root);
        run(install.env("CARGO_TARGET_DIR", root.join("build")))?;
    }
    Ok(Some(binary))
}

struct Tools {
    image_prep: PathBuf,
    image_server: PathBuf,
    read_back: PathBuf,
    scratch: PathBuf,
}

/// A garage of one node that is running.
pub(crate) struct Garage {
    process: Process,
    pub(crate) endpoint: String,
    access_key: String,
    secret_key: String,
}

impl Garage {
    /// Starts one on free loopback ports, with its data in the scratch folder, and a bucket.
    pub(crate) fn start(binary: &Path, scratch: &Path, bucket: &str) -> Result<Self> {
        let [rpc, s3, admin] = free_addresses()?;
        let (access_key, secret_key) = (format!("GK{}", random_hex(12)?), random_hex(32)?);
        let config = scratch.join("garage.toml");
        fs::write(
            &config,
            format!(
                "metadata_dir = {meta:?}\ndata_dir = {data:?}\ndb_engine = \"sqlite\"\nreplication_factor = 1\n\
                 rpc_bind_addr = \"{rpc}\"\nrpc_public_addr = \"{rpc}\"\nrpc_secret = \"{secret}\"\n\
                 [s3_api]\ns3_region = \"{REGION}\"\napi_bind_addr = \"{s3}\"\nroot_domain = \".s3.localhost\"\n\
                 [admin]\napi_bind_addr = \"{admin}\"\n",
                meta = scratch.join("meta"),
                data = scratch.join("data"),
                secret = random_hex(32)?,
            ),
        )?;
        let log = fs::File::create(scratch.join("garage.log"))?;
        let mut command = Command::new(binary);
        command.args(["server", "--single-node", "--default-bucket"]);
        command.env("GARAGE_CONFIG_FILE", &config).env("GARAGE_DEFAULT_BUCKET", bucket);
        command.env("GARAGE_DEFAULT_ACCESS_KEY", &access_key).env("GARAGE_DEFAULT_SECRET_KEY", &secret_key);
        command.stdout(log.try_clone()?).stderr(log);
        let process = Process::start(&mut command)?;
        let garage = Self { process, endpoint: format!("http://{s3}"), access_key, secret_key };
        let started = Instant::now();
        while !is_healthy(admin) {
            ensure!(started.elapsed() < STARTS_WITHIN, "garage does not start; see {}", scratch.display());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(garage)
    }

    /// Where it is and who may, in the words of local-store's `store.json`.
    pub(crate) fn keys(&self) -> Value {
        let Self { endpoint, access_key, secret_key, .. } = self;
        json!({ "endpoint": endpoint, "region": REGION, "accessKey": access_key, "secretKey": secret_key })
    }

    /// What a client of it finds in its environment.
    pub(crate) fn environment(&self, command: &mut Command) {
        command.env("AWS_ACCESS_KEY_ID", &self.access_key).env("AWS_SECRET_ACCESS_KEY", &self.secret_key);
        command.env("AWS_REGION", REGION).env("AWS_ENDPOINT_URL_S3", &self.endpoint);
    }

    /// Ends it.
    pub(crate) fn stop(self) -> Result<()> {
        self.process.stop()
    }
}

/// An image server that is running.
struct Server {
    process: Process,
    endpoint: String,
}

fn serve(tools: &Tools, garage: &Garage) -> Result<Server> {
    let mut command = Command::new(&tools.image_server);
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(tools.scratch.join("server"));
    command.args(["--bucket", BLOCKS, "--s3-endpoint", &garage.endpoint, "--allow-http"]);
    command.args(["--allow-uri-host", garage.endpoint.trim_start_matches("http://")]);
    garage.environment(&mut command);
    command.stdout(Stdio::piped()).stderr(fs::File::create(tools.scratch.join("server.log"))?);
    let mut process = Process::start(&mut command)?;
    let line = process.first_line().context("image-server ended before it listened")?;
    let endpoint = line.rsplit(' ').next().unwrap_or_default().trim().to_owned();
    ensure!(endpoint.starts_with("http://"), "image-server said {line:?}");
    Ok(Server { process, endpoint })
}

fn check(tools: &Tools, garage: &Garage, endpoint: &str, image: &Path, name: &str) -> Vec<Result<String>> {
    let created = create(tools, garage, endpoint, image, name);
    let back = match &created {
        Ok((id, expected)) => read_back(tools, garage, id, expected),
        Err(_) => Err(anyhow!("there is no Image")),
    };
    let clean = nothing_left(tools, garage);
    vec![created.map(|(_, content)| format!("{} MiB", content.storage_size >> 20)), back, clean]
}

fn create(
    tools: &Tools,
    garage: &Garage,
    endpoint: &str,
    image: &Path,
    name: &str,
) -> Result<(String, Content)> {
    let raw = tools.scratch.join("qemu.raw");
    run(Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(image).arg(&raw))?;
    let expected = Content::of(&raw)?;
    fs::remove_file(raw)?;
    let mut command = Command::new(&tools.image_prep);
    command.args(["create", "--json", "--quiet", "--folder-id", "garage", "--bucket", BUCKET]);
    command.args(["--allow-http", "--endpoint", endpoint, "--name", &name.replace(' ', "-")]).arg(image);
    garage.environment(&mut command);
    let operation = serde_json::from_str(&output(&mut command)?).context("create")?;
    let (id, _) = check_operation(&operation, &expected)?;
    Ok((id, expected))
}

fn read_back(tools: &Tools, garage: &Garage, id: &str, expected: &Content) -> Result<String> {
    let raw = tools.scratch.join("back.raw");
    let mut command = Command::new(&tools.read_back);
    command.args(["--bucket", BLOCKS, "--s3-endpoint", &garage.endpoint, "image", id]).arg(&raw);
    garage.environment(&mut command);
    compare_back(&output(&mut command)?, &raw, expected)
}

/// Nothing but blocks and manifests may be left in the bucket: the uploaded object is deleted once the Image is READY.
fn nothing_left(tools: &Tools, garage: &Garage) -> Result<String> {
    let mut command = Command::new(&tools.read_back);
    command.args(["--bucket", BLOCKS, "--s3-endpoint", &garage.endpoint, "strangers"]);
    garage.environment(&mut command);
    let left = output(&mut command)?;
    ensure!(left.is_empty(), "left in the bucket: {left}");
    Ok("yes".to_owned())
}

/// Addresses that were free a moment ago.
pub(crate) fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    let listeners = [(); N].map(|()| TcpListener::bind(("127.0.0.1", 0)));
    let addresses = listeners.iter().map(|listener| match listener {
        Ok(listener) => listener.local_addr(),
        Err(error) => Err(error.kind().into()),
    });
    let addresses: Vec<SocketAddr> = addresses.collect::<std::io::Result<_>>()?;
    addresses.try_into().ok().context("as many addresses as listeners")
}

pub(crate) fn random_hex(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(hex::encode(random))
}

/// True if garage's admin interface says that it serves.
fn is_healthy(admin: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(admin)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(
            format!("GET /health HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").as_bytes(),
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}
