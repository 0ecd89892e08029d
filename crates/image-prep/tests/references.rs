//! Files that an image names: listed, refused, or read, as the user says; never opened behind the user's back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "support/cloud.rs"]
mod cloud;
mod support;
use std::fs;
use std::process::Command;

use cloud::{BUCKET, Cloud};
use support::{Bench, MIB, finish, noise};

/// A qcow2 of 4 MiB over a raw file that is called `base`: one MiB of its own at 2 MiB, one of the base at 1 MiB. `None`, said
/// aloud, without qemu-img.
fn overlay(bench: &Bench, base: &str) -> Option<()> {
    bench.raw(base, 4 * MIB, &[(MIB, &noise(MIB, 5))]);
    named(bench, base)?;
    let run = Command::new("qemu-io")
        .args(["-f", "qcow2", "-c", "write -P 0x5a 2M 1M", "over"])
        .current_dir(bench.path(""))
        .output()
        .unwrap();
    assert!(run.status.success(), "{run:?}");
    Some(())
}

/// A qcow2 without data that names `base`, which need not exist.
fn named(bench: &Bench, base: &str) -> Option<()> {
    let made =
        bench.qemu_img(&["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", base, "over", "4M"])?;
    assert_eq!(made.code, 0, "{made:?}");
    Some(())
}

const ALL: [&[&str]; 6] = [
    &["info", "--digest", "over"],
    &["info", "--check", "over"],
    &["map", "over"],
    &["convert", "over", "out"],
    &["compare", "over", "base.raw"],
    &["create", "over", "--name", "n", "--local"],
];

#[test]
fn without_permission_an_image_with_references_is_refused_by_name() {
    let bench = Bench::new();
    let Some(()) = overlay(&bench, "base.raw") else { return };
    for args in ALL {
        let run = bench.fails(3, args);
        assert!(run.stderr.starts_with("error: `over` names the backing file `base.raw`\n"), "{run:?}");
        assert!(run.stderr.contains("hint: if you trust the image") && run.stdout.is_empty(), "{run:?}");
    }
    assert!(!bench.names().contains(&"out".to_owned()));
}

#[test]
fn info_lists_what_an_image_names_and_opens_nothing() {
    let bench = Bench::new();
    // Nobody writes into the FIFO: whoever opens it the usual way waits for ever.
    let fifo = Command::new("mkfifo").arg(bench.path("base")).status().unwrap();
    assert!(fifo.success());
    let Some(()) = named(&bench, "base") else { return };
    let run = bench.ok(["info", "--json", "over"]);
    let json = run.json();
    let expected =
        serde_json::json!([{ "role": "backingFile", "name": "base", "format": "raw", "file": "over" }]);
    assert_eq!((&json["references"], &json["partial"]), (&expected, &true.into()));
    assert_eq!(json["virtualSize"], 4 * MIB);
    assert!(json["warnings"][0].as_str().unwrap().contains("only the file itself"), "{json}");
    let run = bench.ok(["info", "over"]);
    assert!(run.stdout.contains("\nbacking file  `base` (raw)\n"), "{run:?}");
    assert!(run.stderr.starts_with("warning: `over`: sizes cover only the file itself"), "{run:?}");
    for args in ALL.iter().filter(|args| args[0] != "compare") {
        bench.fails(3, *args);
    }
    // Where it may be opened, it is no file.
    let run = bench.fails(3, ["convert", "--allow-references", "over", "out"]);
    assert!(run.stderr.contains("not a regular file"), "{run:?}");
}

#[test]
fn a_name_cannot_steer_the_terminal() {
    let bench = Bench::new();
    let Some(()) = named(&bench, "a\u{1b}[31mb\nc") else { return };
    let run = bench.ok(["info", "over"]);
    assert!(run.stdout.contains("`a\\u{1b}[31mb\\nc`"), "{run:?}");
    let refused = bench.fails(3, ["convert", "over", "out"]);
    for text in [run.stdout, run.stderr, refused.stderr] {
        assert!(!text.contains('\u{1b}') && !text.contains("b\nc"), "{text}");
    }
    let json = bench.ok(["info", "--json", "over"]);
    assert_eq!(json.json()["references"][0]["name"], "a\u{1b}[31mb\nc");
    assert!(!json.stdout.contains('\u{1b}'), "{json:?}");
}

