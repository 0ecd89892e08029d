//! SSH: installed, and started with the system.

use super::{Finding, Parts, Point};
use crate::source::Trouble;
use crate::tree::Tree;

const SERVERS: [&str; 4] = ["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/sbin/dropbear", "/sbin/sshd"];

/// Links that an init follows: systemd's, as made by the administrator or by the distribution, and OpenRC's.
const STARTED: [&str; 11] = [
    "/etc/systemd/system/multi-user.target.wants/ssh.service",
    "/etc/systemd/system/multi-user.target.wants/sshd.service",
    "/etc/systemd/system/multi-user.target.wants/dropbear.service",
    "/etc/systemd/system/sockets.target.wants/ssh.socket",
    "/etc/systemd/system/sockets.target.wants/sshd.socket",
    "/usr/lib/systemd/system/multi-user.target.wants/ssh.service",
    "/usr/lib/systemd/system/multi-user.target.wants/sshd.service",
    "/usr/lib/systemd/system/sockets.target.wants/ssh.socket",
    "/usr/lib/systemd/system/sockets.target.wants/sshd.socket",
    "/etc/runlevels/default/sshd",
    "/etc/runlevels/default/dropbear",
];

/// Folders of System V's init.
const RUN_LEVELS: [&str; 2] = ["/etc/rc3.d", "/etc/rc2.d"];

const MASKS: [&str; 2] = ["/etc/systemd/system/ssh.service", "/etc/systemd/system/sshd.service"];

pub(super) fn check(_: &Parts<'_>, tree: &Tree<'_>) -> Result<Finding, Trouble> {
    let Some(server) = tree.any(&SERVERS)? else {
        let found = "no SSH server is installed";
        return Ok(Finding::warn(Point::Ssh, found, None, "install openssh-server and enable it"));
    };
    for path in MASKS {
        // A mask is a link to /dev/null, which is no file.
        if let Some(mask) = tree.any(&[path])?
            && tree.head(path, 1)?.is_none()
        {
            return Ok(Finding::warn(
                Point::Ssh,
                "the SSH server is masked",
                [mask],
                "systemctl unmask and enable it",
            ));
        }
    }
    if let Some(link) = tree.any(&STARTED)? {
        return Ok(Finding::pass(Point::Ssh, "the SSH server starts with the system", [server, link]));
    }
    // Where systemd is, it reads these folders for services that it knows by no unit of its own.
    let is_systemd = tree.any(&["/usr/lib/systemd/systemd", "/lib/systemd/systemd"])?.is_some();
    for folder in RUN_LEVELS.iter().filter(|_| !is_systemd) {
        let names = tree.names(folder)?;
        if let Some(name) = names.iter().find(|name| name.starts_with('S') && name.ends_with("ssh")) {
            let link = tree.any(&[&format!("{folder}/{name}")])?;
            return Ok(Finding::pass(Point::Ssh, "the SSH server starts with the system", link));
        }
    }
    let found = "an SSH server is installed, and nothing starts it";
    Ok(Finding::warn(Point::Ssh, found, [server], "systemctl enable ssh (or sshd)"))
}
