//! The rules of the fields, all checked, all violations reported.
//!
//! The rules are a table ([`rules`]), by the names of fields; here they are held against a message, whichever it is, by its
//! descriptor, and in the OpenAPI document they are said. So what is refused and what is said to be refused cannot differ. Lengths
//! are characters, sizes are bytes; patterns cover the whole value. Costs the encoding of the message and its decoding.
//!
//! What no table needs to say: an enum has no numbers but its own.

pub(crate) mod rules;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use prost::Name;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage as _, Value};

use crate::{
    Code,
    descriptors::descriptor,
    operation_state::any_of,
    rpc::{BadRequest, Status, bad_request::FieldViolation},
};
use rules::{Rule, Text};

/// Every field of a request that breaks the contract; never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Violations(Vec<FieldViolation>);

impl Violations {
    /// One violation, for a rule that only a server knows.
    pub fn one(field: &str, description: impl Into<String>) -> Self {
        Self(vec![FieldViolation { field: field.to_owned(), description: description.into() }])
    }

    /// All of them as one; `None` where there are none.
    pub fn all(violations: impl IntoIterator<Item = Self>) -> Option<Self> {
        let fields: Vec<_> = violations.into_iter().flat_map(|violations| violations.0).collect();
        (!fields.is_empty()).then_some(Self(fields))
    }

    /// The violations, in the order of the fields.
    pub fn fields(&self) -> &[FieldViolation] {
        &self.0
    }

    /// INVALID_ARGUMENT with a `BadRequest` among the details.
    pub fn into_status(self) -> Status {
        let mut status = Status::new(Code::InvalidArgument, format!("Request validation error: {self}"));
        status.details.push(any_of(&BadRequest { field_violations: self.0 }));
        status
    }
}

/// `field: description`, separated by semicolons.
impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, FieldViolation { field, description }) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{field}: {description}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}

/// A message whose fields may have rules.
pub trait Validate {
    /// Checks all rules that need nothing but the message. In an Update the values of fields that do not change are checked too:
    /// they are wrong all the same.
    fn validate(&self) -> Result<(), Violations>;
}

impl<M: Name> Validate for M {
    fn validate(&self) -> Result<(), Violations> {
        let mut message = DynamicMessage::new(descriptor::<M>());
        message.transcode_from(self).expect("types and descriptors are made of the same `proto/`");
        let mut check = Check::default();
        check.message("", &message);
        if check.0.is_empty() { Ok(()) } else { Err(Violations(check.0)) }
    }
}

#[derive(Default)]
struct Check(Vec<FieldViolation>);

impl Check {
    fn fail(&mut self, field: &str, description: impl Into<String>) {
        self.0.push(FieldViolation { field: field.to_owned(), description: description.into() });
    }

    /// Every field, in the order of their numbers; `within` begins their paths.
    fn message(&mut self, within: &str, message: &DynamicMessage) {
        for field in message.descriptor().fields() {
            if let Some(choice) = field.containing_oneof() {
                let is_first = choice.fields().next().as_ref() == Some(&field);
                let is_made = choice.fields().any(|field| message.has_field(&field));
                if is_first && !is_made && rules::is_needed(&choice) {
                    let names: Vec<_> = choice.fields().map(|field| field.name().to_owned()).collect();
                    let description = format!("exactly one of {} must be set", names.join(", "));
                    self.fail(&format!("{within}{}", choice.name()), description);
                }
                // What was not chosen has no value that could be wrong.
                if !message.has_field(&field) {
                    continue;
                }
            }
            let path = format!("{within}{}", field.name());
            let rule = rules::of(&field);
            if matches!(rule, Some(Rule::Needed)) && !message.has_field(&field) {
                match choices(&field, true) {
                    Some(expected) => self.fail(&path, format!("found nothing, expected {expected}")),
                    None => self.fail(&path, "required, found nothing"),
                }
                continue;
            }
            self.value(&path, rule, &field, &message.get_field(&field));
        }
    }

