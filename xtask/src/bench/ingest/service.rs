//! What the image server promises beside speed: memory under a full queue, nothing stored twice, nothing moved for nothing.
//!
//! The program as users build it, with its embedded catalog and store in the same process, on tmpfs.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::filled;
use crate::bench::flows::Input;
use crate::bench::inputs::Inputs;
use crate::bench::report::Report;
use crate::image_server::{ImageServer, added, create, id_of, ready, wait};
use crate::origin::Origin;
use crate::rest::Client;

/// Where and with what facts are found out.
pub(super) struct Scene<'a> {
    /// The server's program.
    pub(super) program: &'a Path,
    pub(super) inputs: &'a Inputs,
    /// The inputs behind URLs, at once and late.
    pub(super) near: &'a Origin,
    pub(super) far: &'a Origin,
    /// A folder on disk.
    pub(super) folder: &'a Path,
    /// A folder on tmpfs.
    pub(super) tmpfs: &'a Path,
}

/// What was found out.
pub(super) struct Found {
    pub(super) holds: bool,
    pub(super) text: String,
    pub(super) numbers: Value,
}

/// Something to find out.
pub(super) struct Fact {
    /// What to call it.
    pub(super) name: &'static str,
    /// Forms of the disk that it takes.
    forms: &'static [&'static str],
    find: fn(&Scene<'_>) -> Result<Found>,
}

/// What is found out.
pub(super) const FACTS: &[Fact] = &[
    Fact { name: "100,000 images", forms: &[], find: filled::find },
    Fact { name: "100 queued, 4 running", forms: &["qcow2", "qcow2 zlib", "vmdk stream"], find: queued },
    Fact { name: "one disk, two formats", forms: &["qcow2 zlib", "vmdk stream"], find: twice },
    Fact { name: "Create from image_id", forms: &["qcow2 zlib"], find: from_image },
];

/// Ingests that run at once, and operations that wait for them: the defaults of the server.
const RUNNING: usize = 4;
const QUEUED: usize = 100;

/// How many ingests have ended when the rest is cancelled: each place had several.
const ENDED: usize = 3 * RUNNING;

/// The most memory that the server may have, bytes.
const MAX_PEAK: u64 = 1 << 30;

/// For operations to end; far beyond what they take.
const PATIENCE: Duration = Duration::from_secs(240);

impl Fact {
    /// What it takes.
    pub(super) fn inputs(&self) -> impl Iterator<Item = Input> + use<> {
        self.forms.iter().map(|form| Input::Form(form))
    }

    /// Finds it out, and says it.
    pub(super) fn tell(&self, scene: &Scene<'_>, report: &mut Report) {
        match (self.find)(scene) {
            Ok(found) => report.fact(self.name, Some(found.holds), &found.text, found.numbers),
            Err(error) => report.failed(self.name, error),
        }
    }
}

impl Scene<'_> {
    /// A server that reads from an origin.
    fn server(&self, name: &str, origin: &Origin, options: &[&str]) -> Result<ImageServer> {
        let host = origin.host();
        let own = ["--allow-http", "--allow-uri-host", &host];
        ImageServer::start(self.program, &self.tmpfs.join(name), &[&own, options].concat())
    }

    /// Ends a server, and frees what it stored: memory.
    fn end(&self, name: &str, server: ImageServer) -> Result<()> {
        server.stop()?;
        Ok(fs::remove_dir_all(self.tmpfs.join(name))?)
    }

    /// The URL of a form of the disk.
    fn url(&self, origin: &Origin, form: &'static str) -> Result<String> {
        let name = self.inputs.path(Input::Form(form))?.file_name().context("an input without a name")?;
        Ok(origin.url(&name.to_string_lossy()))
    }
}

