//! The crate arrows: who may depend on whom, and who may know the AWS SDK.
//!
//! Dev-dependencies are free: a test may stand anything beside the crate that it tests.

use cargo_metadata::{DependencyKind, Metadata};

use super::Violations;

/// Each crate with the crates of ours that it may depend on. `crates/README.md` draws them.
const ARROWS: [(&str, &[&str]); 10] = [
    ("disk-image", &[]),
    ("disk-convert", &["disk-image"]),
    ("guest-info", &["disk-convert", "disk-image"]),
    ("object-io", &["disk-convert", "disk-image"]),
    ("block-store", &["object-io", "disk-convert", "disk-image"]),
    ("image-ingest", &["object-io", "disk-convert", "disk-image"]),
    ("local-store", &[]),
    ("image-api", &[]),
    (
        "image-server",
        &[
            "image-api",
            "image-ingest",
            "block-store",
            "object-io",
            "disk-convert",
            "disk-image",
            "local-store",
        ],
    ),
    (
        "image-prep",
        &[
            "image-api",
            "guest-info",
            "object-io",
            "disk-convert",
            "disk-image",
            "image-server",
            "local-store",
        ],
    ),
];

/// The only crate that names the AWS SDK.
const AWS: &str = "object-io";

/// Members that are no part of what is shipped.
const TOOLS: [&str; 3] = ["benches", "peers", "xtask"];

/// Compares the dependencies of the workspace's members with [`ARROWS`].
pub(super) fn check(metadata: &Metadata, found: &mut Violations) {
    let members: Vec<&str> =
        metadata.workspace_packages().iter().map(|package| package.name.as_str()).collect();
    for package in metadata.workspace_packages() {
        let dependencies = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
        let names: Vec<&str> = dependencies.map(|dependency| dependency.name.as_str()).collect();
        check_crate(&package.name, &names, &members, found);
    }
}

fn check_crate(name: &str, dependencies: &[&str], members: &[&str], found: &mut Violations) {
    if TOOLS.contains(&name) {
        return;
    }
    let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == name) else {
        found.add(name, "has no arrows; give it some in xtask/src/tidy/arrows.rs and crates/README.md");
        return;
    };
    for dependency in dependencies {
        if members.contains(dependency) && !allowed.contains(dependency) {
            found.add(name, format_args!("depends on {dependency}, allowed are {allowed:?}"));
        }
        if dependency.starts_with("aws-") && name != AWS {
            found.add(name, format_args!("depends on {dependency}; the AWS SDK lives in {AWS}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBERS: [&str; 4] = ["disk-image", "disk-convert", "object-io", "xtask"];

    fn violations(name: &str, dependencies: &[&str]) -> usize {
        let mut found = Violations::default();
        check_crate(name, dependencies, &MEMBERS, &mut found);
        found.lines().len()
    }

    #[test]
    fn arrows_point_one_way() {
        assert_eq!(violations("disk-convert", &["disk-image", "tokio"]), 0);
        assert_eq!(violations("disk-image", &["disk-convert"]), 1);
        assert_eq!(violations("local-store", &["object-io", "disk-image"]), 2);
    }

    #[test]
    fn the_aws_sdk_has_one_home() {
        assert_eq!(violations("object-io", &["aws-sdk-s3", "aws-config"]), 0);
        assert_eq!(violations("image-prep", &["aws-sdk-s3"]), 1);
    }

    #[test]
    fn a_new_crate_needs_arrows() {
        assert_eq!(violations("disk-extra", &[]), 1);
        assert_eq!(violations("xtask", &["disk-image"]), 0);
    }
}
