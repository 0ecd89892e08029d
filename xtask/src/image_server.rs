//! An image server that is running: the program as an operator starts it, on loopback, with its embedded store and catalog.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::garage::process::Process;
use crate::rest::{Answer, Client};

/// The folder of the cloud that all images are made in.
pub(crate) const FOLDER: &str = "xtask";

/// Between two looks at operations.
const POLL: Duration = Duration::from_millis(20);

/// A block is longer, except at the end of a disk, and a manifest shorter than that of 100 GiB.
const LARGE: u64 = 1 << 20;

/// A running server.
#[derive(Debug)]
pub(crate) struct ImageServer {
    process: Process,
    address: SocketAddr,
    data: PathBuf,
}

/// A file of the store: its length, and when it was written.
pub(crate) type Stored = BTreeMap<PathBuf, (u64, SystemTime)>;

impl ImageServer {
    /// Starts a program on the folder `data`; its log goes beside that.
    pub(crate) fn start(program: &Path, data: &Path, options: &[&str]) -> Result<Self> {
        let log = fs::File::create(data.with_extension("log"))?;
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data).args(options);
        let mut process = Process::start(command.stdout(Stdio::piped()).stderr(log))?;
        let line = process.first_line().with_context(|| {
            let said = fs::read_to_string(data.with_extension("log")).unwrap_or_default();
            format!("image-server ended before it listened: {said}")
        })?;
        let address = line.trim().rsplit('/').next().unwrap_or_default().parse();
        let address = address.with_context(|| format!("image-server said {line:?}"))?;
        Ok(Self { process, address, data: data.to_owned() })
    }

    /// A client of it, with a connection of its own.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Peak resident memory so far, bytes.
    pub(crate) fn peak(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib << 10)
    }

    /// The files of its store.
    pub(crate) fn stored(&self) -> Result<Stored> {
        let (mut folders, mut files) = (vec![self.data.join("store")], Stored::new());
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                match metadata.is_dir() {
                    true => folders.push(entry.path()),
                    false => drop(files.insert(entry.path(), (metadata.len(), metadata.modified()?))),
                }
            }
        }
        Ok(files)
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(self) -> Result<()> {
        self.process.stop()
    }
}

/// What is in `after` and not, or not as it is, in `before`: how many files, how many of them may be blocks, and their bytes.
pub(crate) fn added(before: &Stored, after: &Stored) -> (usize, usize, u64) {
    let new: Vec<u64> = after
        .iter()
        .filter(|(path, file)| before.get(*path) != Some(*file))
        .map(|(_, (len, _))| *len)
        .collect();
    (new.len(), new.iter().filter(|len| **len >= LARGE).count(), new.iter().sum())
}

/// A Create of an image from a source, `("uri", ...)` for example.
pub(crate) fn create(client: &mut Client, name: &str, (kind, source): (&str, &str)) -> Result<Answer> {
    client.post("/compute/v1/images", &json!({ "folderId": FOLDER, "name": name, kind: source }))
}

/// The same, waited for: the identifier of the image.
pub(crate) fn ready(client: &mut Client, name: &str, source: (&str, &str)) -> Result<String> {
    let operation = create(client, name, source)?.right()?;
    let ended = wait(client, vec![id_of(&operation)?], Duration::from_secs(300))?;
    let (_, operation) = ended.first().context("an operation that was waited for")?;
    ensure!(operation["error"].is_null(), "{name}: {}", operation["error"]);
    image_id(operation)
}

/// Waits until every operation has ended; gives them as they are then, in the order in which they ended.
pub(crate) fn wait(
    client: &mut Client,
    mut pending: Vec<String>,
    limit: Duration,
) -> Result<Vec<(String, Value)>> {
    let (started, mut ended) = (Instant::now(), Vec::new());
    while !pending.is_empty() {
        ensure!(started.elapsed() < limit, "{} operations have not ended in time", pending.len());
        let mut left = Vec::new();
        for id in pending {
            let operation = client.get(&format!("/operations/{id}"))?.right()?;
            match operation["done"].as_bool() {
                Some(true) => ended.push((id, operation)),
                _ => left.push(id),
            }
        }
        pending = left;
        if !pending.is_empty() {
            std::thread::sleep(POLL);
        }
    }
    Ok(ended)
}

/// The identifier of an operation.
pub(crate) fn id_of(operation: &Value) -> Result<String> {
    Ok(operation["id"].as_str().context("an operation without id")?.to_owned())
}

/// The identifier of the image that an operation is about.
pub(crate) fn image_id(operation: &Value) -> Result<String> {
    Ok(operation["metadata"]["imageId"].as_str().context("an operation without an image")?.to_owned())
}
