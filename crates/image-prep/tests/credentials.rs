//! As whom the program speaks: keys, metadata, profiles, and what it says where none of them helps.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "support/cloud.rs"]
mod cloud;
#[path = "support/proxy.rs"]
mod proxy;
mod support;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cloud::{BUCKET, Cloud, FOLDER};
use proxy::Proxy;
use support::{Bench, Run, finish};

/// Runs a command with what a test says of the environment, and the cloud's own folder and endpoint.
fn run(bench: &Bench, cloud: &Cloud, args: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut command = bench.command(args);
    cloud.tell(&mut command);
    for (name, value) in variables {
        command.env(name, value);
    }
    finish(command.spawn().unwrap())
}

const CREATE: [&str; 6] = ["create", "sample.raw", "--name", "n", "--bucket", BUCKET];

#[test]
fn a_key_is_good_for_a_create() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start_with_account(&dir.path("cloud"), "editor");
    bench.sample();
    cloud.write_key(&bench.path("key.json"));
    let key = ["--service-account-key-file", "key.json"];
    for (transport, name) in [("rest", "a"), ("grpc", "b")] {
        let args = ["create", "sample.raw", "--name", name, "--bucket", BUCKET, "--transport", transport];
        let done = run(&bench, &cloud, &[&args[..], &key].concat(), &[]);
        assert_eq!((done.code, done.stderr.contains("warning")), (0, false), "{done:?}");
    }
    let json = fs::read_to_string(bench.path("key.json")).unwrap();
    for value in ["key.json", &json] {
        let listed =
            run(&bench, &cloud, &["operation", "get", "x"], &[("YC_SERVICE_ACCOUNT_KEY_FILE", value)]);
        assert!(listed.stderr.contains("NOT_FOUND"), "it got as far as the operation: {listed:?}");
    }
    assert_eq!(cloud.images(FOLDER).len(), 2);
}

#[test]
fn a_jwt_for_another_address_is_refused_once() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start_with_account(&dir.path("cloud"), "editor");
    bench.sample();
    cloud.write_key(&bench.path("key.json"));
    // The JWT is for the address that is asked, here the proxy's: the server has to know it as well.
    let proxy = Proxy::start(cloud.server_address());
    let endpoint = proxy.url();
    let args = [&CREATE[..], &["--service-account-key-file", "key.json", "--endpoint", &endpoint]].concat();
    let refused = run(&bench, &cloud, &args, &[]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("no token for service account ajeaccount"), "{refused:?}");
    assert!(refused.stderr.contains("aud") && refused.stderr.contains("doctor"), "{refused:?}");
    assert_eq!(proxy.requests("POST"), 1, "a refusal is not repeated");
}

#[test]
fn a_key_that_is_not_known_or_open_to_others() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start_with_account(&dir.path("cloud"), "editor");
    bench.sample();
    cloud.write_key(&bench.path("key.json"));
    let text = fs::read_to_string(bench.path("key.json")).unwrap().replace("ajekey", "ajeother");
    fs::write(bench.path("key.json"), text).unwrap();
    fs::set_permissions(bench.path("key.json"), fs::Permissions::from_mode(0o644)).unwrap();
    let args = [&CREATE[..], &["--service-account-key-file", "key.json"]].concat();
    let refused = run(&bench, &cloud, &args, &[]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.starts_with("warning: `key.json` can be read by others"), "{refused:?}");
    assert!(refused.stderr.contains("ajeother"), "{refused:?}");
    fs::write(bench.path("key.json"), "{\"private_key\": \"t0p-SECRET\"").unwrap();
    let refused = run(&bench, &cloud, &args, &[]);
    assert!(refused.code == 1 && !refused.stderr.contains("SECRET"), "{refused:?}");
    assert!(cloud.objects(BUCKET).is_empty());
}

/// A metadata service that gives `token`, and counts how often.
fn metadata(token: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    // Ends with the test's process.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let head: Vec<String> = BufReader::new(&stream)
                .lines()
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .map(|line| line.to_ascii_lowercase())
                .collect();
            counter.fetch_add(1, Ordering::Relaxed);
            assert!(head.contains(&"metadata-flavor: google".to_owned()), "{head:?}");
            let body = format!("{{\"access_token\":\"{token}\",\"expires_in\":3600}}");
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    (address, asked)
}

