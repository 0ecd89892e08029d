//! What an Image is made of, as the catalog keeps it: a URL, or the kind and the id of something that is here already.

use std::fmt;

use image_ingest::SourceUri;

/// What an Image is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin<'a> {
    /// A disk image behind a URL; a secret.
    Uri(&'a SourceUri),
    /// An object of the server's own store, `BUCKET/KEY`.
    Object(&'a str),
    /// Another Image.
    Image(&'a str),
    /// A snapshot of the operator's.
    Snapshot(&'a str),
    /// A disk of the operator's.
    Disk(&'a str),
}

impl<'a> Origin<'a> {
    /// Reads what the catalog keeps. No URL that was ever let in begins like the others.
    pub(crate) fn of(kept: &'a SourceUri) -> Self {
        match kept.expose().split_once(':') {
            Some(("object", object)) => Self::Object(object),
            Some(("image", id)) => Self::Image(id),
            Some(("snapshot", id)) => Self::Snapshot(id),
            Some(("disk", id)) => Self::Disk(id),
            _ => Self::Uri(kept),
        }
    }

    /// What the catalog keeps.
    pub(crate) fn keep(self) -> SourceUri {
        match self {
            Self::Uri(uri) => uri.clone(),
            other => SourceUri::trusted(other.to_string()),
        }
    }
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(uri) => uri.fmt(f),
            Self::Object(object) => write!(f, "object:{object}"),
            Self::Image(id) => write!(f, "image:{id}"),
            Self::Snapshot(id) => write!(f, "snapshot:{id}"),
            Self::Disk(id) => write!(f, "disk:{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back() {
        let url = SourceUri::trusted("https://s.example/b/k?sig=secret".to_owned());
        let others =
            [Origin::Image("fd8"), Origin::Snapshot("a:b"), Origin::Disk(""), Origin::Object("b/k?x:y")];
        for origin in others.into_iter().chain([Origin::Uri(&url)]) {
            assert_eq!(Origin::of(&origin.keep()), origin);
        }
        assert_eq!(Origin::Image("fd8").keep().expose(), "image:fd8");
        assert_eq!(Origin::Uri(&url).to_string(), "https://s.example/b/k");
    }
}
