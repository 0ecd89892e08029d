//! What is inside of a disk, as `info` shows it and `create` speaks of it. Advice, all of it: it refuses nothing unless --strict says
//! so, and where it cannot be had the command goes on.

use disk_convert::Disk;
use guest_info::{
    Family, FileSystem, Finding, Guest, InspectError, Kind, LogicalVolume, Partition, TableKind, Verdict,
    inspect_disk,
};

use crate::args::CreateArgs;
use crate::args::values::Size;
use crate::context::Context;
use crate::error::Error;

/// Looks into a disk. `None`, and a warning, where that cannot be done.
pub(crate) async fn look(context: &Context, disk: &Disk) -> Result<Option<Guest>, Error> {
    let why = match inspect_disk(disk, &context.options(), &context.cancel).await {
        Ok(guest) => return Ok(Some(guest)),
        Err(_) if context.cancel.is_cancelled() => return Err(Error::Interrupted),
        Err(InspectError::Convert(error)) => error.to_string(),
        Err(InspectError::Read { source }) => source.to_string(),
    };
    context.warn(&format!("`{}`: what is inside is not known: {why}", disk.source().name()));
    Ok(None)
}

/// For people: names and values.
pub(crate) fn fields(guest: &Guest) -> Vec<(&'static str, String)> {
    let mut fields = vec![("partitions", table(guest))];
    for partition in &guest.partitions {
        fields.push(("partition", partition_line(partition)));
        fields.extend(partition.volumes.iter().map(|volume| ("  volume", volume_line(volume))));
    }
    fields.push(("boot", boot(guest)));
    fields.extend(guest.system.as_ref().map(|system| {
        let name = system.name.as_deref().or(system.id.as_deref()).unwrap_or(family(system.family));
        let architecture = system.architecture.map(|name| format!(", {name}")).unwrap_or_default();
        ("system", format!("{name}{architecture}, in {}", place(system.partition)))
    }));
    for finding in judged(guest) {
        fields.push(("ready", line(finding)));
        fields.extend(finding.mend.map(|mend| ("  mend", mend.to_owned())));
    }
    let suggested = suggestions(guest, None);
    if !suggested.is_empty() {
        fields.push(("suggested", suggested));
    }
    fields.extend(guest.notes.iter().map(|note| ("note", note.clone())));
    fields
}

/// What `create` says before it sends anything: a warning for each point that is not as the cloud wants it.
pub(crate) fn advise(
    context: &Context,
    name: &str,
    guest: &Guest,
    args: &CreateArgs,
    is_google: bool,
) -> Result<(), Error> {
    let warned: Vec<&Finding> =
        judged(guest).iter().filter(|finding| finding.verdict == Verdict::Warn).collect();
    if args.strict && !warned.is_empty() {
        let points: Vec<String> = warned.iter().map(|finding| line(finding)).collect();
        return Err(Error::NotReady { name: name.into(), points: points.join("; ") });
    }
    for finding in &warned {
        context.warn(&format!("`{name}`: {}", line(finding)));
    }
    if !warned.is_empty() {
        context.note("`image-prep info` says what would help; the Image is made all the same");
    }
    // To Compute Engine what is known of the disk is told anyway.
    let suggested = if is_google { String::new() } else { suggestions(guest, Some(args)) };
    if !suggested.is_empty() {
        context.note(&format!("by what is in the disk, {suggested} would fit"));
    }
    Ok(())
}

/// What the system in a disk can do, in the words of Compute Engine: `guestOsFeatures`.
///
/// UEFI_COMPATIBLE where a loader for UEFI lies where firmware looks; WINDOWS; VIRTIO_SCSI_MULTIQUEUE for Linux from 3.17 on, as Google
/// asks for. Others depend on drivers that are not looked for.
pub(crate) fn features(guest: &Guest) -> Vec<&'static str> {
    let system = guest.system.as_ref();
    let is_windows = system.is_some_and(|system| system.family == Family::Windows);
    [
        (guest.boot.uefi, "UEFI_COMPATIBLE"),
        (is_windows, "WINDOWS"),
        (system.is_some_and(|system| system.is_linux_from(3, 17)), "VIRTIO_SCSI_MULTIQUEUE"),
    ]
    .into_iter()
    .filter_map(|(is_known, word)| is_known.then_some(word))
    .collect()
}

/// The processor in the words of Compute Engine, if it has such machines.
pub(crate) fn architecture(guest: &Guest) -> Option<&'static str> {
    match guest.system.as_ref()?.architecture? {
        "x86_64" => Some("X86_64"),
        "aarch64" => Some("ARM64"),
        _ => None,
    }
}

