//! `cargo xtask dist`: what is installed, made by the program itself, and what it takes: size, libraries, start.
//!
//! Under `target/dist/`, laid out as beneath `/usr`: the binary, a man page for each command, completions for three shells, the schema of
//! each `--json` output. Start-up is the processor time of `--version` as the kernel counts it, the least of some runs, so that a busy
//! machine changes little. Fails where the program needs a library that not every Linux has, or starts too slowly.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;
use wait4::Wait4 as _;

use crate::repo::{Profile, Repo, output, run};

/// Most processor time that a command may take to start: it is not felt, and scripts start many.
const MAX_START: Duration = Duration::from_millis(10);

/// Starts that are measured.
const STARTS: usize = 20;

/// What every Linux with the GNU C library has, by the beginnings of their names.
const LIBRARIES: [&str; 5] = ["linux-vdso.", "libc.", "libm.", "libgcc_s.", "/lib"];

/// Shells, and where each looks for the completions of a program.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/image-prep"),
    ("zsh", "share/zsh/site-functions/_image-prep"),
    ("fish", "share/fish/vendor_completions.d/image-prep.fish"),
];

/// Arguments of `dist`.
#[derive(Debug, Args)]
pub(crate) struct DistArgs {
    /// Take the development build, whose size and start say nothing
    #[arg(long)]
    debug: bool,
}

/// Makes all of it, and prints what it takes.
pub(crate) fn dist(repo: &Repo, args: &DistArgs) -> Result<ExitCode> {
    let profile = if args.debug { Profile::Dev } else { Profile::Release };
    let image_prep = repo.build("image-prep", profile)?;
    let folder = repo.target().join("dist");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    write(&folder.join("bin/image-prep"), &fs::read(&image_prep)?)?;
    fs::set_permissions(folder.join("bin/image-prep"), fs::metadata(&image_prep)?.permissions())?;
    run(Command::new(&image_prep).arg("man").arg(folder.join("share/man/man1")))?;
    for (shell, place) in COMPLETIONS {
        let script = output(Command::new(&image_prep).args(["completions", shell]))?;
        write(&folder.join(place), script.as_bytes())?;
    }
    let schemas: Value = serde_json::from_str(&output(Command::new(&image_prep).arg("schema"))?)?;
    for (name, schema) in schemas.as_object().context("no schemas")? {
        let place = folder.join(format!("share/image-prep/schemas/{name}.json"));
        write(&place, serde_json::to_string_pretty(schema)?.as_bytes())?;
    }
    println!("{}: made by the program itself", folder.display());

    let len = fs::metadata(&image_prep)?.len();
    let libraries = libraries(&image_prep)?;
    let start = start(&image_prep)?;
    println!("size       {len} bytes");
    println!("libraries  {}", libraries.join(" "));
    println!("--version  {:.1} ms of processor time, least of {STARTS}", start.as_secs_f64() * 1e3);
    ensure!(strangers(&libraries).next().is_none(), "not every Linux has these libraries");
    ensure!(args.debug || start <= MAX_START, "the limit is {} ms", MAX_START.as_millis());
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// The shared libraries that a program is linked to.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let listed = output(Command::new("ldd").arg(program))?;
    Ok(listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

fn strangers(libraries: &[String]) -> impl Iterator<Item = &String> {
    libraries.iter().filter(|name| !LIBRARIES.iter().any(|known| name.starts_with(known)))
}

/// Processor time of `--version`.
fn start(program: &Path) -> Result<Duration> {
    let mut least = Duration::MAX;
    for _ in 0..STARTS {
        let mut command = Command::new(program);
        let child = command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let used = child.wait4()?;
        ensure!(used.status.success(), "--version failed: {}", used.status);
        least = least.min(used.rusage.utime + used.rusage.stime);
    }
    Ok(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_has_to_be_installed_is_found() {
        let names = ["linux-vdso.so.1", "libc.so.6", "libssl.so.3", "/lib64/ld-linux-x86-64.so.2"];
        let names = names.map(str::to_owned);
        assert_eq!(strangers(&names).collect::<Vec<_>>(), ["libssl.so.3"]);
    }
}
