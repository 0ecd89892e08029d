//! `cargo xtask hostile --url`: the same images behind URLs, and an image server that is asked to create from each.
//!
//! Once one after the other: each must be refused by name, or become the one disk that it may become, which is read back through the
//! server. Then as many Creates of them as asked for at once, more than the queue has room for: what is not admitted is told so with
//! a time to wait, every operation that is admitted ends as it did alone, and memory stays within what four images may cost. In the
//! end `gc` and `fsck --read` find a store that holds what the images consist of, and nothing else is wrong with it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};

use super::case::Case;
use super::{LIMITS, MAX_PEAK};
use crate::image_server::{ImageServer, create, id_of, image_id, wait};
use crate::kinds::IMAGE;
use crate::origin::Origin;
use crate::repo::output;
use crate::rest::Client;
use crate::sparse;
use crate::watch::fresh;

/// Ingests that the server runs at once.
const RUNNING: u64 = 4;

/// Resident memory that the server may have, bytes: what as many hostile images may cost.
const MAX_SERVER_PEAK: u64 = RUNNING * MAX_PEAK;

/// Callers that stand at the door at once.
const CALLERS: usize = 64;

/// The pause of a caller that was not admitted: far shorter than it is told, so that the door is never quiet.
const IMPATIENCE: Duration = Duration::from_millis(100);

/// For all operations of the crowd to end.
const PATIENCE: Duration = Duration::from_secs(180);

/// Disks above are not read back: one that has no data at all stores nothing, and that is looked at.
const MAX_READ: u64 = 1 << 30;

/// INVALID_ARGUMENT and FAILED_PRECONDITION: the image or its URL is at fault.
const REFUSALS: [i64; 2] = [3, 9];

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ended {
    Refused {
        code: i64,
        said: String,
    },
    /// The image, what it stores, and the version of its disk, which follows from the digest of what a guest reads.
    Image {
        id: String,
        stored: String,
        version: String,
    },
}

