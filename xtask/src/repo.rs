//! The working copy: where it is, which files belong to it, and how to run tools in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The working copy that this xtask was built from.
#[derive(Debug, Clone)]
pub(crate) struct Repo {
    root: PathBuf,
}

impl Repo {
    /// The one that this binary was built from.
    pub(crate) fn here() -> Self {
        let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self { root: xtask.parent().unwrap_or(xtask).to_owned() }
    }

    /// A file or folder in it.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// Where cargo builds.
    pub(crate) fn target(&self) -> PathBuf {
        match std::env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => self.root.join(dir),
            None => self.root.join("target"),
        }
    }

    /// The text of a file in it.
    pub(crate) fn read(&self, relative: impl AsRef<Path>) -> Result<String> {
        let relative = relative.as_ref();
        std::fs::read_to_string(self.path(relative))
            .with_context(|| format!("cannot read {}", relative.display()))
    }

    /// The files that belong to it: those that git tracks or would add. Sorted, relative to the root.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>> {
        let listed =
            output(self.git().args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
        let mut files: Vec<PathBuf> = listed
            .split('\0')
            .filter(|name| !name.is_empty())
            .map(PathBuf::from)
            // Deleted, but not yet so for git.
            .filter(|file| self.path(file).exists())
            .collect();
        files.sort();
        files.dedup();
        Ok(files)
    }

    /// A cargo command at the root, with the cargo that runs us.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // What `cargo run` says of xtask itself. Build scripts that look at it, ring's for one, would run again, and with them
        // everything behind them be built again, each time that a build from here follows one from a shell.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                cargo.env_remove(&name);
            }
        }
        cargo.current_dir(&self.root);
        cargo
    }

    /// A git command at the root.
    pub(crate) fn git(&self) -> Command {
        let mut git = Command::new("git");
        git.current_dir(&self.root);
        git
    }

    /// Builds a binary of the workspace and gives its path.
    pub(crate) fn build(&self, bin: &str, profile: Profile) -> Result<PathBuf> {
        self.build_with(&["--bin", bin], bin, profile)
    }

    /// The same for a package that is built only by name.
    pub(crate) fn build_of(&self, package: &str, bin: &str, profile: Profile) -> Result<PathBuf> {
        self.build_with(&["--package", package, "--bin", bin], bin, profile)
    }

    fn build_with(&self, which: &[&str], bin: &str, profile: Profile) -> Result<PathBuf> {
        let mut cargo = self.cargo();
        cargo.args(["build", "--quiet"]).args(which);
        if bin == "read-back" {
            cargo.args(["--features", "xtask/read-back"]);
        }
        if profile == Profile::Release {
            cargo.arg("--release");
        }
        run(&mut cargo)?;
        let folder = match profile {
            Profile::Dev => "debug",
            Profile::Release => "release",
        };
        Ok(self.target().join(folder).join(bin))
    }
}

/// How to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build, what tests use.
    Dev,
    /// What users run.
    Release,
}

/// Runs a command to its end; its output goes where ours goes.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| cannot_run(command))?;
    if !status.success() {
        bail!("{} failed: {status}", name(command));
    }
    Ok(())
}

/// Runs a command to its end and gives its standard output. What it said on standard error is in the error, if it failed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| cannot_run(command))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed: {}\n{}", name(command), output.status, said.trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} printed no UTF-8", name(command)))
}

/// The command as one would type it.
pub(crate) fn name(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn cannot_run(command: &Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    let package = match program.as_str() {
        "qemu-img" | "qemu-io" => " (Debian package qemu-utils)",
        "openssl" => " (Debian package openssl)",
        "mkfs.ext4" => " (Debian package e2fsprogs)",
        "sfdisk" => " (Debian package fdisk)",
        _ => "",
    };
    format!("cannot run {program}{package}")
}
