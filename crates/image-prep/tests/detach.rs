//! Operations that are not waited for, and URLs that no operation should be begun with.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "support/cloud.rs"]
mod cloud;
mod support;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use cloud::{BUCKET, Cloud, FOLDER, run, until};
use support::http::{Behaviour, Server};
use support::{Bench, MIB, noise};

/// Operations that are noted.
fn notes(bench: &Bench) -> Vec<String> {
    let Ok(entries) = fs::read_dir(bench.path("data/state/image-prep/operations")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn what_was_begun_is_found_another_day() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    bench.sample();
    bench.raw("other", MIB, &[]);
    for (image, name) in [("sample.raw", "one"), ("other", "two")] {
        let args = ["create", image, "--name", name, "--bucket", BUCKET, "--detach"];
        let begun = run(&bench, &cloud, &args);
        assert_eq!(begun.code, 0, "{begun:?}");
    }
    assert_eq!((cloud.objects(BUCKET).len(), bench.journals().len()), (2, 2));
    assert_eq!(notes(&bench).len(), 2);
    let note = fs::read_to_string(bench.path("data/state/image-prep/operations").join(&notes(&bench)[0]));
    assert!(!note.unwrap().contains("X-Amz"), "no signature is kept");
    // Another service has none of them.
    let elsewhere = ["operation", "wait", "--endpoint", "http://127.0.0.1:1"];
    let none = run(&bench, &cloud, &elsewhere);
    assert!(none.code == 0 && none.stderr.contains("no operation of this service"), "{none:?}");
    let done = run(&bench, &cloud, &["operation", "wait", "--json"]);
    assert_eq!((done.code, done.stdout.matches("\"status\":\"READY\"").count()), (0, 2), "{done:?}");
    assert!(cloud.objects(BUCKET).is_empty() && bench.journals().is_empty() && notes(&bench).is_empty());
    assert_eq!(cloud.images(FOLDER).len(), 2);
    let local = bench.fails(2, ["operation", "wait", "--local"]);
    assert!(local.stderr.contains("has to be named"), "{local:?}");
}

#[test]
fn what_was_put_in_the_place_of_an_object_stays() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    bench.sample();
    let args =
        ["create", "sample.raw", "--name", "n", "--bucket", BUCKET, "--key", "k", "--detach", "--json"];
    let begun = run(&bench, &cloud, &args);
    let id = begun.json()["id"].as_str().unwrap().to_owned();
    let ready = || run(&bench, &cloud, &["operation", "get", &id, "--json"]).json()["done"] == true;
    until("the operation is done", ready);
    cloud.put(BUCKET, "k", b"somebody else's");
    assert_eq!(run(&bench, &cloud, &["operation", "wait", &id]).code, 0);
    assert_eq!(cloud.object(BUCKET, "k"), b"somebody else's");
    assert!(notes(&bench).is_empty());
}

#[test]
fn a_kill_leaves_a_note() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    let part = noise(64 * MIB, 5);
    let fills: Vec<(u64, &[u8])> = (0..4).map(|i| (i * 65 * MIB + i * 4096 + 4096, &part[..])).collect();
    bench.raw("disk", 300 * MIB, &fills);
    let mut command = bench.command(["create", "disk", "--name", "n", "--bucket", BUCKET]);
    cloud.tell(&mut command);
    let mut child = command.spawn().unwrap();
    until("the operation is noted", || notes(&bench).iter().any(|name| name.ends_with(".json")));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(run(&bench, &cloud, &["operation", "wait"]).code, 0);
    assert!(cloud.objects(BUCKET).is_empty() && bench.journals().is_empty() && notes(&bench).is_empty());
}

#[test]
fn a_url_that_is_of_no_use_begins_nothing() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start_for_any_host(&dir.path("cloud"));
    let create = |url: &str| run(&bench, &cloud, &["create", "--uri", url, "--name", "n"]);
    let gone = create(Server::start(vec![0; 512], Behaviour::Status(404)).url());
    assert_eq!(gone.code, 1, "{gone:?}");
    assert!(gone.stderr.contains("not found") && gone.stderr.contains("hint: there is nothing"), "{gone:?}");
    let server = Server::start(vec![0; 512], Behaviour::Serves);
    let (base, _) = server.url().split_once('?').unwrap();
    let old = "X-Amz-Date=20200101T000000Z&X-Amz-Expires=60&X-Amz-Signature=SECRET";
    let expired = create(&format!("{base}?{old}"));
    assert_eq!(expired.code, 1, "{expired:?}");
    assert!(expired.stderr.contains("expired") && expired.stderr.contains("hint: sign"), "{expired:?}");
    assert!(cloud.images(FOLDER).is_empty());
    // Its host may let the service in: that is for the service to say.
    let denied = create(Server::start(vec![0; 512], Behaviour::Status(403)).url());
    assert_eq!(denied.code, 4, "{denied:?}");
    assert!(denied.stderr.starts_with("warning: the image service may not be able"), "{denied:?}");
    for run in [gone, expired, denied] {
        assert!(!run.stderr.contains("SECRET"), "{run:?}");
    }
}

/// One operation reads an object; the end of another one does not take it away.
#[test]
fn an_object_that_an_operation_reads_stays() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    bench.sample();
    let create = |more: &[&str]| {
        let args = ["create", "sample.raw", "--name", "n", "--bucket", BUCKET, "--key", "k"];
        run(&bench, &cloud, &[&args[..], more].concat())
    };
    assert_eq!(create(&["--detach"]).code, 0);
    let refused = create(&["--description", "another"]);
    assert!(refused.code == 1 && refused.stderr.contains("may still read it"), "{refused:?}");
    assert_eq!((cloud.objects(BUCKET), notes(&bench).len()), (vec!["k".to_owned()], 1));
    // The same command takes the operation over.
    assert_eq!(create(&[]).code, 0);
    assert!(cloud.objects(BUCKET).is_empty() && bench.journals().is_empty() && notes(&bench).is_empty());
}

