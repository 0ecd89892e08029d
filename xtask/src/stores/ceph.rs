//! A Ceph of one node with its S3 gateway, in memory, without systemd and without keys: a monitor, one store daemon, the gateway.
//!
//! Debian 12 has version 16.2, which stands for gateways of some age: checksum headers are ignored there.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::garage::process::Process;
use crate::garage::{free_addresses, random_hex};
use crate::repo::{output, run};

/// It takes 14 s on an idle machine, and minutes on one that builds and writes at the same time.
const STARTS_WITHIN: Duration = Duration::from_secs(300);

/// How long `ceph` waits for a monitor before it is asked again. By itself it waits for five minutes, also where nobody will answer.
const ASKS_FOR: &str = "--connect-timeout=15";
const PAUSE: Duration = Duration::from_millis(200);

/// What has to be there.
const PROGRAMS: [&str; 6] = ["monmaptool", "ceph-mon", "ceph", "ceph-osd", "radosgw-admin", "radosgw"];

/// The first program that is not there.
pub(super) fn missing() -> Option<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &&str| std::env::split_paths(&path).any(|folder| folder.join(program).exists());
    PROGRAMS.into_iter().find(|program| !is_there(program))
}

/// A cluster that is running.
pub(super) struct Ceph {
    /// In the order in which they are to end.
    processes: Vec<Process>,
    pub(super) endpoint: String,
    access_key: String,
    secret_key: String,
}

impl Ceph {
    /// Starts one on free loopback ports, with its files in the scratch folder.
    pub(super) fn start(scratch: &Path) -> Result<Self> {
        let [monitor, s3] = free_addresses()?;
        let monitor = format!("v1:{monitor}");
        let (access_key, secret_key) = (random_hex(10)?, random_hex(20)?);
        let (cluster, store) = (uuid()?, uuid()?);
        let config = scratch.join("ceph.conf");
        let folder = scratch.display();
        for name in ["mon", "osd", "rgw"] {
            fs::create_dir_all(scratch.join(name))?;
        }
        fs::write(
            &config,
            format!(
                "[global]\nfsid = {cluster}\nmonmap = {folder}/monmap\npublic addr = 127.0.0.1\ncluster addr = 127.0.0.1\n\
                 auth cluster required = none\nauth service required = none\nauth client required = none\n\
                 mon allow pool size one = true\nosd pool default size = 1\nosd pool default min size = 1\n\
                 osd pool default pg num = 1\nosd crush chooseleaf type = 0\nosd objectstore = memstore\n\
                 memstore device bytes = 8589934592\nmon data = {folder}/mon\nosd data = {folder}/osd\n\
                 rgw data = {folder}/rgw\nkeyring = {folder}/keyring\nrun dir = {folder}\npid file =\n\
                 log file = {folder}/$name.log\nadmin socket = {folder}/$name.asok\n\
                 rgw frontends = beast endpoint={s3}\n"
            ),
        )?;
        // With only the monitor's address, who is quicker than its first answer names no cluster and is refused.
        let ceph = Tools { config, scratch };
        let map = scratch.join("monmap");
        let mut create = ceph.command("monmaptool");
        create.args(["--create", "--addv", "a", &format!("[{monitor}]"), "--fsid", &cluster]).arg(&map);
        run(create.stdout(Stdio::null()))?;
        run(ceph.command("ceph-mon").args(["--mkfs", "-i", "a", "--monmap"]).arg(&map))?;
        let mut mon = ceph.daemon("ceph-mon", &["-i", "a"])?;
        // Until the monitor has elected itself it refuses, in various words.
        let began = Instant::now();
        while let Err(error) = output(ceph.command("ceph").args([ASKS_FOR, "osd", "new", &store])) {
            let is_there = mon.is_running()? && began.elapsed() < STARTS_WITHIN;
            ensure!(is_there, "the monitor does not answer: {error:#}\n{}", ceph.log("mon.a"));
            std::thread::sleep(PAUSE);
        }
        output(ceph.command("ceph-osd").args(["-i", "0", "--mkfs", "--osd-uuid", &store]))?;
        let osd = ceph.daemon("ceph-osd", &["-i", "0"])?;
        // It waits for a store daemon that does not come for ever.
        let mut user = ceph.command("timeout");
        user.args(["120", "radosgw-admin"]).args(["user", "create", "--uid=suite", "--display-name=suite"]);
        user.args([format!("--access-key={access_key}"), format!("--secret={secret_key}")]);
        output(&mut user)?;
        let gateway = ceph.daemon("radosgw", &["-n", "client.rgw"])?;
        while TcpStream::connect(s3).is_err() {
            ensure!(began.elapsed() < STARTS_WITHIN, "the gateway does not start; see {folder}");
            std::thread::sleep(PAUSE);
        }
        let processes = vec![gateway, osd, mon];
        Ok(Self { processes, endpoint: format!("http://{s3}"), access_key, secret_key })
    }

    /// What a client of it finds in its environment.
    pub(super) fn environment(&self, command: &mut Command) {
        command.env("AWS_ACCESS_KEY_ID", &self.access_key).env("AWS_SECRET_ACCESS_KEY", &self.secret_key);
        command.env("AWS_REGION", "us-east-1").env("AWS_ENDPOINT_URL_S3", &self.endpoint);
    }

    /// Ends it.
    pub(super) fn stop(self) -> Result<()> {
        self.processes.into_iter().try_for_each(Process::stop)
    }
}

struct Tools<'a> {
    config: PathBuf,
    scratch: &'a Path,
}

impl Tools<'_> {
    /// The end of a daemon's log.
    fn log(&self, daemon: &str) -> String {
        let text = fs::read(self.scratch.join(format!("{daemon}.log"))).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("CEPH_CONF", &self.config);
        command
    }

    fn daemon(&self, program: &str, args: &[&str]) -> Result<Process> {
        let log = fs::File::create(self.scratch.join(format!("{program}.out")))?;
        let mut command = self.command(program);
        Process::start(command.args(args).arg("-f").stdout(log.try_clone()?).stderr(log))
    }
}

/// A random UUID.
fn uuid() -> Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}