#[test]
fn with_permission_the_disk_is_whole() {
    let bench = Bench::new();
    let Some(()) = overlay(&bench, "base.raw") else { return };
    bench.ok(["convert", "--allow-references", "over", "ours"]);
    let made = bench.qemu_img(&["convert", "-O", "raw", "over", "theirs"]).unwrap();
    assert_eq!(made.code, 0, "{made:?}");
    assert!(fs::read(bench.path("ours")).unwrap() == fs::read(bench.path("theirs")).unwrap());

    let json = bench.ok(["info", "--json", "--digest", "--check", "--allow-references", "over"]).json();
    assert_eq!((&json["partial"], &json["check"]), (&false.into(), &"ok".into()));
    assert_eq!(json["references"].as_array().unwrap().len(), 1);
    assert_eq!(json["guestDigest"], bench.ok(["info", "--json", "--digest", "ours"]).json()["guestDigest"]);
    bench.ok(["compare", "--allow-references", "over", "theirs"]);

    let map = bench.ok(["map", "--json", "--allow-references", "over"]).json();
    let own = |entry: &&serde_json::Value| entry.get("filename").is_none() && entry["data"] == true;
    let own: Vec<_> = map.as_array().unwrap().iter().filter(own).collect();
    assert_eq!((&own[0]["start"], &own[0]["length"]), (&(2 * MIB).into(), &MIB.into()));
    assert!(map[0]["filename"].as_str().unwrap().ends_with("/base.raw"), "{map}");
}

#[test]
fn only_the_allowed_folder_is_reached() {
    let bench = Bench::new();
    fs::create_dir(bench.path("inner")).unwrap();
    let Some(()) = overlay(&bench, "base.raw") else { return };
    fs::rename(bench.path("over"), bench.path("inner/over")).unwrap();
    let made = bench.qemu_img(&["rebase", "-u", "-F", "raw", "-b", "../base.raw", "inner/over"]).unwrap();
    assert_eq!(made.code, 0, "{made:?}");
    let run = bench.fails(3, ["convert", "--allow-references", "inner/over", "out"]);
    assert!(run.stderr.contains("outside of the folder"), "{run:?}");
    assert!(run.stderr.contains("hint: name another folder with --allow-references=DIR"), "{run:?}");
    bench.ok(["convert", "--allow-references=.", "inner/over", "out"]);
    bench.fails(1, ["convert", "--allow-references=missing", "inner/over", "out"]);
}

#[test]
fn the_format_of_a_backing_file_is_never_guessed() {
    let bench = Bench::new();
    let Some(()) = overlay(&bench, "base.raw") else { return };
    let mut bytes = fs::read(bench.path("over")).unwrap();
    let at = bytes.windows(4).position(|at| at == 0xe279_2aca_u32.to_be_bytes()).unwrap();
    // Now an extension that nobody knows.
    bytes[at..at + 4].copy_from_slice(&[0x11; 4]);
    fs::write(bench.path("over"), bytes).unwrap();
    let run = bench.fails(3, ["convert", "--allow-references", "over", "out"]);
    assert!(run.stderr.contains("hint: name it with --backing-format"), "{run:?}");
    bench.ok(["convert", "--allow-references", "--backing-format", "raw", "over", "out"]);
    let json = bench.ok(["info", "--json", "over"]).json();
    let expected = serde_json::json!([{ "role": "backingFile", "name": "base.raw", "file": "over" }]);
    assert_eq!(json["references"], expected);
    let text = bench.ok(["info", "over"]).stdout;
    assert!(text.contains("`base.raw` (format not declared)"), "{text}");
}

#[test]
fn an_image_behind_a_url_cannot_have_references_here() {
    let bench = Bench::new();
    let run = bench.fails(2, ["info", "--allow-references", "https://host.invalid/disk"]);
    assert!(run.stderr.contains("behind a URL"), "{run:?}");
}

#[test]
fn the_output_is_no_file_of_the_image() {
    let bench = Bench::new();
    let Some(()) = overlay(&bench, "base.raw") else { return };
    let before = fs::read(bench.path("base.raw")).unwrap();
    let run = bench.fails(2, ["convert", "--allow-references", "over", "base.raw"]);
    assert!(run.stderr.contains("both the output and a file of the image"), "{run:?}");
    assert!(fs::read(bench.path("base.raw")).unwrap() == before);
}

#[test]
fn a_snapshot_that_is_not_there_is_refused() {
    let bench = Bench::new();
    bench.raw("disk", MIB, &[]);
    let run = bench.fails(3, ["info", "--snapshot", "one", "disk"]);
    assert!(run.stderr.contains("no internal snapshot"), "{run:?}");
}