/// Asks a server at `program` for images of all `cases`, and then for `creates` of them at once.
pub(super) fn run(program: &Path, cases: &[&Case], work: &Path, creates: usize) -> Result<ExitCode> {
    let served = fresh(work.join("served"))?;
    for (number, case) in cases.iter().enumerate() {
        let folder = served.join(number.to_string());
        fs::create_dir(&folder)?;
        case.make(&folder)?;
    }
    let origin = Origin::start(&served, Duration::ZERO)?;
    let (host, data) = (origin.host(), work.join("server"));
    let options = ["--allow-http", "--allow-uri-host", &host, "--creates-per-second", "1000"];
    let server = ImageServer::start(program, &data, &options)?;
    let urls: Vec<String> = (0..cases.len()).map(|number| origin.url(&format!("{number}/{IMAGE}"))).collect();
    let (alone, mut wrong) = one_by_one(&server, cases, &urls, work)?;
    let peak_alone = server.peak()?;
    let crowd = crowd(&server, &urls, creates)?;
    for (case, ended, first) in crowd.ended.iter().map(|(of, ended)| (cases[*of], ended, &alone[*of])) {
        if !same(ended, first) {
            wrong.push(format!("{}: {}: alone {first:?}, in the crowd {ended:?}", case.class, case.name));
        }
    }
    let (peak, fetched) = (server.peak()?, origin.fetched()?);
    if peak > MAX_SERVER_PEAK {
        wrong.push(format!("{} MiB of memory, the limit is {} MiB", peak >> 20, MAX_SERVER_PEAK >> 20));
    }
    if crowd.without_time > 0 {
        wrong.push(format!("{} callers were not told how long to wait", crowd.without_time));
    }
    server.stop()?;
    let said = judge_store(program, &data)?;
    table(cases, &alone);
    println!(
        "\n{creates} Creates at once, {CALLERS} callers: {} admitted, {} times told to wait (429, Retry-After), all ended within {:.1} s of \
         the first: {} refused, {} images\npeak memory {} MiB alone, {} MiB at once, of at most {} MiB; {} MiB fetched in {} requests\n{said}",
        crowd.ended.len(),
        crowd.told_to_wait,
        crowd.wall.as_secs_f64(),
        crowd.ended.iter().filter(|(_, ended)| matches!(ended, Ended::Refused { .. })).count(),
        crowd.ended.iter().filter(|(_, ended)| matches!(ended, Ended::Image { .. })).count(),
        peak_alone >> 20,
        peak >> 20,
        MAX_SERVER_PEAK >> 20,
        fetched.bytes >> 20,
        fetched.requests
    );
    for wrong in &wrong {
        println!("\n{}", wrong.replace('\n', "\n  "));
    }
    let report = json!({ "images": cases.len(), "creates": creates, "toldToWait": crowd.told_to_wait,
        "wallSeconds": crowd.wall.as_secs_f64(), "peakBytes": peak, "wrong": wrong });
    fs::write(work.with_file_name("hostile-url.json"), serde_json::to_vec_pretty(&report)?)?;
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Creates from each; gives how each ended, and what is wrong with that.
fn one_by_one(
    server: &ImageServer,
    cases: &[&Case],
    urls: &[String],
    work: &Path,
) -> Result<(Vec<Ended>, Vec<String>)> {
    let (mut client, mut all, mut wrong) = (server.client(), Vec::new(), Vec::new());
    for (number, (case, url)) in cases.iter().zip(urls).enumerate() {
        let started = Instant::now();
        let operation = create(&mut client, &format!("alone-{number}"), ("uri", url))?.right()?;
        let done = wait(&mut client, vec![id_of(&operation)?], LIMITS.wall)
            .with_context(|| format!("{}: {}", case.class, case.name))?;
        let took = started.elapsed();
        let (_, operation) = done.first().context("an operation that was waited for")?;
        let ended = ended(operation, |id| version(&mut client, id))?;
        let judged = judge(&mut client, case, &ended, work).and_then(|()| {
            ensure!(took <= LIMITS.wall, "it took {} ms", took.as_millis());
            Ok(())
        });
        if let Err(error) = judged {
            wrong.push(format!("{}: {}\n{error:#}\n{ended:?}", case.class, case.name));
        }
        all.push(ended);
    }
    Ok((all, wrong))
}

/// How an operation ended; `version` is asked for that of the image with an identifier.
fn ended(operation: &Value, version: impl FnOnce(&str) -> Result<String>) -> Result<Ended> {
    let error = &operation["error"];
    if error.is_null() {
        let stored = operation["response"]["storageSize"].as_str().unwrap_or("0").to_owned();
        let id = image_id(operation)?;
        let version = version(&id)?;
        return Ok(Ended::Image { id, stored, version });
    }
    let code = error["code"].as_i64().context("an error without a code")?;
    Ok(Ended::Refused { code, said: error["message"].as_str().unwrap_or_default().to_owned() })
}

/// The version of an image's disk, as the server serves it.
fn version(client: &mut Client, id: &str) -> Result<String> {
    let answer = client.head(&format!("/images/{id}/disk.raw"))?;
    ensure!(answer.status == 200, "asking for the disk of an image: {}", answer.status);
    answer.etag.context("a disk without a version")
}

/// Whether an image may end so.
fn judge(client: &mut Client, case: &Case, ended: &Ended, work: &Path) -> Result<()> {
    match ended {
        Ended::Refused { code, said } => {
            ensure!(REFUSALS.contains(code), "the code {code} blames somebody else");
            ensure!(!said.is_empty(), "a refusal without a word");
            Ok(())
        }
        Ended::Image { id, stored, .. } => {
            let len = case.truth_len().context("it must not become a disk")?;
            if len > MAX_READ {
                ensure!(
                    case.is_empty_disk() && stored == "0",
                    "stores {stored} bytes of a disk without data"
                );
                return Ok(());
            }
            let raw = work.join("back.raw");
            read_back(client, id, &raw)?;
            let (found, expected) = (sparse::digest(&raw)?, case.truth(work)?);
            fs::remove_file(raw)?;
            ensure!(Some(found) == expected, "another disk than the one that it may become");
            Ok(())
        }
    }
}

/// Writes the content of an image to a file, without pages of zeroes.
fn read_back(client: &mut Client, id: &str, raw: &Path) -> Result<()> {
    let (file, mut at) = (File::create(raw)?, 0);
    let status = client.read(&format!("/images/{id}/disk.raw"), |bytes| {
        if bytes.iter().any(|byte| *byte != 0) {
            file.write_all_at(bytes, at)?;
        }
        at += bytes.len() as u64;
        Ok(())
    })?;
    ensure!(status == 200, "reading the image back: {status}");
    Ok(file.set_len(at)?)
}

/// What became of many Creates at once.
struct Crowd {
    /// Which image, and how its operation ended.
    ended: Vec<(usize, Ended)>,
    /// Answers that said to come again.
    told_to_wait: usize,
    /// Those of them without a time.
    without_time: usize,
    /// From the first call to the last end.
    wall: Duration,
}

fn crowd(server: &ImageServer, urls: &[String], creates: usize) -> Result<Crowd> {
    let (next, told, without_time) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let admitted = Mutex::new(Vec::new());
    let started = Instant::now();
    let call = || -> Result<()> {
        let mut client = server.client();
        loop {
            let number = next.fetch_add(1, Ordering::SeqCst);
            if number >= creates {
                return Ok(());
            }
            let of = number % urls.len();
            let operation = loop {
                let answer = create(&mut client, &format!("crowd-{number}"), ("uri", &urls[of]))?;
                if answer.status != 429 {
                    break answer.right()?;
                }
                told.fetch_add(1, Ordering::SeqCst);
                without_time.fetch_add(usize::from(answer.retry_after.is_none()), Ordering::SeqCst);
                ensure!(started.elapsed() < PATIENCE, "nobody is admitted any more");
                std::thread::sleep(IMPATIENCE);
            };
            let mut admitted = admitted.lock().map_err(|_| anyhow!("a caller panicked"))?;
            admitted.push((of, id_of(&operation)?));
        }
    };
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(call)).collect();
        callers.into_iter().try_for_each(|caller| caller.join().map_err(|_| anyhow!("a caller panicked"))?)
    })?;
    let admitted = admitted.into_inner().map_err(|_| anyhow!("a caller panicked"))?;
    let ids = admitted.iter().map(|(_, id)| id.clone()).collect();
    let done: BTreeMap<String, Value> = wait(&mut server.client(), ids, PATIENCE)?.into_iter().collect();
    let wall = started.elapsed();
    let mut client = server.client();
    let of = |(of, id): &(usize, String)| {
        let operation = done.get(id).context("an operation that was waited for")?;
        Ok((*of, ended(operation, |id| version(&mut client, id))?))
    };
    let ended = admitted.iter().map(of).collect::<Result<Vec<_>>>()?;
    let (told_to_wait, without_time) = (told.into_inner(), without_time.into_inner());
    Ok(Crowd { ended, told_to_wait, without_time, wall })
}

