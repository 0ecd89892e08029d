//! schemathesis against the OpenAPI document that the server serves: whatever the document takes must be taken, whatever it does not
//! must be refused, and every answer must be one that it describes.
//!
//! The values that only a server knows (URLs that it reads from, filters, orders, page tokens) have formats in the document, and
//! `hooks.py` says what they look like here. The server asks for a token, has a pool and folders of volumes, and no limit on how often
//! it is asked, so that no answer comes from what it lacks. The seed is fixed, and examples and time are bounded.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::server::Server;
use crate::child::{Ended, Job, Limits};

/// Requests that are made up for each operation and each of its phases.
const EXAMPLES: &str = "60";
/// All of it; it takes a few minutes with a release build.
const TIME: Duration = Duration::from_secs(900);
const TOKEN: &str = "schemathesis";

pub(super) fn check(program: &Path, server: &Server, scripts: &Path, dir: &Path) -> Result<()> {
    let (pool, volumes) = (dir.join("pool"), dir.join("volumes"));
    fs::create_dir_all(&volumes)?;
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let (pool, volumes) = (path(&pool), path(&volumes));
    let options = [
        ["--token", TOKEN],
        ["--creates-per-second", "1000000"],
        ["--queued-operations", "1000000"],
        ["--pool", &pool],
        ["--pool-quota", "1T"],
        ["--snapshot-dir", &volumes],
        ["--disk-dir", &volumes],
    ];
    let served = server.start_with(dir, false, options.as_flattened())?;
    let (report, said, complaints) = (dir.join("report.xml"), dir.join("said.log"), dir.join("said.err"));
    fs::copy(scripts.join("hooks.py"), dir.join("hooks.py")).context("cannot copy hooks.py")?;
    let mut run = Command::new(program);
    run.current_dir(dir).env("SCHEMATHESIS_HOOKS", "hooks").env("PYTHONPATH", dir);
    run.env("ENDPOINT", format!("http://{}", served.endpoint));
    run.env("TOKEN", TOKEN).env("GOOD_URI", &served.good);
    run.args(["run", &format!("http://{}/openapi.json", served.endpoint)]);
    run.args(["--header", &format!("Authorization: Bearer {TOKEN}")]);
    run.args(["--seed", "1", "--max-examples", EXAMPLES, "--request-timeout", "30"]);
    run.args(["--report", "junit", "--report-junit-path"]).arg(&report);
    let used = Job::new(&run, &complaints, Limits::wall(TIME)).printing_to(&said).run()?;
    let told = fs::read_to_string(&said).unwrap_or_default();
    let findings = fs::read_to_string(&report).map(|report| count(&report)).unwrap_or_default();
    let complaints = fs::read_to_string(complaints).unwrap_or_default();
    ensure!(
        used.ended == Ended::Exit(0) && findings == 0,
        "schemathesis has {findings} findings ({}):\n{told}{complaints}",
        used.ended
    );
    let summary = told.lines().rev().find(|line| line.contains("generated")).unwrap_or_default();
    println!("schemathesis: 0 findings; {}", summary.trim());
    served.process.stop()
}

/// Failures and errors of a report in JUnit's form.
fn count(report: &str) -> usize {
    report.matches("<failure").count() + report.matches("<error").count()
}
