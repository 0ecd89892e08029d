//! DHCP: whoever configures the network has to ask for an address, on whatever card there is.

use super::{Finding, Parts, Point};
use crate::source::Trouble;
use crate::tree::{Text, Tree};

const MEND: &str = "have the first network card configured by DHCP, whatever its name and address";

/// What a system keeps its settings in, and how a line there reads.
struct Way {
    name: &'static str,
    folders: &'static [&'static str],
    files: &'static [&'static str],
    ends: &'static str,
    dhcp: fn(&str) -> bool,
    fixed: fn(&str) -> bool,
}

const WAYS: [Way; 5] = [
    Way {
        name: "netplan",
        folders: &["/etc/netplan"],
        files: &[],
        ends: ".yaml",
        dhcp: |line| is(line, "dhcp4:", &["true", "yes", "on"]),
        fixed: |line| line.starts_with("addresses:") || line.starts_with("macaddress:"),
    },
    Way {
        name: "ifupdown",
        folders: &["/etc/network/interfaces.d"],
        files: &["/etc/network/interfaces"],
        ends: "",
        dhcp: |line| line.starts_with("iface ") && line.contains(" inet dhcp"),
        fixed: |line| line.starts_with("iface ") && line.contains(" inet static"),
    },
    Way {
        name: "systemd-networkd",
        folders: &["/etc/systemd/network", "/usr/local/lib/systemd/network"],
        files: &[],
        ends: ".network",
        dhcp: |line| is(line, "DHCP=", &["yes", "true", "ipv4"]),
        fixed: |line| line.starts_with("Address=") || line.starts_with("MACAddress="),
    },
    Way {
        name: "NetworkManager",
        folders: &["/etc/NetworkManager/system-connections"],
        files: &[],
        ends: ".nmconnection",
        dhcp: |line| line == "method=auto",
        fixed: |line| line == "method=manual" || line.starts_with("mac-address="),
    },
    Way {
        name: "ifcfg",
        folders: &["/etc/sysconfig/network-scripts", "/etc/sysconfig/network"],
        files: &[],
        ends: "",
        dhcp: |line| is(line, "BOOTPROTO=", &["dhcp", "\"dhcp\"", "'dhcp'"]),
        fixed: |line| line.starts_with("IPADDR") || line.starts_with("HWADDR="),
    },
];

fn is(line: &str, key: &str, values: &[&str]) -> bool {
    line.strip_prefix(key).is_some_and(|value| values.contains(&value.trim()))
}

pub(super) fn check(_: &Parts<'_>, tree: &Tree<'_>) -> Result<Finding, Trouble> {
    let mut fixed = None;
    for way in &WAYS {
        let mut texts = tree.texts(way.files)?;
        texts.extend(tree.parts(way.folders, way.ends)?);
        // The loopback has an address of its own everywhere.
        texts.retain(|text| !text.path().ends_with("ifcfg-lo"));
        let find = |is_it: fn(&str) -> bool| texts.iter().find_map(|text: &Text| text.find(is_it));
        let address = find(way.fixed);
        if let (Some(line), None) = (find(way.dhcp), &address) {
            return Ok(Finding::pass(Point::Dhcp, format!("{} asks for an address", way.name), [line]));
        }
        fixed = fixed.or(address.map(|line| (way.name, line)));
    }
    if let Some((name, line)) = fixed {
        let found = format!("{name} gives a card an address, or knows it by one");
        return Ok(Finding::warn(Point::Dhcp, found, [line], MEND));
    }
    let mut cloud = tree.texts(&["/etc/cloud/cloud.cfg"])?;
    cloud.extend(tree.parts(&["/etc/cloud/cloud.cfg.d"], ".cfg")?);
    let off = |line: &str| line.contains("config:") && line.contains("disabled");
    let is_off = cloud.iter().find_map(|text| text.find(off));
    if is_off.is_none()
        && let Some(program) = tree.any(&["/usr/bin/cloud-init", "/etc/cloud/cloud.cfg"])?
    {
        return Ok(Finding::pass(
            Point::Dhcp,
            "cloud-init configures the network, by DHCP unless told otherwise",
            [program],
        ));
    }
    if let Some(program) = tree.any(&["/usr/sbin/NetworkManager"])? {
        let found = "NetworkManager asks for an address where nothing is configured";
        return Ok(Finding::pass(Point::Dhcp, found, [program]));
    }
    let found = "nothing was found that configures the network";
    Ok(match is_off {
        Some(line) => Finding::warn(Point::Dhcp, found, [line], MEND),
        None => Finding { mend: Some(MEND), ..Finding::unknown(Point::Dhcp, found) },
    })
}