#[test]
fn check_says_what_was_checked() {
    let bench = Bench::new();
    bench.raw("odd", MIB + 100, &[]);
    let run = bench.ok(["info", "--check", "odd"]);
    assert!(
        run.stdout
            .contains("\ncheck         ok: everything reachable was checked; no references, 1 warning\n"),
        "{run:?}"
    );
    assert_eq!(bench.ok(["info", "--check", "--json", "odd"]).json()["check"], "ok");
    assert!(bench.ok(["info", "--json", "odd"]).json().get("check").is_none());
    let Some(path) = bench.sample_as("image", &["-O", "qcow2"]) else { return };
    bench.ok(["info", "--check", "image"]);
    support::truncate(&path, 8 * MIB / 3);
    let run = bench.fails(3, ["info", "--check", "image"]);
    assert!(run.stderr.contains("past the end of the file") && run.stdout.is_empty(), "{run:?}");
}

#[test]
fn a_file_that_is_not_the_whole_disk_is_not_uploaded_as_it_is() {
    let (bench, cloud) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&cloud.path("cloud"));
    let Some(()) = overlay(&bench, "base.raw") else { return };
    let upload = |args: &[&str]| {
        let to = format!("s3://{BUCKET}/object");
        let mut command = bench.command([&["upload", "--allow-references"], args, &[&to]].concat());
        cloud.tell_store(&mut command);
        finish(command.spawn().unwrap())
    };
    let run = upload(&["over", "--to", "source"]);
    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.stderr.contains("`over` is not whole without the backing file `base.raw`"), "{run:?}");
    let run = upload(&["base.raw", "--to", "source", "--snapshot", "x"]);
    assert!(matches!(run.code, 2 | 3), "{run:?}");
    assert!(cloud.objects(BUCKET).is_empty());
    // As a raw disk it names nothing.
    assert_eq!(upload(&["over", "--to", "source", "--format", "raw"]).code, 0);
    assert_eq!(upload(&["over", "--to", "qcow2"]).code, 0);
}

/// What the program opens and connects to, as the kernel sees it. `None`, said aloud, where nobody can tell; under `CI` that is a
/// failure.
fn opened(bench: &Bench, args: &[&str]) -> Option<String> {
    let program = bench.command(args);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", "log", "-e", "trace=open,openat,openat2,connect"]);
    strace.arg(program.get_program()).args(program.get_args()).current_dir(bench.path(""));
    let run = match strace.output() {
        Ok(run) if bench.path("log").exists() => run,
        failed => {
            assert!(std::env::var_os("CI").is_none(), "strace is the witness and cannot run: {failed:?}");
            eprintln!("SKIPPED: strace is the witness and cannot run: {failed:?}");
            return None;
        }
    };
    assert!(matches!(run.status.code(), Some(0 | 3)), "{run:?}");
    Some(fs::read_to_string(bench.path("log")).unwrap())
}

#[test]
fn the_kernel_sees_no_file_opened_beyond_the_image() {
    let bench = Bench::new();
    let Some(()) = overlay(&bench, "base.raw") else { return };
    for args in [&["info", "over"][..], &["info", "--check", "over"], &["convert", "over", "out"]] {
        let Some(log) = opened(&bench, args) else { return };
        assert!(log.contains("\"over\"") && !log.contains("base.raw"), "{args:?}: {log}");
        assert!(!log.contains("AF_INET"), "{args:?}: {log}");
    }
    // The same look sees it where it may be opened.
    let Some(log) = opened(&bench, &["convert", "--allow-references", "over", "out"]) else { return };
    assert!(log.contains("\"base.raw\""), "{log}");
}

#[test]
fn a_disk_may_lie_in_more_files_than_a_shell_allows() {
    let bench = Bench::new();
    let mut descriptor = String::from(
        "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\ncreateType=\"custom\"\n",
    );
    let mut expected = Vec::new();
    for number in 0..200_u64 {
        let content = noise(512, number);
        fs::write(bench.path(&format!("part-{number}")), &content).unwrap();
        descriptor.push_str(&format!("RW 1 FLAT \"part-{number}\" 0\n"));
        expected.extend(content);
    }
    fs::write(bench.path("disk.vmdk"), descriptor).unwrap();
    let convert = bench.command(["convert", "--allow-references", "disk.vmdk", "out"]);
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -Sn 64; exec \"$@\"", "sh"])
        .arg(convert.get_program())
        .args(convert.get_args());
    let run = limited.current_dir(bench.path("")).output().unwrap();
    assert!(run.status.success(), "{run:?}");
    assert!(fs::read(bench.path("out")).unwrap() == expected);
}