    fn value(&mut self, path: &str, rule: Option<&Rule>, field: &FieldDescriptor, value: &Value) {
        match (rule, value) {
            (Some(Rule::Text(text)), Value::String(value)) => self.text(path, *text, value),
            (Some(Rule::Number { or_zero: true, .. }), Value::I64(0)) => {}
            (Some(Rule::Number { min, max, .. }), Value::I64(value)) if !(min..=max).contains(&value) => {
                self.fail(path, format!("found {value}, expected {min} to {max}"));
            }
            (Some(Rule::Mask(fields)), Value::Message(mask)) => self.mask(path, fields, mask),
            (Some(Rule::Map { max, key, value: text }), Value::Map(pairs)) => {
                self.map(path, *max, (*key, *text), pairs);
            }
            (rule, Value::List(items)) => {
                if let Some(Rule::List { min, max, .. }) = rule
                    && !(*min..=*max).contains(&items.len())
                {
                    self.fail(path, format!("found {}, expected {min} to {max}", items.len()));
                }
                let rule = match rule {
                    Some(Rule::List { item: Some(text), .. }) => Some(Rule::Text(*text)),
                    _ => None,
                };
                for (at, item) in items.iter().enumerate() {
                    self.value(&format!("{path}[{at}]"), rule.as_ref(), field, item);
                }
            }
            (_, Value::Message(message)) => self.message(&format!("{path}."), message),
            (_, Value::EnumNumber(number)) => {
                let known = matches!(field.kind(), Kind::Enum(words) if words.get_value(*number).is_some());
                if !known {
                    let expected = choices(field, false).unwrap_or_default();
                    self.fail(path, format!("found {number}, expected {expected}"));
                }
            }
            _ => {}
        }
    }

    /// One violation at most: what is too long does not fit a pattern either.
    fn text(&mut self, path: &str, text: Text, value: &str) {
        let found = value.chars().count();
        if value.is_empty() && text.min > 0 {
            self.fail(path, "required, found nothing");
        } else if found > text.max {
            self.fail(path, format!("found {found} characters, expected at most {}", text.max));
        } else if !rules::fits(text.pattern, value) {
            self.fail(path, format!("does not match {}", text.pattern));
        }
    }

    fn mask(&mut self, path: &str, fields: &[&str], mask: &DynamicMessage) {
        let paths = mask.get_field_by_name("paths");
        for named in paths.iter().filter_map(|paths| paths.as_list()).flatten().filter_map(Value::as_str) {
            if !fields.contains(&named) {
                self.fail(path, format!("found {named:?}, expected one of {}", fields.join(", ")));
            }
        }
    }

    fn map(&mut self, path: &str, max: usize, (key, value): (Text, Text), pairs: &HashMap<MapKey, Value>) {
        if pairs.len() > max {
            self.fail(path, format!("found {} entries, expected at most {max}", pairs.len()));
        }
        let text = |(name, value): (&'_ MapKey, &'_ Value)| {
            Some((name.as_str()?.to_owned(), value.as_str()?.to_owned()))
        };
        for (name, found) in pairs.iter().filter_map(text).collect::<BTreeMap<_, _>>() {
            // The key goes into the path only where it is short: the path is for people.
            let length = name.chars().count();
            let entry = if length <= key.max { format!("{path}.{name}") } else { path.to_owned() };
            if !(key.min..=key.max).contains(&length) {
                let (min, max) = (key.min, key.max);
                self.fail(&entry, format!("found a key of {length} characters, expected {min} to {max}"));
            } else if !rules::fits(key.pattern, &name) {
                self.fail(&entry, format!("the key does not match {}", key.pattern));
            }
            self.text(&entry, value, &found);
        }
    }
}

/// The words of an enum, without the one that says nothing where something has to be said; `None` of other fields.
fn choices(field: &FieldDescriptor, without_zero: bool) -> Option<String> {
    let Kind::Enum(words) = field.kind() else { return None };
    let words: Vec<_> = words
        .values()
        .filter(|word| word.number() != 0 || !without_zero)
        .map(|word| word.name().to_owned())
        .collect();
    Some(format!("one of {}", words.join(", ")))
}

#[cfg(test)]
mod tests;
