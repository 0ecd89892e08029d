//! URLs of resources: below the address by which the caller found us, so that they can be followed.

use sha2::{Digest as _, Sha256};
use url::Url;

/// Makes URLs.
pub(super) struct Links {
    base: Option<Url>,
}

impl Links {
    /// Below scheme and address.
    pub(super) fn new(base: &str) -> Self {
        Self { base: Url::parse(base).ok() }
    }

    pub(super) fn image(&self, project: &str, name: &str) -> String {
        self.of(&["projects", project, "global", "images", name])
    }

    pub(super) fn images(&self, project: &str) -> String {
        self.of(&["projects", project, "global", "images"])
    }

    pub(super) fn operation(&self, project: &str, name: &str) -> String {
        self.of(&["projects", project, "global", "operations", name])
    }

    /// The URL of a path that was kept without the address.
    pub(super) fn path(&self, path: &str) -> String {
        self.of(&path.split('/').collect::<Vec<_>>())
    }

    fn of(&self, segments: &[&str]) -> String {
        // A caller whose own idea of our address is none gets the path.
        let Some(mut url) = self.base.clone() else { return segments.join("/") };
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["compute", "v1"]).extend(segments);
        }
        url.into()
    }
}

/// The number of what has this id: the first 63 bits of its SHA-256, as numbers of Google's fit what has a sign too.
pub(super) fn number_of(id: &str) -> u64 {
    let digest: [u8; 32] = Sha256::digest(id).into();
    let first = digest.first_chunk().copied().unwrap_or_default();
    (u64::from_be_bytes(first) >> 1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let links = Links::new("http://localhost:8080");
        let image = "http://localhost:8080/compute/v1/projects/p/global/images/web";
        assert_eq!(links.image("p", "web"), image);
        assert_eq!(links.path("projects/p/global/images/web"), image);
        assert_eq!(
            links.image("a/b c", "web"),
            "http://localhost:8080/compute/v1/projects/a%2Fb%20c/global/images/web"
        );
        assert_eq!(Links::new("http://").operation("p", "o"), "projects/p/global/operations/o");
    }

    /// What was given out once is given out for ever.
    #[test]
    fn numbers_are_stable() {
        // As Python's hashlib has it.
        assert_eq!(number_of("fd8"), 7_624_372_333_384_661_938);
        assert!(i64::try_from(number_of("fd8pa7rvsjehl5h1r41h")).is_ok());
    }
}