/// Whether an image became the same twice. Each has an identifier of its own, and an address.
fn same(one: &Ended, other: &Ended) -> bool {
    match (one, other) {
        (Ended::Refused { code, said }, Ended::Refused { code: code_then, said: said_then }) => {
            (code, said) == (code_then, said_then)
        }
        (
            Ended::Image { stored, version, .. },
            Ended::Image { stored: stored_then, version: version_then, .. },
        ) => (stored, version) == (stored_then, version_then),
        _ => false,
    }
}

/// What the server's own tools say of what is left; an error if they find anything.
fn judge_store(program: &Path, data: &Path) -> Result<String> {
    let mut said = String::new();
    for words in [&["gc"][..], &["fsck", "--read"]] {
        let mut command = Command::new(program);
        said += &output(command.args(words).arg("--data-dir").arg(data))?;
    }
    Ok(said.trim_end().to_owned())
}

/// Counts by class.
fn table(cases: &[&Case], alone: &[Ended]) {
    let mut classes: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for (case, ended) in cases.iter().zip(alone) {
        for class in [case.class, "~"] {
            let [images, refused, exact] = classes.entry(class).or_default();
            *images += 1;
            *if matches!(ended, Ended::Refused { .. }) { refused } else { exact } += 1;
        }
    }
    println!("{:18}{:>7}{:>9}{:>7}", "class", "images", "refused", "exact");
    for (class, [images, refused, exact]) in classes {
        println!("{:18}{images:>7}{refused:>9}{exact:>7}", if class == "~" { "all" } else { class });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_twice() {
        let refused = |code, said: &str| Ended::Refused { code, said: said.to_owned() };
        let image = |id: &str, stored: &str, version: &str| {
            let [id, stored, version] = [id, stored, version].map(str::to_owned);
            Ended::Image { id, stored, version }
        };
        assert!(
            same(&image("a", "4", "v"), &image("b", "4", "v")) && same(&refused(3, "x"), &refused(3, "x"))
        );
        assert!(!same(&image("a", "4", "v"), &image("a", "4", "w")));
        assert!(
            !same(&image("a", "4", "v"), &image("a", "8", "v")) && !same(&refused(3, "x"), &refused(3, "y"))
        );
        assert!(!same(&refused(3, "x"), &image("a", "0", "v")) && !same(&refused(3, "x"), &refused(14, "x")));
    }

    #[test]
    fn an_operation_says_how_it_ended() {
        let done =
            json!({ "done": true, "metadata": { "imageId": "fd8" }, "response": { "storageSize": "7" } });
        let [id, stored, version] = ["fd8", "7", "v of fd8"].map(str::to_owned);
        let found = ended(&done, |id| Ok(format!("v of {id}"))).unwrap();
        assert_eq!(found, Ended::Image { id, stored, version });
        let failed = json!({ "done": true, "error": { "code": 3, "message": "no" } });
        assert_eq!(
            ended(&failed, |_| panic!("no image")).unwrap(),
            Ended::Refused { code: 3, said: "no".to_owned() }
        );
    }
}
