//! The files of an installed system: the root file system, and `/boot` where that is one of its own.

use schemars::JsonSchema;
use serde::Serialize;

use crate::ext4::Ext4;
use crate::limits::{MAX_FILE, MAX_SETTING, MAX_SETTINGS};
use crate::source::{Trouble, printable};

/// A line of a file that a finding rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Evidence {
    /// Number of the partition that holds the file.
    pub partition: u32,
    /// Path of the file in the running system.
    pub file: String,
    /// Which line; none where the file itself is what was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The line, without what could steer a terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// A file system with the number of its partition.
pub(crate) struct Mounted<'v> {
    pub(crate) partition: u32,
    pub(crate) files: Ext4<'v>,
}

/// An installed system.
pub(crate) struct Tree<'v> {
    pub(crate) root: Mounted<'v>,
    /// What is mounted at `/boot`.
    pub(crate) boot: Option<Mounted<'v>>,
}

/// A text file.
pub(crate) struct Text {
    partition: u32,
    path: String,
    content: String,
}

impl Text {
    /// Its lines without space around them, with their numbers.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.content.lines()).map(|(number, line)| (number, line.trim()))
    }

    /// The lines that say something: not empty, and no comment.
    pub(crate) fn settings(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines().filter(|(_, line)| !line.is_empty() && !line.starts_with(['#', ';']))
    }

    /// The first line that is the right one.
    pub(crate) fn find(&self, mut is_it: impl FnMut(&str) -> bool) -> Option<Evidence> {
        self.settings().find(|(_, line)| is_it(line)).map(|(number, line)| self.at(number, line))
    }

    pub(crate) fn at(&self, number: usize, line: &str) -> Evidence {
        Evidence {
            partition: self.partition,
            file: self.path.clone(),
            line: Some(number),
            text: Some(printable(line)),
        }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

impl<'v> Tree<'v> {
    /// The file systems in which a path may lie, with the path there.
    fn places<'a>(&'a self, path: &'a str) -> impl Iterator<Item = (&'a Mounted<'v>, &'a str)> {
        let boot = self.boot.as_ref().zip(path.strip_prefix("/boot").filter(|rest| rest.starts_with('/')));
        // Where nothing is mounted in a test of a part of the system, what lies beneath counts.
        boot.into_iter().chain(std::iter::once((&self.root, path)))
    }

    fn first<T>(
        &self,
        path: &str,
        look: impl Fn(&Ext4<'v>, &str) -> Result<Option<T>, Trouble>,
    ) -> Result<Option<(u32, T)>, Trouble> {
        for (mounted, path) in self.places(path) {
            if let Some(found) = look(&mounted.files, path)? {
                return Ok(Some((mounted.partition, found)));
            }
        }
        Ok(None)
    }

    /// A text file; `None` if there is none.
    pub(crate) fn text(&self, path: &str) -> Result<Option<Text>, Trouble> {
        self.text_to(path, MAX_FILE)
    }

    fn text_to(&self, path: &str, max: u64) -> Result<Option<Text>, Trouble> {
        let found = self.first(path, |files, path| files.file(path, max))?;
        Ok(found.map(|(partition, bytes)| Text {
            partition,
            path: printable(path),
            content: String::from_utf8_lossy(&bytes).into_owned(),
        }))
    }

    /// The text files of several paths, as far as there are such.
    pub(crate) fn texts(&self, paths: &[&str]) -> Result<Vec<Text>, Trouble> {
        paths.iter().filter_map(|path| self.text(path).transpose()).collect()
    }

    /// The files in folders whose names end so: settings in parts, each folder by name.
    pub(crate) fn parts(&self, folders: &[&str], ends: &str) -> Result<Vec<Text>, Trouble> {
        let mut found = Vec::new();
        for folder in folders {
            let names = self.names(folder)?;
            for name in names.iter().filter(|name| name.ends_with(ends)).take(MAX_SETTINGS) {
                found.extend(self.text_to(&format!("{folder}/{name}"), MAX_SETTING)?);
            }
        }
        Ok(found)
    }

    /// The names in a folder.
    pub(crate) fn names(&self, path: &str) -> Result<Vec<String>, Trouble> {
        let look = |files: &Ext4<'v>, path: &str| {
            let names = files.names(path)?;
            Ok((!names.is_empty()).then_some(names))
        };
        // The folder itself is where the other file system is mounted.
        let found = match (path, &self.boot) {
            ("/boot", Some(boot)) => return boot.files.names("/"),
            _ => self.first(path, look)?,
        };
        Ok(found.map(|(_, names)| names).unwrap_or_default())
    }

    /// The first of several paths at which there is anything.
    pub(crate) fn any(&self, paths: &[&str]) -> Result<Option<Evidence>, Trouble> {
        for path in paths {
            let found = self.first(path, |files, path| Ok(files.exists(path)?.then_some(())))?;
            if let Some((partition, ())) = found {
                // A part of it may be a name that the disk has.
                let file = printable(path);
                return Ok(Some(Evidence { partition, file, line: None, text: None }));
            }
        }
        Ok(None)
    }

    /// The first bytes of a file.
    pub(crate) fn head(&self, path: &str, len: u64) -> Result<Option<Vec<u8>>, Trouble> {
        Ok(self.first(path, |files, path| files.head(path, len))?.map(|(_, bytes)| bytes))
    }

    /// The partitions of which a journal holds what the file system does not.
    pub(crate) fn unclean(&self) -> Vec<u32> {
        let mounted = std::iter::once(&self.root).chain(&self.boot);
        mounted.filter(|mounted| !mounted.files.is_clean()).map(|mounted| mounted.partition).collect()
    }
}
