//! `cargo xtask images`: real disk images, and every way through image-prep checked against qemu-img.
//!
//! A partitioned disk with a real file tree in ext4, in every format and cluster size that is read; made once under
//! `target/images/` and kept. For each form: `convert` to raw, qcow2, vmdk and gce, `map`, `create --local`, and the stored Image read
//! back, each against what qemu-img or a plain computation over qemu-img's raw file says. The peak memory of `convert` is held
//! against its budget. With `--boot`, disks with installed systems instead, and what `info` finds in them.

mod boot;
mod check;
mod create;
mod make;
mod map;
mod table;
mod tree;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use crate::repo::{Profile, Repo};
pub(crate) use create::{check_operation, compare_back};
pub(crate) use make::{Form, folder};
pub(crate) use map::same as same_map;
pub(crate) use table::Table;

/// Arguments of `images`.
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Make disks with installed systems instead, and check what `info` says of them in every format and over HTTPS
    ///
    /// Debian's packages come from its archive the first time. Wants tools that other checks do not, and for LVM root; whatever
    /// is missing is named.
    #[arg(long, conflicts_with_all = ["size", "make_only"])]
    boot: bool,
    /// How large the disks are
    #[arg(long, value_enum, default_value_t = Size::Full)]
    size: Size,
    /// Make the images, check nothing
    #[arg(long)]
    make_only: bool,
    /// Check the build for development: it is there sooner, and runs slower
    #[arg(long)]
    dev: bool,
    /// Only the forms or disks whose names contain this; may be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
}

/// How large the disks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Size {
    /// 8 GiB with 2 GiB of files, and 256 MiB with 48 MiB
    Full,
    /// 1 GiB with 192 MiB of files, and 64 MiB with 12 MiB
    Small,
}

/// Makes what is missing, then checks every form.
pub(crate) fn run(repo: &Repo, args: &ImagesArgs) -> Result<ExitCode> {
    let profile = if args.dev { Profile::Dev } else { Profile::Release };
    if args.boot {
        return boot::run(repo, profile, &args.only);
    }
    let (folder, forms) = prepare(repo, args.size, &args.only)?;
    if args.make_only {
        return Ok(ExitCode::SUCCESS);
    }
    let tools = check::Tools {
        image_prep: repo.build("image-prep", profile)?,
        read_back: repo.build("read-back", profile)?,
        scratch: folder.join("scratch"),
    };
    let mut table = Table::new(&check::COLUMNS);
    for form in &forms {
        let results = check::check(&tools, &folder.join(&form.file), form);
        table.row(&form.name, &results);
    }
    Ok(table.finish())
}

/// Makes what is missing of the forms with these names; gives them.
pub(crate) fn prepare_named(repo: &Repo, size: Size, names: &[&str]) -> Result<Vec<Form>> {
    let forms = named(names);
    make::make(&folder(repo, size), size, &forms)?;
    Ok(forms)
}

/// How many of the forms with these names are not there.
pub(crate) fn missing(repo: &Repo, size: Size, names: &[&str]) -> u64 {
    let folder = folder(repo, size);
    named(names).iter().map(|form| u64::from(!folder.join(&form.file).exists())).sum()
}

fn named(names: &[&str]) -> Vec<Form> {
    make::forms().into_iter().filter(|form| names.contains(&form.name.as_str())).collect()
}

/// Makes what is missing; gives the folder and the forms in it whose names contain one of `only`.
pub(crate) fn prepare(repo: &Repo, size: Size, only: &[String]) -> Result<(PathBuf, Vec<Form>)> {
    let wanted = |form: &Form| only.is_empty() || only.iter().any(|text| form.name.contains(text));
    let forms: Vec<Form> = make::forms().into_iter().filter(wanted).collect();
    ensure!(!forms.is_empty(), "no form has such a name");
    let folder = folder(repo, size);
    make::make(&folder, size, &forms)?;
    Ok((folder, forms))
}
