//! A PostgreSQL of its own for the tests of one process: Debian's package `postgresql`, in a temporary folder, reached by a socket
//! in it, run by an unprivileged user where the tests are root.
//!
//! Where it is not installed, the tests that need it say so and pass; with CI set they fail.

// Each test binary uses a part of it; clippy takes only `#[test]` functions for tests.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    os::unix::{
        fs::{MetadataExt as _, chown},
        process::CommandExt as _,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// The server; stopped when dropped.
pub struct Postgres {
    bin: PathBuf,
    /// Whom it runs as, where that is not whom the tests run as.
    user: Option<(u32, u32)>,
    server: Mutex<Option<Child>>,
    databases: AtomicUsize,
    dir: tempfile::TempDir,
}

impl Postgres {
    /// The one that the tests of this process share while any of them needs it.
    pub fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = shared.upgrade() {
            return Some(running);
        }
        let started = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&started);
        Some(started)
    }

    /// Starts one.
    pub fn start() -> Option<Self> {
        let Some(bin) = find_bin() else {
            assert!(std::env::var_os("CI").is_none(), "PostgreSQL is needed (Debian: postgresql)");
            eprintln!("SKIPPED: PostgreSQL is not installed (Debian: postgresql)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let user = (std::fs::metadata("/proc/self").unwrap().uid() == 0).then(unprivileged);
        if let Some((uid, gid)) = user {
            chown(dir.path(), Some(uid), Some(gid)).unwrap();
        }
        let postgres = Self { bin, user, server: Mutex::default(), databases: AtomicUsize::new(0), dir };
        let mut initdb = postgres.command("initdb");
        initdb.args(["-U", "postgres", "-A", "trust", "--locale=C", "-E", "UTF8", "--no-sync", "-D"]);
        let made = initdb.arg(postgres.data()).stdout(Stdio::null()).status().unwrap();
        assert!(made.success(), "{initdb:?}");
        postgres.run();
        Some(postgres)
    }

    /// Starts the server on what it left.
    pub fn run(&self) {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(self.dir.path());
        // No disk is waited for: the machine does not lose power during a test.
        for setting in ["listen_addresses=", "fsync=off", "max_connections=100", "log_min_messages=fatal"] {
            command.args(["-c", setting]);
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        for _ in 0..600 {
            let mut ready = self.command("pg_isready");
            let ready = ready.arg("-q").arg("-h").arg(self.dir.path()).status().unwrap();
            if ready.success() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("PostgreSQL does not start");
    }

    /// Stops it as a crash would: every connection ends at once, nothing is written any more.
    pub fn stop_immediately(&self) {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut server) = server {
            let _ = Command::new("kill").args(["-QUIT", &server.id().to_string()]).status();
            let _ = server.wait();
        }
    }

    /// A new, empty database; its URL.
    pub fn database(&self) -> String {
        let name = format!("catalog_{}", self.databases.fetch_add(1, Ordering::SeqCst));
        let mut create = self.command("createdb");
        let created = create.args(["-U", "postgres", "-h"]).arg(self.dir.path()).arg(&name).status().unwrap();
        assert!(created.success(), "{create:?}");
        format!("postgres://postgres@localhost/{name}?host={}", self.dir.path().display())
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop_immediately();
    }
}

/// Where the programs are: on the path, or where Debian has them, one folder for each version.
fn find_bin() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|found| found.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).collect())
        .unwrap_or_default();
    versions.sort();
    let programs = ["initdb", "postgres", "pg_isready", "createdb"];
    let whole = |dir: &PathBuf| programs.iter().all(|name| dir.join(name).is_file());
    std::env::split_paths(&path).chain(versions.into_iter().rev()).find(whole)
}

/// Somebody whom PostgreSQL accepts to be run by.
fn unprivileged() -> (u32, u32) {
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2).map(|id| id.parse().ok());
        Some((ids.next()??, ids.next()??))
    };
    find("postgres").or_else(|| find("nobody")).expect("a user `postgres` or `nobody`")
}
