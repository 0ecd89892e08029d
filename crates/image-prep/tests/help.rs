//! The face of the program: every help page, examples, version, usage errors, completions, man pages.

mod support;
use support::Bench;

/// The pages: a command's name and those of its own commands.
const PAGES: [&[&str]; 16] = [
    &[],
    &["info"],
    &["map"],
    &["compare"],
    &["convert"],
    &["create"],
    &["upload"],
    &["doctor"],
    &["operation"],
    &["operation", "get"],
    &["operation", "wait"],
    &["operation", "cancel"],
    &["cleanup"],
    &["completions"],
    &["man"],
    &["schema"],
];

#[test]
fn every_page_short_and_long() {
    let bench = Bench::new();
    for page in PAGES {
        let name = [&["image-prep"], page].concat().join("-");
        for (flag, form) in [("-h", "short"), ("--help", "long")] {
            let help = bench.ok([page, &[flag]].concat()).stdout;
            assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
            insta::assert_snapshot!(format!("{name}-{form}"), help);
        }
    }
}

#[test]
fn a_page_for_every_command() {
    let bench = Bench::new();
    bench.ok(["man", "pages"]);
    let found = std::fs::read_dir(bench.path("pages")).unwrap();
    let mut found: Vec<_> = found.map(|page| page.unwrap().file_name().into_string().unwrap()).collect();
    let mut pages = PAGES.map(|page| format!("{}.1", [&["image-prep"], page].concat().join("-")));
    found.sort();
    pages.sort();
    assert_eq!(found, pages);
}

#[test]
fn examples_do_what_they_say() {
    let bench = Bench::new();
    let help = bench.ok(["--help"]).stdout;
    let (_, examples) = help.split_once("Examples:\n").unwrap();
    let examples: Vec<_> = examples.lines().map_while(|line| line.strip_prefix("  image-prep ")).collect();
    assert_eq!(examples.len(), 3, "{help}");
    let testdata = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata");
    std::os::unix::fs::symlink(testdata, bench.path("testdata")).unwrap();
    for example in examples {
        // The folder of the test in the place of everybody's.
        let typed = example.replace("/tmp/", "");
        let run = bench.ok(typed.split_whitespace());
        assert_eq!(run.stderr.matches("error").count(), 0, "{run:?}");
    }
    assert_eq!(std::fs::metadata(bench.path("disk.raw")).unwrap().len(), 64 << 20);
}

#[test]
fn the_version() {
    let version = Bench::new().ok(["--version"]).stdout;
    assert_eq!(version, format!("image-prep {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_is_2() {
    let bench = Bench::new();
    let mut said = String::new();
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
        said += &format!("$ image-prep {}\n{}\n", args.join(" "), run.stderr);
    }
    insta::assert_snapshot!("wrong-usage", said);
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
fn man_pages_to_standard_output_and_nowhere() {
    let bench = Bench::new();
    assert!(bench.ok(["man"]).stdout.contains(".TH image-prep 1"));
    let run = bench.fails(1, ["man", "/dev/null/pages"]);
    assert!(run.stderr.contains("caused by: "), "{run:?}");
}
