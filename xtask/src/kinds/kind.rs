//! A kind of image: how it is made, how it is read, and what must come of it.

use std::path::Path;

/// The image's file name in the folder of its kind.
pub(crate) const IMAGE: &str = "image";

/// A kind of image.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    /// What it belongs to, in the table.
    pub(crate) family: &'static str,
    /// What sets it apart.
    pub(crate) name: String,
    /// qemu-img's name of the format.
    pub(crate) format: &'static str,
    /// Commands that make it, run in a folder of its own. `DISK` is the raw disk.
    pub(crate) steps: Vec<Vec<String>>,
    /// Further arguments of `image-prep convert`.
    pub(crate) ours: Vec<String>,
    /// Further arguments of `qemu-img convert`.
    pub(crate) theirs: Vec<String>,
    /// If refusing it is the policy: what the refusal says.
    pub(crate) refusal: Option<&'static str>,
}

impl Kind {
    /// A kind that is read and made by no step yet.
    pub(crate) fn new(family: &'static str, name: impl Into<String>, format: &'static str) -> Self {
        Self {
            family,
            name: name.into(),
            format,
            steps: Vec::new(),
            ours: Vec::new(),
            theirs: Vec::new(),
            refusal: None,
        }
    }

    /// One more command, its words separated by blanks.
    pub(crate) fn step(mut self, command: &str) -> Self {
        self.steps.push(command.split_whitespace().map(str::to_owned).collect());
        self
    }

    /// Writes as a guest and its tools do, each a command of qemu-io.
    pub(crate) fn edit(self, edits: &[&str]) -> Self {
        let format = self.format;
        self.edit_file(format, IMAGE, edits)
    }

    /// The same, of another file than the image.
    pub(crate) fn edit_file(mut self, format: &str, file: &str, edits: &[&str]) -> Self {
        let mut words: Vec<String> = ["qemu-io", "-f", format, "-d", "unmap"].map(str::to_owned).to_vec();
        for edit in edits {
            words.extend(["-c".to_owned(), (*edit).to_owned()]);
        }
        words.push(file.to_owned());
        self.steps.push(words);
        self
    }

    /// It names other files, in its own folder.
    pub(crate) fn with_references(mut self) -> Self {
        self.ours.push("--allow-references".to_owned());
        self
    }

    /// One more argument for `image-prep convert`.
    pub(crate) fn ours(mut self, words: &[&str]) -> Self {
        self.ours.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// Refusing it is the policy.
    pub(crate) fn refused(mut self, refusal: &'static str) -> Self {
        self.refusal = Some(refusal);
        self
    }

    /// The words of a step, with the raw disk in its place.
    pub(crate) fn words(step: &[String], disk: &Path) -> Vec<String> {
        step.iter()
            .map(|word| if word == "DISK" { disk.display().to_string() } else { word.clone() })
            .collect()
    }
}
