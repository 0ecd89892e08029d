//! What the environment says, each time in a process of its own: variables of this one belong to all tests.

use std::process::Command;
use std::time::Duration;

use disk_convert::ByteSource as _;
use object_io::{HttpOptions, HttpSource, ObjectError, PutOptions, Store, StoreConfig};
use tokio_util::sync::CancellationToken;

/// Not a test by itself: says what [`connect_with`] wants to know.
#[tokio::test]
#[ignore = "runs as a child of the other tests"]
async fn child() {
    let profile = std::env::var("TEST_PROFILE").ok();
    match Store::connect(StoreConfig { profile, ..StoreConfig::default() }).await {
        Err(ObjectError::NoCredentials) => println!("<none>"),
        Err(error) => println!("<error {error}>"),
        Ok(store) => {
            let hour = Duration::from_secs(3600);
            let url = store.presign_get("bucket", "key", hour, &CancellationToken::new()).await.unwrap();
            let url = url::Url::parse(url.expose()).unwrap();
            let credential = url.query_pairs().find(|(name, _)| name == "X-Amz-Credential").unwrap().1;
            let mut credential = credential.split('/');
            let (key, region) = (credential.next().unwrap(), credential.nth(1).unwrap());
            println!("<{key} {region} {}{}>", url.host_str().unwrap(), url.path());
        }
    }
}

/// Connects under these variables and no others, and says which key, region and address came out.
fn connect_with(variables: &[(&str, &str)], profiles: &str) -> String {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("config");
    std::fs::write(&file, profiles).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "environment::child", "--ignored", "--nocapture"])
        .env_clear()
        .env("HOME", home.path())
        .env("AWS_CONFIG_FILE", &file)
        .env("AWS_SHARED_CREDENTIALS_FILE", home.path().join("none"))
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let from = text.find('<').unwrap_or_else(|| panic!("the child said {text}"));
    text[from + 1..].split('>').next().unwrap().to_owned()
}

const AWS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AWSKEY"), ("AWS_SECRET_ACCESS_KEY", "s")];
const YC: [(&str, &str); 3] = [
    ("YC_STORAGE_ACCESS_KEY", "YCKEY"),
    ("YC_STORAGE_SECRET_KEY", "s"),
    ("YC_STORAGE_ENDPOINT_URL", "https://storage.yandexcloud.net"),
];
const PROFILES: &str = "\
[default]
aws_access_key_id = DEFAULTKEY
aws_secret_access_key = s
region = eu-west-1

[profile lab]
aws_access_key_id = LABKEY
aws_secret_access_key = s
region = lab
endpoint_url = http://lab.example:9000
";

#[test]
fn nothing_configured_is_said_at_once() {
    let metadata = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let service = format!("http://{}", metadata.local_addr().unwrap());
    let service = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.as_str());
    assert_eq!(connect_with(&[service], ""), "none");
    assert_eq!(connect_with(&[service, ("AWS_ACCESS_KEY_ID", "half")], ""), "none");
    metadata.set_nonblocking(true).unwrap();
    assert!(metadata.accept().is_err(), "no machine's metadata are asked for");
}

#[test]
fn variables_come_before_files() {
    assert_eq!(connect_with(&AWS, ""), "AWSKEY us-east-1 bucket.s3.us-east-1.amazonaws.com/key");
    assert_eq!(connect_with(&AWS, PROFILES), "AWSKEY eu-west-1 bucket.s3.eu-west-1.amazonaws.com/key");
    assert_eq!(connect_with(&[], PROFILES), "DEFAULTKEY eu-west-1 bucket.s3.eu-west-1.amazonaws.com/key");
}

#[test]
fn endpoints_have_their_buckets_in_the_path() {
    let global = [AWS[0], AWS[1], ("AWS_ENDPOINT_URL", "http://global.example")];
    assert_eq!(connect_with(&global, ""), "AWSKEY us-east-1 global.example/bucket/key");
    let both = [global[0], global[1], global[2], ("AWS_ENDPOINT_URL_S3", "http://s3.example")];
    assert_eq!(connect_with(&both, ""), "AWSKEY us-east-1 s3.example/bucket/key");
}

#[test]
fn a_named_profile_is_the_whole_answer() {
    let lab = "LABKEY lab lab.example/bucket/key";
    assert_eq!(connect_with(&[("AWS_PROFILE", "lab")], PROFILES), lab);
    assert_eq!(connect_with(&[("AWS_PROFILE", "lab"), YC[0], YC[1], YC[2]], PROFILES), lab);
    // An option that names one comes before variables, too.
    assert_eq!(connect_with(&[("TEST_PROFILE", "lab"), AWS[0], AWS[1]], PROFILES), lab);
}

#[test]
fn yandex_variables_come_after_those_of_aws() {
    let yandex = "YCKEY ru-central1 storage.yandexcloud.net/bucket/key";
    assert_eq!(connect_with(&YC, ""), yandex);
    let with_key = [YC[0], YC[1], YC[2], AWS[0], AWS[1]];
    assert_eq!(connect_with(&with_key, ""), "AWSKEY ru-central1 storage.yandexcloud.net/bucket/key");
    let with_url = [YC[0], YC[1], YC[2], ("AWS_ENDPOINT_URL_S3", "http://s3.example")];
    assert_eq!(connect_with(&with_url, ""), "YCKEY us-east-1 s3.example/bucket/key");
}

/// Not a test by itself: talks to this machine only, and must not care which authorities it trusts.
#[tokio::test]
#[ignore = "runs as a child of the other tests"]
async fn child_without_authorities() {
    let local = crate::local::Local::start().await;
    let (store, never) = (&local.store, &local.never);
    let hour = Duration::from_secs(3600);
    store.put("images", "k", "abc".into(), &PutOptions::default(), never).await.unwrap();
    let url = store.presign_get("images", "k", hour, never).await.unwrap();
    let source = HttpSource::open(url.expose(), &HttpOptions::default(), never).await.unwrap();
    println!("<{} bytes>", source.len());
    let tls = HttpOptions { attempts: 1, ..HttpOptions::default() };
    let secure = HttpSource::open(&url.expose().replace("http://", "https://"), &tls, never).await;
    println!("<{:?}>", secure.unwrap_err().fault);
    local.stop().await;
}

#[test]
fn without_trusted_authorities_loopback_still_works() {
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "environment::child_without_authorities", "--ignored", "--nocapture"])
        .env_clear()
        .env("HOME", home.path())
        .env("SSL_CERT_FILE", home.path().join("none"))
        .env("SSL_CERT_DIR", home.path().join("none"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("<3 bytes>"), "{text}{errors}");
    assert!(text.contains("<Unavailable>") || text.contains("<Io>"), "{text}{errors}");
}

#[test]
fn an_endpoint_that_is_none_is_refused() {
    let wrong = [AWS[0], AWS[1], ("AWS_ENDPOINT_URL", "ftp://host")];
    assert_eq!(connect_with(&wrong, ""), "error the endpoint `ftp://host` is not an http or https URL");
}
