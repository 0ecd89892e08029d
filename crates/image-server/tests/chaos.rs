//! Three servers on one PostgreSQL and one bucket, while servers are killed and put to sleep and the database crashes: every operation
//! ends exactly once, every READY image has the right digest, and after `gc` the store holds what images need and nothing else.
//!
//! `cargo xtask chaos` runs it with more images than a test run has patience for; `CHAOS_CREATES` and `CHAOS_SEED` say how many, and
//! which faults. That an operation ended is counted by a trigger in the database, not by the servers.

// Clippy takes only `#[test]` functions for tests.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::{HashMap, hash_map::Entry},
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use disk_convert::GuestDigest;
use image_api::{ApiError, Client, ClientOptions, Code, Operation, OperationOutcome, Retry, Uuid};
use object_io::{BucketUri, Credentials, StoreConfig};
use sqlx::{PgPool, Row};
use support::{Fixture, disk, image_id, postgres::Postgres, request};
use tokio_util::sync::CancellationToken;

const MIB: usize = 1 << 20;
const SERVERS: usize = 3;
/// Past the lease, which is ten seconds.
const ASLEEP: Duration = Duration::from_secs(13);
/// Disks of which there are many images. Those that are cancelled or deleted have one each, with a block of its own.
const DISKS: usize = 6;

/// A server as a process of its own.
struct Process {
    child: Child,
    client: Client,
}

impl Process {
    fn start(place: &Place, number: usize) -> Self {
        let mut command = place.command("serve");
        command.args(["--listen", "127.0.0.1:0", "--allow-http", "--memory", "64M", "--jobs", "1"]);
        command.args(["--allow-uri-host", &place.host, "--data-dir"]).arg(place.dir.join(number.to_string()));
        let log = place.dir.join(format!("log-{number}"));
        let to = std::fs::File::options().append(true).create(true).open(&log).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(to).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let endpoint = line.trim().strip_prefix("listening on ");
        let retry = Retry { attempts: 1, ..Retry::default() };
        let options = ClientOptions { retry, ..ClientOptions::default() };
        let endpoint = endpoint.unwrap_or_else(|| panic!("{}", std::fs::read_to_string(log).unwrap()));
        Self { client: Client::with_options(endpoint, None, &options).unwrap(), child }
    }

