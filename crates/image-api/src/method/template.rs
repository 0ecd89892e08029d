//! Path templates: `/compute/v1/images/{image_id}:verb`.
//!
//! A field takes a whole segment, or all of it before the verb. Where a template has no verb, a segment with a colon does
//! not fit: identifiers have none, and a verb that nobody serves must not be taken for one.

/// A path template.
#[derive(Debug)]
pub(crate) struct Template {
    segments: Vec<Segment>,
}

#[derive(Debug)]
enum Segment {
    Literal(String),
    Field {
        name: String,
        /// With its colon, or empty.
        verb: String,
    },
}

impl Template {
    pub(crate) fn read(text: &str) -> Self {
        let segment = |text: &str| match text.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            Some((name, verb)) => Segment::Field { name: name.to_owned(), verb: verb.to_owned() },
            None => Segment::Literal(text.to_owned()),
        };
        Self { segments: text.trim_start_matches('/').split('/').map(segment).collect() }
    }

    /// What the fields stand for in a path, undecoded; `None` where the path is another one.
    pub(crate) fn captures<'t, 'p>(&'t self, path: &'p str) -> Option<Vec<(&'t str, &'p str)>> {
        let mut captures = Vec::new();
        let mut parts = path.strip_prefix('/')?.split('/');
        for segment in &self.segments {
            let part = parts.next()?;
            match segment {
                Segment::Literal(text) if text == part => {}
                Segment::Literal(_) => return None,
                Segment::Field { name, verb } => {
                    let value = part.strip_suffix(verb.as_str())?;
                    if value.is_empty() || value.contains(':') {
                        return None;
                    }
                    captures.push((name.as_str(), value));
                }
            }
        }
        parts.next().is_none().then_some(captures)
    }

    /// The path in which each field is replaced.
    pub(crate) fn fill(&self, mut value: impl FnMut(&str) -> String) -> String {
        let mut path = String::new();
        for segment in &self.segments {
            path.push('/');
            match segment {
                Segment::Literal(text) => path.push_str(text),
                Segment::Field { name, verb } => {
                    path.push_str(&value(name));
                    path.push_str(verb);
                }
            }
        }
        path
    }

    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Field { name, .. } => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }
}
