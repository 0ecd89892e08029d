//! How quickly the server answers when there are many images: Get and List at 100,000 beside the same at 1,000.
//!
//! One image is made through the API. The others are rows of its catalog, copied with other names and identifiers while the server is
//! down, by Python's own SQLite: a hundred thousand Creates would measure something else. Both servers stand beside each other, and
//! each call goes to the one and then to the other, so that whatever else the machine does falls on both.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};

use super::service::{Found, Scene};
use crate::image_server::{FOLDER, ImageServer, ready};
use crate::origin::Origin;
use crate::repo::output;
use crate::rest::Client;

const FEW: usize = 1_000;
const MANY: usize = 100_000;

/// The most that a call may take with many images, as a multiple of what it takes with few, at the 99th of a hundred.
const MAX_RATIO: f64 = 1.5;

/// Calls that are measured of each kind.
const GETS: usize = 2_000;
const LISTS: usize = 500;

/// Calls before them.
const WARM: usize = 50;

/// Copies of the only image, so many that there are `count`; prints identifiers from everywhere between.
const FILL: &str = r#"
import hashlib, sqlite3, sys
path, count, shown = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
database = sqlite3.connect(path)
columns = [column[1] for column in database.execute("PRAGMA table_info(images)")]
image = dict(zip(columns, database.execute("SELECT * FROM images").fetchone()))
places = ", ".join("?" for _ in columns)
ids = [image["id"]]
for number in range(count - 1):
    name = f"image-{number}"
    id = "fd8" + hashlib.sha256(name.encode()).hexdigest()[:17]
    copy = {**image, "id": id, "name": name, "created_at": image["created_at"] + number}
    database.execute(f"INSERT INTO images VALUES ({places})", [copy[column] for column in columns])
    ids.append(id)