    /// SIGKILL; it is no more when this returns, and has let go of its folder.
    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn signal(&self, signal: &str) {
        assert!(
            Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success()
        );
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What all servers share.
struct Place {
    dir: PathBuf,
    database: String,
    bucket: BucketUri,
    store: StoreConfig,
    keys: Credentials,
    host: String,
}

impl Place {
    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_image-server"));
        command.args([verb, "--database-url", &self.database, "--bucket", &self.bucket.to_string()]);
        command.args(["--s3-endpoint", self.store.endpoint_url.as_deref().unwrap()]);
        command
            .env("AWS_ACCESS_KEY_ID", &self.keys.access_key)
            .env("AWS_SECRET_ACCESS_KEY", &self.keys.secret_key);
        command.env("AWS_REGION", self.store.region.as_deref().unwrap()).env_remove("AWS_PROFILE");
        command
    }

    /// What `gc` or `fsck` prints, and whether it exits with 0.
    fn upkeep(&self, verb: &str, arguments: &[&str]) -> (String, bool) {
        let mut command = self.command(verb);
        command.arg("--data-dir").arg(self.dir.join("upkeep")).args(arguments);
        let output = command.output().unwrap();
        (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success())
    }
}

fn is_cancelled(number: usize) -> bool {
    number % 10 == 7
}

fn is_deleted(number: usize) -> bool {
    number % 10 == 3
}

fn disk_of(number: usize) -> usize {
    if is_cancelled(number) || is_deleted(number) { DISKS + number } else { number % DISKS }
}

/// Faults in an order that a seed gives.
struct Seed(u64);

impl Seed {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

fn number_of(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_dies_every_operation_ends_once() {
    let (creates, seed) = (number_of("CHAOS_CREATES", 12), number_of("CHAOS_SEED", 1));
    let Some(postgres) = Postgres::start() else { return };
    // Its store serves all; as a server it does nothing.
    let fixture = Fixture::start().await;
    let dir = tempfile::tempdir().unwrap();
    let keys = fixture.store_config().credentials.unwrap();
    let store = fixture.store_config();
    let host = store.endpoint_url.as_deref().unwrap().strip_prefix("http://").unwrap().to_owned();
    let database = postgres.database();
    let bucket = "s3://images/chaos".parse().unwrap();
    let place =
        Arc::new(Place { dir: dir.path().to_owned(), database: database.clone(), bucket, store, keys, host });

    let mut sources: HashMap<usize, (String, GuestDigest)> = HashMap::new();
    for number in (0..creates).map(disk_of) {
        if let Entry::Vacant(entry) = sources.entry(number) {
            // The first blocks are common, the last one is not.
            let mut content = disk((20 + number % 4) * MIB, &[(0, 8 * MIB), (16 * MIB, MIB)]);
            content[16 * MIB..16 * MIB + 8].copy_from_slice(&(number as u64 + 1).to_le_bytes());
            let url = fixture.upload(&format!("disk-{number}"), &content).await;
            entry.insert((url, support::digest(&content).await));
        }
    }
    let servers: Arc<Vec<Mutex<Process>>> =
        Arc::new((0..SERVERS).map(|number| Mutex::new(Process::start(&place, number))).collect());
    let pool = PgPool::connect(&database).await.unwrap();
    for sql in [
        "CREATE TABLE ends (id TEXT NOT NULL)",
        "CREATE FUNCTION note_end() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN INSERT INTO ends VALUES (NEW.id); RETURN NEW; END'",
        "CREATE TRIGGER note_end AFTER UPDATE ON operations FOR EACH ROW \
         WHEN (NEW.state IN ('SUCCEEDED', 'FAILED', 'CANCELLED') AND OLD.state <> NEW.state) \
         EXECUTE FUNCTION note_end()",
    ] {
        sqlx::raw_sql(sql).execute(&pool).await.unwrap();
    }

    let over = Arc::new(AtomicBool::new(false));
    let postgres = Arc::new(postgres);
    let faults = {
        let (servers, place, over) = (Arc::clone(&servers), Arc::clone(&place), Arc::clone(&over));
        let postgres = Arc::clone(&postgres);
        std::thread::spawn(move || cause_faults(&servers, &place, &postgres, seed, &over))
    };
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs(1800);
    let callers =
        Callers { servers: &servers, turn: AtomicUsize::new(0), deadline, cancel: fixture.cancel.clone() };
    let calls = (0..creates).map(|number| callers.create(number, &sources[&disk_of(number)].0));
    let operations: Vec<Operation> = futures_util::future::join_all(calls).await;
    over.store(true, Ordering::SeqCst);
    let counts = faults.join().unwrap();
    let took = begun.elapsed().as_secs();

    let mut outcomes = HashMap::new();
    for operation in &operations {
        let outcome = match operation.outcome() {
            OperationOutcome::Succeeded(_) => "succeeded".to_owned(),
            OperationOutcome::Failed(status) => format!("{:?}: {}", status.canonical_code(), status.message),
            OperationOutcome::Running => panic!("{operation:?}"),
        };
        *outcomes.entry(outcome).or_insert(0) += 1;
    }
    println!("{creates} creates, {took} s: {counts}");
    println!("operations {outcomes:?}");
    let known = ["succeeded", "Cancelled: the operation was cancelled"];
    assert!(outcomes.keys().all(|outcome| known.contains(&outcome.as_str())), "{outcomes:?}");

    // Every operation, those included whose callers never got an answer.
    let rows = sqlx::query(
        "SELECT state, (SELECT COUNT(*) FROM ends WHERE ends.id = operations.id) AS ends FROM operations",
    );
    for row in rows.fetch_all(&pool).await.unwrap() {
        assert_eq!(row.get::<i64, _>("ends"), 1, "ended {}", row.get::<String, _>("state"));
    }
    let digest = |number: usize| sources[&disk_of(number)].1;
    let by_image: HashMap<String, GuestDigest> = operations
        .iter()
        .enumerate()
        .map(|(number, operation)| (image_id(operation), digest(number)))
        .collect();
    let ready = check_images(&fixture, &place, &pool, &by_image).await;
    let (mut freed, begun) = (String::new(), Instant::now());
    loop {
        let (printed, done) = place.upkeep("gc", &[]);
        assert!(done, "{printed}");
        freed.push_str(&printed);
        if !printed.contains("left") {
            break;
        }
        // A collection that was killed has condemned something.
        assert!(begun.elapsed() < Duration::from_secs(150), "{freed}");
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let (printed, sound) = place.upkeep("fsck", &["--read"]);
    println!("{ready} images are READY and right; gc, then fsck --read:\n{freed}{printed}");
    assert!(sound, "{printed}");
    let line =
        |name: &str| printed.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(line("stored"), line("referenced"));
    assert_eq!(line("unused"), "0 blocks, 0 bytes");
    pool.close().await;
    drop(servers);
    drop(postgres);
    fixture.stop().await;
}

/// Reads the manifest of every READY image.
async fn check_images(
    fixture: &Fixture,
    place: &Place,
    pool: &PgPool,
    expected: &HashMap<String, GuestDigest>,
) -> usize {
    let blocks =
        block_store::BlockStore::new(fixture.store.clone(), place.bucket.bucket(), place.bucket.prefix());
    let rows = sqlx::query("SELECT id, manifest FROM images WHERE status = 2").fetch_all(pool).await.unwrap();
    for row in &rows {
        let (id, name): (String, String) = (row.get("id"), row.get("manifest"));
        let manifest = blocks.load(&name, &fixture.cancel).await.unwrap();
        assert_eq!(manifest.guest_digest(), expected[&id], "{id}");
    }
    let unfinished: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM images WHERE status <> 2").fetch_one(pool).await.unwrap();
    assert_eq!(unfinished, 0);
    rows.len()
}

/// Where a call goes: from server to server.
struct Callers<'a> {
    servers: &'a [Mutex<Process>],
    turn: AtomicUsize,
    deadline: Instant,
    cancel: CancellationToken,
}

impl Callers<'_> {
    /// Creates an image and waits for the end; cancels some of them, and deletes some once they are READY.
    async fn create(&self, number: usize, url: &str) -> Operation {
        let (key, request) = (Uuid::new_v4(), request(&format!("image-{number}"), url));
        let accepted =
            self.insist(async |client| client.create_image(&request, key, &self.cancel).await).await;
        if is_cancelled(number) {
            tokio::time::sleep(Duration::from_millis(37 * number as u64 % 2000)).await;
            let client = self.next();
            // An answer that does not come is none of ours.
            let cancelled = client.cancel_operation(&accepted.id, &self.cancel);
            let _ = tokio::time::timeout(Duration::from_secs(5), cancelled).await;
        }
        let ended = self.wait(&accepted.id).await;
        if is_deleted(number) && matches!(ended.outcome(), OperationOutcome::Succeeded(_)) {
            let (image, key) = (image_id(&ended), Uuid::new_v4());
            let delete =
                self.insist(async |client| client.delete_image(&image, key, &self.cancel).await).await;
            let deleted = self.wait(&delete.id).await;
            assert!(matches!(deleted.outcome(), OperationOutcome::Succeeded(_)), "{deleted:?}");
        }
        ended
    }

    async fn wait(&self, id: &str) -> Operation {
        loop {
            let operation = self.insist(async |client| client.get_operation(id, &self.cancel).await).await;
            if operation.done {
                return operation;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Asks one server after the other until one answers.
    async fn insist(&self, ask: impl AsyncFn(Client) -> Result<Operation, ApiError>) -> Operation {
        loop {
            assert!(Instant::now() < self.deadline, "no answer, or no end");
            match tokio::time::timeout(Duration::from_secs(5), ask(self.next())).await {
                Ok(Ok(operation)) => return operation,
                Ok(Err(ApiError::Status(error))) if error.code == Code::InvalidArgument => panic!("{error}"),
                _ => tokio::time::sleep(Duration::from_millis(300)).await,
            }
        }
    }

    fn next(&self) -> Client {
        let server = self.turn.fetch_add(1, Ordering::SeqCst) % SERVERS;
        self.servers[server].lock().unwrap().client.clone()
    }
}

/// Until it is over; the first three are one of each kind. Afterwards all servers and the database run.
fn cause_faults(
    servers: &Arc<Vec<Mutex<Process>>>,
    place: &Place,
    postgres: &Postgres,
    seed: usize,
    over: &AtomicBool,
) -> String {
    let mut seed = Seed(0x9e37_79b9_7f4a_7c15 ^ seed as u64);
    let (mut kills, mut sleeps, mut crashes, mut sleepers) = (0, 0, 0, Vec::new());
    while !over.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(300 + seed.below(1200) as u64));
        let (server, kind) = (seed.below(SERVERS), seed.below(10));
        let first = [kills, sleeps, crashes].iter().position(|count| *count == 0);
        match first.unwrap_or([0, 0, 0, 0, 0, 1, 1, 1, 2, 2][kind]) {
            0 => {
                servers[server].lock().unwrap().kill();
                let again = Process::start(place, server);
                *servers[server].lock().unwrap() = again;
                kills += 1;
            }
            1 => {
                sleepers.push(put_to_sleep(servers, server));
                sleeps += 1;
            }
            _ => {
                postgres.stop_immediately();
                std::thread::sleep(Duration::from_millis(seed.below(3000) as u64));
                postgres.run();
                crashes += 1;
            }
        }
    }
    sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
    format!(
        "{kills} servers killed, {sleeps} put to sleep past their leases, {crashes} crashes of the database"
    )
}

fn put_to_sleep(servers: &Arc<Vec<Mutex<Process>>>, server: usize) -> std::thread::JoinHandle<()> {
    let servers = Arc::clone(servers);
    let process = servers[server].lock().unwrap();
    process.signal("-STOP");
    let id = process.child.id();
    drop(process);
    std::thread::spawn(move || {
        std::thread::sleep(ASLEEP);
        // It may have been killed in its sleep.
        if servers[server].lock().unwrap().child.id() == id {
            let _ = Command::new("kill").args(["-CONT", &id.to_string()]).stderr(Stdio::null()).status();
        }
    })
}
