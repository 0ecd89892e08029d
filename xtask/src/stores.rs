//! `cargo xtask stores`: the upload suite of `object-io` on every object store that can be started here, what probing finds of each,
//! and every form of an object on it, read by others.
//!
//! The suite is `crates/object-io/tests/it/suite.rs`: objects of all lengths, guarded in every way, and uploads through a proxy that breaks
//! what passes through it. Forms are uploaded twice, downloaded by boto3 and read by qemu-img ([`forms`]). The stores are local-store, garage, and the Ceph gateway where its Debian packages are installed.

mod ceph;
mod forms;
mod local;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::garage::{self, Garage};
use crate::repo::{Repo, run};
use ceph::Ceph;
use forms::Forms;
use local::Local;

/// Arguments of `stores`.
#[derive(Debug, Args)]
pub(crate) struct StoresArgs {
    /// Only the stores whose names contain this; may be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Faulty uploads to each store
    #[arg(long, value_name = "N", default_value_t = 40)]
    uploads: u32,
    /// Skip garage, and say so, where it is not built yet
    #[arg(long)]
    no_install: bool,
}

/// The suite's bucket.
const BUCKET: &str = "images";

/// What probing must find: local-store by its own documentation, the others as their sources and our first runs had it.
const LOCAL: &str =
    "checksum=crc32,conditional-complete=yes,conditional-put=yes,etag=md5,part-copy=yes,payload=unsigned";
const GARAGE: &str =
    "checksum=crc32,conditional-complete=no,conditional-put=no,etag=md5,part-copy=yes,payload=unsigned";
const CEPH: &str =
    "checksum=md5,conditional-complete=no,conditional-put=yes,etag=md5,part-copy=yes,payload=unsigned";

/// Runs the suite on each.
pub(crate) fn run_stores(repo: &Repo, args: &StoresArgs) -> Result<ExitCode> {
    let scratch = repo.target().join("stores");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch)?;
    run(suite(repo, args).arg("--no-run"))?;
    let forms = Forms::make(repo, &scratch)?;
    let forms = forms.as_ref();
    let is_wanted =
        |name: &str| args.only.is_empty() || args.only.iter().any(|text| name.contains(text.as_str()));
    let mut wrong = 0;
    let mut judge = |name: &str, result: Result<bool>| match result {
        Ok(true) => {}
        Ok(false) => wrong += 1,
        Err(error) => {
            wrong += 1;
            println!("{name}: WRONG: {error:#}");
        }
    };
    if is_wanted("local-store") {
        judge("local-store", on_local(repo, args, forms, &scratch.join("local")));
    }
    if is_wanted("garage") {
        judge("garage", on_garage(repo, args, forms, &scratch.join("garage")));
    }
    if is_wanted("ceph") {
        judge("ceph", on_ceph(repo, args, forms, &scratch.join("ceph")));
    }
    fs::remove_dir_all(&scratch)?;
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn on_local(repo: &Repo, args: &StoresArgs, forms: Option<&Forms>, scratch: &Path) -> Result<bool> {
    // The suite starts one of its own, over which it rules.
    let passed = check("local-store", LOCAL, &mut suite(repo, args))?;
    if let Some(forms) = forms {
        let local = Local::start(repo, scratch)?;
        forms.check("local-store", BUCKET, &|command| local.environment(command))?;
        local.stop()?;
    }
    Ok(passed)
}

fn on_garage(repo: &Repo, args: &StoresArgs, forms: Option<&Forms>, scratch: &Path) -> Result<bool> {
    let Some(binary) = garage::binary(repo, args.no_install)? else {
        println!("garage: SKIPPED, it is not built; without --no-install it would be (17 CPU minutes)");
        return Ok(true);
    };
    fs::create_dir_all(scratch)?;
    let garage = Garage::start(&binary, scratch, BUCKET)?;
    let mut suite = suite(repo, args);
    garage.environment(&mut suite);
    let passed = check("garage", GARAGE, suite.env("UPLOAD_SUITE_ENDPOINT", &garage.endpoint))?;
    if let Some(forms) = forms {
        forms.check("garage", BUCKET, &|command| garage.environment(command))?;
    }
    garage.stop()?;
    Ok(passed)
}

fn on_ceph(repo: &Repo, args: &StoresArgs, forms: Option<&Forms>, scratch: &Path) -> Result<bool> {
    if let Some(missing) = ceph::missing() {
        println!("ceph: SKIPPED, there is no {missing} (Debian packages radosgw ceph-mon ceph-osd)");
        return Ok(true);
    }
    fs::create_dir_all(scratch)?;
    let ceph = Ceph::start(scratch)?;
    let mut suite = suite(repo, args);
    ceph.environment(&mut suite);
    let passed = check("ceph", CEPH, suite.env("UPLOAD_SUITE_ENDPOINT", &ceph.endpoint))?;
    if let Some(forms) = forms {
        forms.check("ceph", BUCKET, &|command| ceph.environment(command))?;
    }
    ceph.stop()?;
    Ok(passed)
}

/// The suite, on a store of its own unless the environment names one.
fn suite(repo: &Repo, args: &StoresArgs) -> Command {
    let mut cargo = repo.cargo();
    cargo.args(["test", "--quiet", "--package", "object-io", "--test", "it"]);
    cargo.env("FAULTY_UPLOADS", args.uploads.to_string()).env_remove("UPLOAD_SUITE_ENDPOINT");
    cargo.env("RUST_BACKTRACE", "0");
    cargo
}

/// Runs the suite and prints what it says of the store; false if anything was wrong.
fn check(name: &str, expected: &str, suite: &mut Command) -> Result<bool> {
    // One at a time: they share a bucket, and a foreign store is on the same cores.
    suite.args(["suite::", "--", "--nocapture", "--test-threads", "1"]);
    let output = suite.stdin(Stdio::null()).output().context("cannot run the suite")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let profile =
        said.lines().find_map(|line| line.split_once("profile: ")).map_or("none", |(_, found)| found);
    let (suite_passed, is_expected) = (output.status.success(), profile == expected);
    println!("{name}: {}", if suite_passed && is_expected { "ok" } else { "WRONG" });
    println!("  profile found: {profile}");
    if !is_expected {
        println!("  expected:      {expected}");
    }
    let told = ["uploads:", "faults:", " x ", "test result:"];
    for line in said.lines().filter(|line| told.iter().any(|word| line.contains(word))) {
        println!("  {line}");
    }
    if !suite_passed {
        println!("{said}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(suite_passed && is_expected)
}