/// What is said of a disk's readiness. What holds nothing that is known here is a disk for data, or one that only its owner understands.
fn judged(guest: &Guest) -> &[Finding] {
    if guest.partitions.is_empty() { &[] } else { &guest.readiness }
}

fn table(guest: &Guest) -> String {
    let table = &guest.partition_table;
    match (table.kind, table.backup) {
        (TableKind::None, _) => "none".to_owned(),
        (TableKind::Mbr, _) => "MBR".to_owned(),
        (TableKind::Gpt, Some(false)) => "GPT, without a sound backup".to_owned(),
        (TableKind::Gpt, _) if table.hybrid => "GPT, hybrid".to_owned(),
        (TableKind::Gpt, _) => "GPT".to_owned(),
    }
}

fn place(partition: u32) -> String {
    match partition {
        0 => "the whole disk".to_owned(),
        number => format!("partition {number}"),
    }
}

pub(crate) fn partition_line(partition: &Partition) -> String {
    let mut line = match partition.number {
        0 => "none".to_owned(),
        number => format!("{number}: {} at {}", Size(partition.size), Size(partition.start)),
    };
    let kind = partition.type_name.unwrap_or(&partition.type_id);
    if !kind.is_empty() {
        line = format!("{line}, {kind}");
    }
    if let Some(found) = &partition.file_system {
        line = format!("{line}, {}", holds(found));
    }
    if partition.active { format!("{line}, active") } else { line }
}

fn volume_line(volume: &LogicalVolume) -> String {
    let line = format!("{}: {}", volume.name, Size(volume.size));
    match (&volume.file_system, volume.start) {
        (Some(found), _) => format!("{line}, {}", holds(found)),
        (None, None) => format!("{line}, in several pieces or elsewhere, not read"),
        (None, Some(_)) => line,
    }
}

fn holds(found: &FileSystem) -> String {
    let label = found.label.as_ref().map(|label| format!(" `{label}`")).unwrap_or_default();
    format!("{}{label}", kind_name(found.kind))
}

fn kind_name(kind: Kind) -> String {
    match kind {
        Kind::LvmPv => "LVM".to_owned(),
        kind if kind.is_encrypted() => format!("{kind}, encrypted"),
        kind => kind.to_string(),
    }
}

fn boot(guest: &Guest) -> String {
    let boot = &guest.boot;
    let loader = guest.partition_table.boot_loader.map(|name| format!(" ({name})")).unwrap_or_default();
    let bios = boot.bios.then(|| format!("BIOS{loader}"));
    let uefi = boot.loaders.first().map(|loader| format!("UEFI ({})", loader.path));
    let ways: Vec<String> = bios.into_iter().chain(uefi).collect();
    if ways.is_empty() { "nothing to start was found".to_owned() } else { ways.join(", ") }
}

fn family(family: Family) -> &'static str {
    match family {
        Family::Linux => "Linux",
        Family::Windows => "Windows",
    }
}

/// A point on one line, with the place that it rests on.
fn line(finding: &Finding) -> String {
    let verdict = match finding.verdict {
        Verdict::Pass => "",
        Verdict::Warn => "NO: ",
        Verdict::Unknown => "unknown: ",
    };
    let place = finding.evidence.last().map(|evidence| match evidence.line {
        Some(line) => format!(" ({}:{line})", evidence.file),
        None => format!(" ({})", evidence.file),
    });
    format!("{}: {verdict}{}{}", finding.point, finding.found, place.unwrap_or_default())
}

/// Options of `create` that fit the disk, but for those that were typed.
fn suggestions(guest: &Guest, typed: Option<&CreateArgs>) -> String {
    let suggested = &guest.suggestions;
    let fields = typed.map(|args| &args.fields);
    let mut words = Vec::new();
    // Linux is what the service takes an Image for where nothing is said.
    if suggested.os == Some(Family::Windows) && fields.is_none_or(|fields| fields.os.is_none()) {
        words.push("--os windows".to_owned());
    }
    if let Some(generation) = suggested.hardware_generation
        && fields.is_none_or(|fields| fields.hardware_generation.is_none())
    {
        words.push(format!("--hardware-generation {}", generation.name()));
    }
    if let Some(family) = &suggested.family
        && fields.is_none_or(|fields| fields.family.is_empty())
    {
        words.push(format!("--family {family}"));
    }
    if let Some(name) = suggested.name.as_ref().filter(|_| fields.is_none()) {
        words.push(format!("--name {name}"));
    }
    words.join(" ")
}