database.commit()
for number in range(shown):
    print(ids[number * len(ids) // shown])
"#;

/// A server with so many images.
struct Filled {
    server: ImageServer,
    client: Client,
    /// Identifiers from everywhere between.
    ids: Vec<String>,
    /// The page in the middle.
    middle: String,
}

/// Calls of one kind: what it is called, how many, and the target of each.
type Kind = (&'static str, usize, fn(&Filled, usize) -> String);

const KINDS: [Kind; 6] = [
    ("Get", GETS, |of, number| format!("/{}", of.ids[number * 7 % of.ids.len()])),
    ("List", LISTS, |_, _| list("")),
    ("List from the middle", LISTS, |of, _| list(&format!("&pageToken={}", of.middle))),
    ("List by name", LISTS, |_, _| list("&orderBy=name")),
    ("List newest first", LISTS, |_, _| list("&orderBy=createdAt%20desc")),
    ("List of one name", LISTS, |_, _| list("&filter=name%3D%22image-77%22")),
];

fn list(rest: &str) -> String {
    format!("?folderId={FOLDER}{rest}")
}

impl Filled {
    fn start(scene: &Scene<'_>, source: &Origin, count: usize) -> Result<Self> {
        let data = scene.folder.join(format!("images-{count}"));
        let host = source.host();
        let options = ["--allow-http", "--allow-uri-host", &host];
        let server = ImageServer::start(scene.program, &data, &options)?;
        ready(&mut server.client(), "first", ("uri", &source.url("tiny.raw")))?;
        server.stop()?;
        let mut fill = Command::new("python3");
        fill.args(["-c", FILL]).arg(data.join("catalog.sqlite"));
        let ids = output(fill.args([count.to_string(), FEW.to_string()]))?;
        let server = ImageServer::start(scene.program, &data, &options)?;
        let mut client = server.client();
        let middle = middle(&mut client, count)?;
        Ok(Self { server, client, ids: ids.lines().map(str::to_owned).collect(), middle })
    }

    /// One call: how long it took, and how many images it gave.
    fn call(&mut self, target: &str) -> Result<(Duration, usize)> {
        let started = Instant::now();
        let answer = self.client.get(&format!("/compute/v1/images{target}"))?;
        let taken = started.elapsed();
        Ok((taken, images(&answer.right()?)))
    }
}

/// How many images an answer has: those of a page, or the one that was asked for. A page without any is an empty message, and an
/// image has an identifier.
fn images(answer: &Value) -> usize {
    match answer["images"].as_array() {
        Some(page) => page.len(),
        None => usize::from(answer["id"].is_string()),
    }
}

/// Goes half the way through the pages, and gives the token of what comes then.
fn middle(client: &mut Client, count: usize) -> Result<String> {
    let (mut token, mut seen) = (String::new(), 0);
    // No more than the server gives.
    let size = (count / 10).min(1000);
    while seen < count / 2 {
        let target = list(&format!("&pageSize={size}&pageToken={token}"));
        let page = client.get(&format!("/compute/v1/images{target}"))?.right()?;
        let images = page["images"].as_array().context("a page without images")?.len();
        ensure!(images == size, "a page has {images} images, expected {size}");
        seen += images;
        token = page["nextPageToken"].as_str().context("no next page in the middle")?.replace(':', "%3A");
    }
    Ok(token)
}

/// Measures all kinds of calls.
pub(super) fn find(scene: &Scene<'_>) -> Result<Found> {
    write_tiny(&scene.folder.join("tiny.raw"))?;
    let source = Origin::start(scene.folder, Duration::ZERO)?;
    let mut few = Filled::start(scene, &source, FEW)?;
    let mut many = Filled::start(scene, &source, MANY)?;
    let (mut holds, mut texts, mut numbers) = (true, Vec::new(), Map::new());
    for (name, count, target) in KINDS {
        let (mut of_few, mut of_many) = (Vec::new(), Vec::new());
        for number in 0..WARM + count {
            let asked = [target(&few, number), target(&many, number)];
            let calls = (few.call(&asked[0]), many.call(&asked[1]));
            let ((took_few, found_few), (took_many, found_many)) = (calls.0?, calls.1?);
            ensure!(
                found_few == found_many && found_few > 0,
                "{name}: {found_few} and {found_many} images, expected as many"
            );
            if number >= WARM {
                of_few.push(took_few);
                of_many.push(took_many);
            }
        }
        let [of_few, of_many] = [of_few, of_many].map(|times| percentile(times, 99).as_secs_f64() * 1e3);
        let ratio = of_many / of_few;
        holds &= ratio <= MAX_RATIO;
        texts.push(format!("{name} {of_few:.2} and {of_many:.2} ms, {ratio:.2} x"));
        numbers.insert(name.to_owned(), json!({ "fewMillis": of_few, "manyMillis": of_many }));
    }
    few.server.stop()?;
    many.server.stop()?;
    let text = format!("p99 with {FEW} images and with {MANY}, at most {MAX_RATIO} x: {}", texts.join("; "));
    Ok(Found { holds, text, numbers: Value::Object(numbers) })
}

/// A disk of 4 MiB with a boot sector.
fn write_tiny(path: &Path) -> Result<()> {
    let mut disk = vec![0; 4 << 20];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    Ok(fs::write(path, disk)?)
}

/// The time that so many of a hundred calls do not exceed.
fn percentile(mut times: Vec<Duration>, of: usize) -> Duration {
    times.sort_unstable();
    let at = (times.len() * of).div_ceil(100).saturating_sub(1);
    times.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_a_page_and_one() {
        let counted =
            [json!({}), json!({ "id": "fd8" }), json!({ "images": [{ "id": "a" }, { "id": "b" }] })];
        assert_eq!(counted.each_ref().map(images), [0, 1, 2]);
        assert_eq!(images(&json!({ "nextPageToken": "x" })), 0);
    }

    #[test]
    fn percentiles_are_of_the_sorted() {
        let times = |numbers: &[u64]| numbers.iter().map(|n| Duration::from_millis(*n)).collect::<Vec<_>>();
        assert_eq!(percentile(times(&[5, 1, 4, 2, 3]), 60), Duration::from_millis(3));
        assert_eq!(percentile(times(&(1..=1000).rev().collect::<Vec<_>>()), 99), Duration::from_millis(990));
        assert_eq!(percentile(times(&[7]), 99), Duration::from_millis(7));
    }
}