/// Two operations were given one object: it goes with the second.
#[test]
fn an_object_goes_with_the_last_operation_that_reads_it() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    bench.sample();
    let begin = |name: &str| {
        let args =
            ["create", "sample.raw", "--name", name, "--bucket", BUCKET, "--key", "k", "--detach", "--json"];
        let begun = run(&bench, &cloud, &args);
        begun.json()["id"].as_str().unwrap().to_owned()
    };
    let (first, second) = (begin("a"), begin("b"));
    let ended = run(&bench, &cloud, &["operation", "wait", &first]);
    assert!(ended.code == 0 && ended.stderr.contains(&second), "{ended:?}");
    assert_eq!(cloud.objects(BUCKET), ["k"]);
    assert_eq!(run(&bench, &cloud, &["operation", "wait"]).code, 0);
    assert!(cloud.objects(BUCKET).is_empty() && notes(&bench).is_empty());
}

/// Another service does not know the operation, and what it says of it is of no meaning for the note.
#[test]
fn another_service_says_nothing_of_what_is_noted() {
    let (bench, dir, far) = (Bench::new(), Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    let other = Cloud::start(&far.path("cloud"));
    bench.sample();
    let args = ["create", "sample.raw", "--name", "n", "--bucket", BUCKET, "--detach", "--json"];
    let begun = run(&bench, &cloud, &args);
    let id = begun.json()["id"].as_str().unwrap().to_owned();
    let elsewhere = ["operation", "wait", &id, "--endpoint", other.endpoint()];
    assert_eq!(run(&bench, &cloud, &elsewhere).code, 1);
    assert_eq!((notes(&bench).len(), cloud.objects(BUCKET).len()), (1, 1));
    assert_eq!(run(&bench, &cloud, &["operation", "wait"]).code, 0);
    assert!(cloud.objects(BUCKET).is_empty() && notes(&bench).is_empty());
}

/// A service whose answers to some calls get lost: `503` is what a gateway says then, whatever the service did.
struct Gateway {
    address: SocketAddr,
    /// Method and body of each request.
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

impl Gateway {
    /// `images` is the answer to a list, `is_lost` is asked with method and body.
    fn start(images: String, is_lost: fn(&str, &str) -> bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = seen.clone();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let _ = Self::answer(&stream, &images, is_lost, &shared);
            }
        });
        Self { address, seen }
    }

    fn answer(
        mut stream: &TcpStream,
        images: &str,
        is_lost: fn(&str, &str) -> bool,
        seen: &Mutex<Vec<(String, String)>>,
    ) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let (mut line, mut len) = (String::new(), 0);
        reader.read_line(&mut line)?;
        let method = line.split(' ').next().unwrap_or_default().to_owned();
        while line != "\r\n" && !line.is_empty() {
            line.clear();
            reader.read_line(&mut line)?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                len = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; len];
        reader.read_exact(&mut body)?;
        let body = String::from_utf8_lossy(&body).into_owned();
        let (status, answer) = match (method.as_str(), is_lost(&method, &body)) {
            (_, true) => ("503 Unavailable", String::new()),
            ("GET", _) => ("200 OK", images.to_owned()),
            _ => ("200 OK", r#"{"id":"op1","done":true}"#.to_owned()),
        };
        seen.lock().unwrap().push((method, body));
        let len = answer.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {len}\r\n\r\n{answer}"
        )
    }

    fn bodies(&self, method: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(found, _)| found == method).map(|(_, body)| body.clone()).collect()
    }
}

/// Nobody knows whether an operation was begun: what it would read stays, and the same command can find both.
#[test]
fn an_answer_that_is_lost_leaves_the_object() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    bench.sample();
    let gateway = Gateway::start("{}".to_owned(), |method, _| method == "POST");
    let at = format!("http://{}", gateway.address);
    let create = ["create", "sample.raw", "--name", "n", "--bucket", BUCKET];
    let lost = run(&bench, &cloud, &[&create[..], &["--endpoint", &at]].concat());
    assert!(lost.code == 1 && lost.stderr.contains("is kept"), "{lost:?}");
    assert_eq!((cloud.objects(BUCKET).len(), bench.journals().len()), (1, 1), "{lost:?}");
    let again = run(&bench, &cloud, &create);
    assert_eq!(again.code, 0, "{again:?}");
    assert!(cloud.objects(BUCKET).is_empty() && bench.journals().is_empty());
}

/// Nobody knows whether the Image has another name by now: it is given its own again.
#[test]
fn a_name_is_given_back_where_the_answer_is_lost() {
    let (bench, dir) = (Bench::new(), Bench::new());
    let cloud = Cloud::start(&dir.path("cloud"));
    bench.sample();
    let images = format!(r#"{{"images":[{{"id":"i1","folderId":"{FOLDER}","name":"n","status":"READY"}}]}}"#);
    let gateway = Gateway::start(images, |method, body| method == "PATCH" && body.contains("-replaced-"));
    let at = format!("http://{}", gateway.address);
    let create = ["create", "sample.raw", "--name", "n", "--bucket", BUCKET, "--if-exists", "replace"];
    let lost = run(&bench, &cloud, &[&create[..], &["--endpoint", &at]].concat());
    assert_eq!(lost.code, 1, "{lost:?}");
    let renamed = gateway.bodies("PATCH");
    assert!(renamed[0].contains("n-replaced-i1"), "{renamed:?}");
    assert!(renamed.last().unwrap().contains(r#""name":"n""#), "{renamed:?}");
    assert!(gateway.bodies("POST").is_empty());
}