/// Fills the queue while as many ingests run as may, from a distant store, so that they run long.
fn queued(scene: &Scene<'_>) -> Result<Found> {
    let server = scene.server("queued", scene.far, &["--creates-per-second", "1000"])?;
    let mut client = server.client();
    let forms = ["qcow2", "qcow2 zlib", "vmdk stream"];
    let urls = forms.iter().map(|form| scene.url(scene.far, form)).collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    let mut pending = Vec::new();
    for (number, url) in urls.iter().cycle().take(RUNNING + QUEUED).enumerate() {
        let operation = create(&mut client, &format!("image-{number}"), ("uri", url))?.right()?;
        pending.push(id_of(&operation)?);
    }
    let accepted = started.elapsed();
    let early = ended(&mut client, &pending)?;
    while ended(&mut client, &pending)? < ENDED {
        ensure!(started.elapsed() < PATIENCE, "{ENDED} ingests have not ended in time");
        std::thread::sleep(Duration::from_millis(200));
    }
    let peak = server.peak()?;
    for id in &pending {
        // One that has ended meanwhile says so.
        client.post(&format!("/operations/{id}:cancel"), &json!({}))?;
    }
    let all = wait(&mut client, pending, PATIENCE)?;
    let good = all.iter().filter(|(_, operation)| operation["error"].is_null()).count();
    scene.end("queued", server)?;
    let text = format!(
        "peak memory {} MiB, embedded store included, of at most {} MiB; {} accepted in {:.2} s, {early} had ended by then; {good} \
         became images, at least {ENDED}, the others were cancelled or failed",
        peak >> 20,
        MAX_PEAK >> 20,
        RUNNING + QUEUED,
        accepted.as_secs_f64()
    );
    let numbers = json!({ "peakBytes": peak, "endedEarly": early, "images": good, "most": MAX_PEAK });
    // Ingests that fail need little memory: those that ended must have become images.
    Ok(Found { holds: peak <= MAX_PEAK && early <= RUNNING && good >= ENDED, text, numbers })
}

/// How many of these operations have ended.
fn ended(client: &mut Client, operations: &[String]) -> Result<usize> {
    let mut ended = 0;
    for id in operations {
        let operation = client.get(&format!("/operations/{id}"))?.right()?;
        ended += usize::from(operation["done"] == true);
    }
    Ok(ended)
}

/// The same disk again, in another format.
fn twice(scene: &Scene<'_>) -> Result<Found> {
    let server = scene.server("twice", scene.near, &[])?;
    let mut client = server.client();
    ready(&mut client, "first", ("uri", &scene.url(scene.near, "qcow2 zlib")?))?;
    let before = server.stored()?;
    let (_, stored, _) = added(&Default::default(), &before);
    ready(&mut client, "second", ("uri", &scene.url(scene.near, "vmdk stream")?))?;
    let (files, blocks, bytes) = added(&before, &server.stored()?);
    scene.end("twice", server)?;
    let text = format!(
        "the second ingest adds {blocks} blocks to the {stored} that are there, and {files} small files with {bytes} bytes"
    );
    let numbers = json!({ "stored": stored, "blocks": blocks, "files": files, "bytes": bytes });
    Ok(Found { holds: blocks == 0 && stored > 0, text, numbers })
}

/// An image from another one.
fn from_image(scene: &Scene<'_>) -> Result<Found> {
    let server = scene.server("from-image", scene.near, &[])?;
    let mut client = server.client();
    let first = ready(&mut client, "first", ("uri", &scene.url(scene.near, "qcow2 zlib")?))?;
    let before = server.stored()?;
    scene.near.reset()?;
    let started = Instant::now();
    ready(&mut client, "second", ("imageId", &first))?;
    let wall = started.elapsed();
    let (fetched, (files, blocks, bytes)) = (scene.near.fetched()?, added(&before, &server.stored()?));
    scene.end("from-image", server)?;
    let text = format!(
        "{} bytes are fetched, {files} files with {bytes} bytes are written to the store; {:.0} ms",
        fetched.bytes,
        wall.as_secs_f64() * 1e3
    );
    let numbers = json!({ "fetched": fetched, "files": files, "blocks": blocks, "bytes": bytes });
    Ok(Found { holds: fetched.requests == 0 && files == 0, text, numbers })
}
