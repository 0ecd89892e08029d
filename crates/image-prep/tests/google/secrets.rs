//! Which secrets go where: to the endpoint that they were named for, and no other.

use super::*;
use crate::proxy::Proxy;

const TOKEN: (&str, &str) = ("GOOGLE_OAUTH_ACCESS_TOKEN", "ya29.hidden");

/// A machine without keys for a store, whose stand-in for Google's counts what it is asked.
struct Store {
    google: Google,
    proxy: Proxy,
}

impl Store {
    fn new() -> Self {
        let google = Google::new();
        let proxy = Proxy::start(google.cloud.store_address());
        Self { google, proxy }
    }

    /// The same port by an address that is not known to be this machine's.
    fn as_if_elsewhere(&self) -> String {
        self.proxy.url().replace("127.0.0.1", "0.0.0.0")
    }

    fn run(&self, args: &[&str], variables: &[(&str, &str)]) -> Run {
        let mut command = self.google.command(args);
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "STORAGE_EMULATOR_HOST"] {
            command.env_remove(name);
        }
        finish(command.envs(variables.iter().copied()).spawn().unwrap())
    }

    /// Runs a command that ends with this code and this in its message, without a word to the store.
    fn is_asked_nothing(&self, code: i32, part: &str, args: &[&str], variables: &[(&str, &str)]) {
        let run = self.run(args, variables);
        assert!(run.code == code && run.stderr.contains(part), "{args:?}: {run:?}");
        assert!(!run.stderr.contains("hidden"), "{run:?}");
        assert_eq!(self.proxy.bytes(), 0, "{args:?}: {run:?}");
    }
}

const NONE: &str = "no credentials for Google Cloud Storage";

#[test]
fn tokens_go_to_a_store_that_was_named_for_them_and_by_no_open_wire() {
    let store = Store::new();
    let (url, open) = (store.proxy.url(), store.as_if_elsewhere());
    let to = format!("gs://{BUCKET}/k");
    let upload = ["upload", "sample.raw", &to];
    store.is_asked_nothing(1, NONE, &[&upload[..], &["--endpoint-url", &open]].concat(), &[TOKEN]);
    for emulator in [url.as_str(), &open, open.strip_prefix("http://").unwrap()] {
        store.is_asked_nothing(1, NONE, &upload, &[TOKEN, ("STORAGE_EMULATOR_HOST", emulator)]);
    }
    // One endpoint for two stores would show each what is meant for the other.
    let both = ["compare", "s3://bucket/k", &to, "--endpoint-url", &url];
    store.is_asked_nothing(2, "--endpoint-url is for one store", &both, &[TOKEN]);
    // What is named for it is used.
    store.run(&[&upload[..], &["--endpoint-url", &url]].concat(), &[TOKEN]);
    assert!(store.proxy.bytes() > 0);
}

#[test]
fn what_is_of_another_cloud_is_not_for_googles_store() {
    let store = Store::new();
    let url = store.proxy.url();
    fs::write(store.google.bench.path("yc.token"), "t1.hidden\n").unwrap();
    fs::write(store.google.bench.path("key.json"), "{}\n").unwrap();
    let (bucket, to) = (format!("gs://{BUCKET}"), format!("gs://{BUCKET}/k"));
    let at = ["--endpoint-url", &url, "--endpoint", store.google.cloud.endpoint(), "--folder-id", FOLDER];
    let create = [&["create", "sample.raw", "--name", "n", "--bucket", &bucket], &at[..]].concat();
    store.is_asked_nothing(1, NONE, &[&create[..], &["--token-file", "yc.token"]].concat(), &[]);
    // Nobody has said that the file is Google's.
    let compare = ["compare", "sample.raw", &to, "--endpoint-url", &url];
    for option in [["--token-file", "yc.token"], ["--service-account-key-file", "key.json"]] {
        store.is_asked_nothing(2, NONE, &[&compare[..], &option].concat(), &[]);
    }
    // A token signs no URL for the other cloud to read by: that is told before anything is sent.
    store.is_asked_nothing(1, "no URL can be signed", &create, &[TOKEN]);
    assert!(store.google.is_clean());
}

#[test]
fn compute_engine_is_told_of_its_own_store() {
    let store = Store::new();
    let url = store.proxy.url();
    let create = ["create", "sample.raw", "--name", "n", "--bucket", BUCKET, "--cloud", "gcp"];
    let part = "Compute Engine reads from Google Cloud Storage";
    store.is_asked_nothing(2, part, &create, &[TOKEN, ("STORAGE_EMULATOR_HOST", url.as_str())]);
    store.is_asked_nothing(2, part, &[&create[..], &["--endpoint-url", &url]].concat(), &[TOKEN]);
}

#[test]
fn a_profile_is_about_its_own_cloud() {
    let store = Store::new();
    let url = store.proxy.url();
    let folder = store.google.bench.path("config/image-prep");
    fs::create_dir_all(&folder).unwrap();
    let profile = "[profiles.default]\ncloud = \"ru\"\nbucket = \"test-uploads\"\naws-profile = \"own\"\n";
    fs::write(folder.join("config.toml"), profile).unwrap();
    let aws = store.google.bench.path("credentials");
    fs::write(&aws, "[own]\naws_access_key_id = AKID\naws_secret_access_key = hidden\n").unwrap();
    // Its keys are not Google's.
    let to = format!("gs://{BUCKET}/k");
    let upload = ["upload", "sample.raw", &to, "--endpoint-url", &url];
    store.is_asked_nothing(1, NONE, &upload, &[("AWS_SHARED_CREDENTIALS_FILE", aws.to_str().unwrap())]);
    // In Google's store its bucket may be a stranger's.
    let create = store.google.args(&["create", "sample.raw", "--name", "n"]);
    store.is_asked_nothing(2, "no bucket", &create, &[("STORAGE_EMULATOR_HOST", url.as_str())]);
}
