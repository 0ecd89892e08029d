//! What `info --json` says of a disk, held against what is known of it: in every format, from a file and over HTTPS.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::MAX_READ;
use super::cases::{Case, Expected};
use super::disk::Lab;
use super::tools::tool;
use crate::origin::Origin;
use crate::repo::output;

/// A form of the disk: its column, its file, and how it is made of the raw one.
struct Form {
    name: &'static str,
    file: &'static str,
    make: Make,
}

/// Who makes a form, with which words.
#[derive(Clone, Copy)]
enum Make {
    Itself,
    Qemu(&'static str),
    Ours(&'static str),
}

const FORMS: [Form; 8] = [
    Form { name: "raw", file: "disk.raw", make: Make::Itself },
    Form { name: "qcow2", file: "disk.qcow2", make: Make::Qemu("-O qcow2") },
    Form { name: "qcow2 -c", file: "compressed.qcow2", make: Make::Ours("--to qcow2 --compress=zlib") },
    Form { name: "vmdk", file: "sparse.vmdk", make: Make::Qemu("-O vmdk -o subformat=monolithicSparse") },
    Form { name: "vmdk stream", file: "stream.vmdk", make: Make::Ours("--to vmdk") },
    Form { name: "vhd", file: "disk.vhd", make: Make::Qemu("-O vpc -o subformat=dynamic,force_size=on") },
    Form { name: "vhdx", file: "disk.vhdx", make: Make::Qemu("-O vhdx") },
    Form { name: "gce", file: "disk.tar.gz", make: Make::Ours("--to gce") },
];

/// The columns of the table: what is said of the raw disk, then of each form.
pub(super) fn columns() -> Vec<&'static str> {
    let said = ["layout", "system", "boot", "points"];
    said.into_iter().chain(FORMS.iter().map(|form| form.name)).collect()
}

/// What judges.
pub(super) struct Judge {
    pub(super) image_prep: PathBuf,
    /// Where the forms of a disk lie, which is served.
    pub(super) formats: PathBuf,
    pub(super) origin: Origin,
    /// The authority behind the server's certificate.
    pub(super) root: PathBuf,
}

impl Judge {
    /// Makes a disk, and judges everything that is said of it.
    pub(super) fn case(&self, lab: &Lab, case: &Case) -> Vec<Result<String>> {
        let judged = (case.make)(lab).and_then(|()| self.info(&lab.disk().display().to_string()));
        let results = match judged {
            Err(error) => vec![Err(error)],
            Ok(guest) => {
                let expected = &case.expected;
                let mut results = vec![
                    expected.layout(&guest),
                    expected.system(&guest),
                    expected.boot(&guest),
                    expected.points(&guest),
                ];
                results.extend(FORMS.iter().map(|form| self.form(form, &guest)));
                results
            }
        };
        for form in &FORMS {
            let _ = fs::remove_file(self.formats.join(form.file));
        }
        results
    }

    /// Makes a form of the disk, and compares what is said of it with what was said of the raw disk.
    fn form(&self, form: &Form, expected: &Value) -> Result<String> {
        let raw = self.formats.join("disk.raw");
        let file = self.formats.join(form.file);
        let words = |words: &'static str| words.split(' ');
        match form.make {
            Make::Itself => {}
            Make::Qemu(how) => {
                let mut convert = tool("qemu-img");
                output(convert.args(["convert", "-f", "raw"]).args(words(how)).arg(&raw).arg(&file))?;
            }
            Make::Ours(how) => {
                let mut convert = Command::new(&self.image_prep);
                output(convert.args(["convert", "--quiet"]).args(words(how)).arg(&raw).arg(&file))?;
            }
        }
        let here = self.info(&file.display().to_string())?;
        self.origin.reset()?;
        let there = self.info(&self.origin.url(form.file))?;
        let sent = self.origin.fetched()?.bytes;
        // Where a page is a unit of the format, more is read.
        let (mut ours, mut theirs, mut wanted) = (here.clone(), there, expected.clone());
        let read = here["bytesRead"].as_u64().context("no count of what was read")?;
        for guest in [&mut ours, &mut theirs, &mut wanted] {
            guest["bytesRead"].take();
        }
        ensure!(ours == wanted, "it is another disk than the raw one: {ours:#}");
        ensure!(theirs == wanted, "over HTTPS it is another disk: {theirs:#}");
        ensure!(read > 0 && read < MAX_READ, "{read} bytes of the guest were read");
        ensure!(sent > 0 && sent < MAX_READ, "{sent} bytes of the file were sent");
        if form.file != "disk.raw" {
            fs::remove_file(file)?;
        }
        let mib = |bytes: u64| format!("{}.{}", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20);
        Ok(format!("{} {}", mib(read), mib(sent)))
    }

