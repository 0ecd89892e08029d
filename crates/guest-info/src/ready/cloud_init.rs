//! cloud-init: whether it is there, and looks where this cloud's metadata is.
//!
//! The cloud's metadata service speaks Amazon's protocol, so a list of datasources has to have Ec2 in it. An Amazon Linux asks for
//! Amazon's machine besides, unless told otherwise.

use super::{Finding, Parts, Point};
use crate::source::{Trouble, printable};
use crate::tree::{Evidence, Text, Tree};

const PROGRAM: [&str; 5] = [
    "/usr/bin/cloud-init",
    "/usr/local/bin/cloud-init",
    "/usr/lib/python3/dist-packages/cloudinit",
    "/usr/lib/systemd/system/cloud-init.service",
    "/etc/cloud/cloud.cfg",
];

const MEND_LIST: &str = "add Ec2 to datasource_list in /etc/cloud/cloud.cfg.d";

pub(super) fn check(parts: &Parts<'_>, tree: &Tree<'_>) -> Result<Finding, Trouble> {
    let Some(program) = tree.any(&PROGRAM)? else {
        return Ok(Finding::warn(
            Point::CloudInit,
            "cloud-init is not installed: keys, names and networks of the cloud will not arrive",
            None,
            "install cloud-init",
        ));
    };
    if let Some(switch) = tree.any(&["/etc/cloud/cloud-init.disabled"])? {
        return Ok(Finding::warn(
            Point::CloudInit,
            "cloud-init is switched off",
            [switch],
            "remove /etc/cloud/cloud-init.disabled",
        ));
    }
    let identify = tree.texts(&["/etc/cloud/ds-identify.cfg"])?;
    let locks = |line: &str| {
        let value =
            line.split_once(':').filter(|(key, _)| key.trim() == "datasource").map(|(_, value)| value.trim());
        value.is_some_and(|value| !value.is_empty() && value != "Ec2")
            || line.replace(' ', "") == "policy:disabled"
    };
    if let Some(line) = identify.iter().find_map(|text| text.find(locks)) {
        let found = "cloud-init looks at another cloud's metadata only";
        return Ok(Finding::warn(Point::CloudInit, found, [line], "remove /etc/cloud/ds-identify.cfg"));
    }
    let mut settings = tree.texts(&["/etc/cloud/cloud.cfg"])?;
    settings.extend(tree.parts(&["/etc/cloud/cloud.cfg.d"], ".cfg")?);
    // Later files win.
    let Some((list, line)) = settings.iter().rev().find_map(sources) else {
        return Ok(Finding::pass(
            Point::CloudInit,
            "cloud-init is installed, with every datasource",
            [program],
        ));
    };
    if !list.iter().any(|name| name == "Ec2") {
        let found = format!("cloud-init looks for {} only", printable(&list.join(", ")));
        return Ok(Finding::warn(Point::CloudInit, found, [line], MEND_LIST));
    }
    let strict = |line: &str| line.replace(' ', "") == "strict_id:true";
    let lenient = |line: &str| line.replace(' ', "") == "strict_id:false";
    let set = settings.iter().find_map(|text| text.find(strict));
    let is_lenient = settings.iter().any(|text| text.find(lenient).is_some());
    let is_amazon = parts.system.is_some_and(|system| system.id.as_deref() == Some("amzn"));
    if set.is_some() || (is_amazon && !is_lenient) {
        let found = "cloud-init takes metadata from Amazon's machines only";
        let mend = "set datasource: { Ec2: { strict_id: false } } in /etc/cloud/cloud.cfg.d";
        return Ok(Finding::warn(Point::CloudInit, found, Some(line).into_iter().chain(set), mend));
    }
    Ok(Finding::pass(Point::CloudInit, "cloud-init is installed, and looks for Ec2", [line]))
}

/// The datasources that a file allows, on one line or on one each.
fn sources(text: &Text) -> Option<(Vec<String>, Evidence)> {
    let mut lines = text.settings();
    let (number, line, rest) = lines
        .by_ref()
        .find_map(|(number, line)| Some((number, line, line.strip_prefix("datasource_list:")?)))?;
    let mut list = rest.trim().trim_start_matches('[').to_owned();
    if !rest.contains(']') {
        for (_, line) in lines {
            match line.strip_prefix('-') {
                Some(name) => list.extend([",", name]),
                None if rest.contains('[') => list.extend([" ", line]),
                None => break,
            }
            if line.contains(']') {
                break;
            }
        }
    }
    let inside = list.split(']').next().unwrap_or_default();
    let names = inside.split([',', ' ']).map(|name| printable(name.trim_matches(['"', '\'', ' '])));
    Some((names.filter(|name| !name.is_empty()).collect(), text.at(number, line)))
}