#[test]
fn the_machine_is_asked_only_where_it_is_chosen() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start_with_token(&dir.path("cloud"), "t1.machine");
    bench.sample();
    let (address, asked) = metadata("t1.machine");
    let variables = [("YC_METADATA_ADDR", address.as_str())];
    // Not for an endpoint of nobody's cloud, and not where there is a token.
    assert_eq!(run(&bench, &cloud, &CREATE, &variables).code, 1);
    let given = run(&bench, &cloud, &CREATE, &[variables[0], ("YC_TOKEN", "t1.machine")]);
    assert_eq!((given.code, asked.load(Ordering::Relaxed)), (0, 0), "{given:?}");
    let args = ["create", "sample.raw", "--name", "m", "--bucket", BUCKET, "--instance-service-account"];
    let done = run(&bench, &cloud, &args, &variables);
    assert_eq!((done.code, asked.load(Ordering::Relaxed)), (0, 1), "{done:?}");
    let silent = run(&bench, &cloud, &args, &[]);
    assert_eq!(silent.code, 1, "{silent:?}");
    assert!(silent.stderr.contains("no token for the service account of this machine"), "{silent:?}");
}

/// Other clouds have metadata at the same address. Their tokens are not shown to this one.
#[test]
fn the_token_of_another_clouds_machine_stays_there() {
    let bench = Bench::new();
    bench.sample();
    let (address, asked) = metadata("ya29.SECRET");
    let mut command = bench.command([&CREATE[..], &["--folder-id", "f"]].concat());
    command.env("YC_METADATA_ADDR", address).env("https_proxy", "http://127.0.0.1:1");
    let run = finish(command.spawn().unwrap());
    assert_eq!((run.code, asked.load(Ordering::Relaxed)), (1, 1), "{run:?}");
    assert!(
        run.stderr.contains("no token for the image service") && !run.stderr.contains("SECRET"),
        "{run:?}"
    );
}

#[test]
fn a_profile_says_everything() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start_with_account(&dir.path("cloud"), "editor");
    bench.sample();
    fs::create_dir_all(bench.path("config/image-prep")).unwrap();
    cloud.write_key(&bench.path("config/image-prep/key.json"));
    let endpoint = cloud.endpoint();
    let (store, region) = cloud.store_settings();
    let text = format!(
        "[profiles.lab]\nendpoint = \"{endpoint}\"\nfolder-id = \"{FOLDER}\"\nbucket = \"{BUCKET}\"\n\
         service-account-key-file = \"key.json\"\nstorage-endpoint-url = \"{store}\"\nregion = \"{region}\"\n"
    );
    fs::write(bench.path("config/image-prep/config.toml"), text).unwrap();
    let create = |args: &[&str]| {
        let mut command = bench.command([&["create", "sample.raw", "--name", "n"], args].concat());
        cloud.tell_keys(&mut command);
        finish(command.spawn().unwrap())
    };
    let done = create(&["--profile", "lab"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(cloud.images(FOLDER)[0].name, "n");
    // Without the profile there is not even a folder.
    let none = create(&[]);
    assert!(none.code == 2 && none.stderr.contains("no folder"), "{none:?}");
    let unknown = create(&["--profile", "gone"]);
    assert!(unknown.code == 2 && unknown.stderr.contains("no profile `gone`"), "{unknown:?}");
}

#[test]
fn a_profile_of_yc_is_used_where_it_is_named() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start_with_token(&dir.path("cloud"), "t1.yc-SECRET");
    bench.sample();
    fs::create_dir_all(bench.path(".config/yandex-cloud")).unwrap();
    let text =
        "current: other\nprofiles:\n  other: {token: t1.other-SECRET}\n  lab:\n    token: t1.yc-SECRET\n";
    fs::write(bench.path(".config/yandex-cloud/config.yaml"), text).unwrap();
    fs::set_permissions(bench.path(".config/yandex-cloud/config.yaml"), fs::Permissions::from_mode(0o600))
        .unwrap();
    let unnamed = run(&bench, &cloud, &CREATE, &[]);
    assert!(unnamed.stderr.contains("a bearer token is needed"), "{unnamed:?}");
    let named = run(&bench, &cloud, &[&CREATE[..], &["--yc-profile", "lab", "-vv"]].concat(), &[]);
    assert_eq!((named.code, named.stderr.contains("SECRET")), (0, false), "{named:?}");
    let gone = run(&bench, &cloud, &[&CREATE[..], &["--yc-profile", "gone"]].concat(), &[]);
    assert!(gone.code == 1 && gone.stderr.contains("no profile `gone`"), "{gone:?}");
}
