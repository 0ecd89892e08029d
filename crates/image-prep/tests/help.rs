//! The face of the program: help, version, usage errors, completions, man pages.

mod support;
use support::Bench;

#[test]
fn help_names_every_command_and_explains_codes() {
    let bench = Bench::new();
    let help = bench.ok(["--help"]).stdout;
    for word in [
        "info",
        "map",
        "compare",
        "convert",
        "create",
        "upload",
        "operation",
        "completions",
        "man",
        "Exit codes:",
        "130",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 120), "{help}");
    let version = bench.ok(["--version"]).stdout;
    assert_eq!(version, format!("image-prep {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_is_2() {
    let bench = Bench::new();
    for args in [
        &["info"][..],
        &["nonsense"],
        &["info", "a", "--memory", "lots"],
        &["info", "a", "-j", "0"],
        &["upload", "a", "https://bucket/key"],
        &["upload", "a", "s3://bucket/key", "--expires", "1y"],
        &["create", "a", "--local"],
        &["create", "a", "--name", "n", "--local", "--label", "x"],
        &["create", "--name", "n", "--local"],
        &["create", "a", "--uri", "https://h/k", "--name", "n", "--local"],
        &["create", "a", "--name", "n", "--folder-id", "f"],
        &["create", "a", "--name", "n", "--local", "--region", "r"],
    ] {
        let run = bench.run(args);
        assert_eq!(run.code, 2, "{args:?}: {run:?}");
        assert!(run.stdout.is_empty() && !run.stderr.is_empty(), "{args:?}: {run:?}");
    }
    assert!(bench.names().is_empty());
}

#[test]
fn tokens_are_no_arguments() {
    let bench = Bench::new();
    let help = bench.ok(["create", "--help"]).stdout;
    assert!(!help.contains("--token <") && help.contains("--token-file"), "{help}");
}

#[test]
fn completions_for_each_shell() {
    let bench = Bench::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(bench.ok(["completions", shell]).stdout.contains("operation"), "{shell}");
    }
}

#[test]
fn man_pages() {
    let bench = Bench::new();
    assert!(bench.ok(["man"]).stdout.contains(".TH image-prep 1"));
    bench.ok(["man", "pages/man1"]);
    for page in ["image-prep.1", "image-prep-create.1", "image-prep-operation-wait.1"] {
        assert!(bench.path("pages/man1").join(page).exists(), "{page}");
    }
    let run = bench.fails(1, ["man", "/dev/null/pages"]);
    assert!(run.stderr.contains("caused by: "), "{run:?}");
}