    /// What is said of the inside of an image.
    fn info(&self, image: &str) -> Result<Value> {
        let mut command = Command::new(&self.image_prep);
        command.env("SSL_CERT_FILE", &self.root).args(["info", "--json", "--quiet", image]);
        let said = output(&mut command)?;
        let mut info: Value = serde_json::from_str(&said).context("info")?;
        ensure!(info["guest"].is_object(), "nothing is said of the inside of {image}");
        Ok(info["guest"].take())
    }
}

impl Expected {
    fn layout(&self, guest: &Value) -> Result<String> {
        let kind = guest["partitionTable"]["kind"].as_str().unwrap_or_default();
        ensure!(kind == self.table, "the table is {kind}, expected {}", self.table);
        let partitions = guest["partitions"].as_array().context("no partitions")?;
        let found: Vec<&str> =
            partitions.iter().map(|p| p["fileSystem"]["type"].as_str().unwrap_or("-")).collect();
        ensure!(found == self.volumes, "the partitions hold {found:?}, expected {:?}", self.volumes);
        ensure!(guest["notes"].as_array().is_some_and(Vec::is_empty), "it is odd: {}", guest["notes"]);
        Ok(kind.to_owned())
    }

    fn system(&self, guest: &Value) -> Result<String> {
        let found = &guest["system"];
        let text = |field: &str| found[field].as_str().unwrap_or("-");
        let found = [text("type"), text("id"), text("version"), text("architecture")].join(" ");
        ensure!(found == self.system, "the system is {found:?}, expected {:?}", self.system);
        let place = guest["system"]["partition"].as_u64();
        ensure!(place == Some(self.place), "the system is in partition {place:?}, expected {}", self.place);
        let words: Vec<&str> = found.split(' ').filter(|word| *word != "-").collect();
        Ok(match words.as_slice() {
            [_, id, version, _] => format!("{id} {version}"),
            _ => words[0].to_owned(),
        })
    }

    fn boot(&self, guest: &Value) -> Result<String> {
        let is = |way: &str| guest["boot"][way] == true;
        let found = match (is("bios"), is("uefi")) {
            (true, true) => "both",
            (true, false) => "bios",
            (false, true) => "uefi",
            (false, false) => "none",
        };
        let generation = guest["suggestions"]["hardwareGeneration"].as_str().unwrap_or("-");
        let said = format!("{found} {generation}");
        ensure!(said == self.boot, "it starts by {said:?}, expected {:?}", self.boot);
        Ok(found.to_owned())
    }

    fn points(&self, guest: &Value) -> Result<String> {
        let points = guest["readiness"].as_array().context("no readiness")?;
        ensure!(points.len() == 8, "there are {} points", points.len());
        let mut wrong = Vec::new();
        for point in points {
            let name = point["point"].as_str().unwrap_or_default();
            let (verdict, text) =
                self.points.iter().find(|expected| expected.0 == name).map_or(("pass", ""), |e| (e.1, e.2));
            // A reason may be a word of the finding, or the place that it rests on.
            let said = format!("{} {}", point["found"].as_str().unwrap_or_default(), places(point));
            if point["verdict"] != verdict || !said.contains(text) {
                wrong.push(format!("{name} is {}: {said}; expected {verdict}: {text}", point["verdict"]));
            }
            if (verdict == "warn") != point["mend"].is_string() && verdict != "unknown" {
                wrong.push(format!("{name} is {verdict}, with the mend {}", point["mend"]));
            }
        }
        if !wrong.is_empty() {
            bail!("{}", wrong.join("\n"));
        }
        let count = |verdict: &str| points.iter().filter(|point| point["verdict"] == verdict).count();
        Ok(format!("{}+ {}- {}?", count("pass"), count("warn"), count("unknown")))
    }
}

/// The files and lines that a finding rests on.
fn places(point: &Value) -> String {
    let evidence = point["evidence"].as_array().map(Vec::as_slice).unwrap_or_default();
    let place = |one: &Value| {
        let file = Path::new(one["file"].as_str().unwrap_or_default()).display().to_string();
        one["line"].as_u64().map_or(file.clone(), |line| format!("{file}:{line}"))
    };
    evidence.iter().map(place).collect::<Vec<_>>().join(" ")
}
