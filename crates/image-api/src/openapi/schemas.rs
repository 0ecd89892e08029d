//! Messages and fields as JSON Schema.
//!
//! Shapes by <https://protobuf.dev/programming-guides/json/>: int64 is a string, a time RFC 3339, a field mask a list of names in
//! one string, an Any an object with `@type`. What we write is said so. What we read may be written in more ways, which are said
//! too: null for a field that is not set, a number for an int64 or the word of an enum. A message that is read and written has the
//! wider schema.

use std::collections::{BTreeMap, HashSet};

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::{comment, decimal};
use crate::{
    Method,
    validate::rules::{self, Rule, Text},
};

/// Schemas by the full names of messages.
pub(super) struct Schemas {
    all: BTreeMap<String, Value>,
    /// Messages that are read from bodies.
    read: HashSet<String>,
    /// Where in the document the schemas will lie, as references have it.
    place: &'static str,
}

/// Where an OpenAPI document has its schemas.
const COMPONENTS: &str = "#/components/schemas/";
/// Where a JSON Schema has those that it refers to.
const DEFINITIONS: &str = "#/$defs/";

impl Default for Schemas {
    fn default() -> Self {
        let mut read = HashSet::new();
        for method in Method::all().iter().filter(|method| method.bindings().iter().any(|one| one.has_body()))
        {
            add_all(&mut read, &method.descriptor().input());
        }
        Self { all: BTreeMap::new(), read, place: COMPONENTS }
    }
}

/// A message, and those in it.
fn add_all(names: &mut HashSet<String>, message: &MessageDescriptor) {
    if names.insert(message.full_name().to_owned()) {
        for kind in message.fields().map(|field| field.kind()) {
            if let Kind::Message(inner) = kind {
                add_all(names, &inner);
            }
        }
    }
}

impl Schemas {
    /// Of messages that are written, for a JSON Schema.
    pub(super) fn written() -> Self {
        Self { all: BTreeMap::new(), read: HashSet::new(), place: DEFINITIONS }
    }

    pub(super) fn into_components(self) -> BTreeMap<String, Value> {
        self.all
    }

    pub(super) fn of(&mut self, message: &MessageDescriptor) -> Value {
        self.of_body(message, &[])
    }

    /// The schema of a body: the message without the fields that stand in the path.
    pub(super) fn of_body(&mut self, message: &MessageDescriptor, in_path: &[&str]) -> Value {
        match message.full_name() {
            "google.protobuf.Timestamp" => json!({ "type": "string", "format": "date-time" }),
            "google.protobuf.Duration" => json!({ "type": "string", "pattern": "^-?[0-9]+(\\.[0-9]+)?s$" }),
            "google.protobuf.FieldMask" => json!({ "type": "string" }),
            "google.protobuf.Any" => json!({
                "type": "object", "required": ["@type"], "properties": { "@type": { "type": "string" } },
            }),
            name => {
                if !self.all.contains_key(name) {
                    // First a place: messages may hold themselves.
                    self.all.insert(name.to_owned(), Value::Null);
                    let schema = self.object(message, in_path);
                    self.all.insert(name.to_owned(), schema);
                }
                json!({ "$ref": format!("{}{name}", self.place) })
            }
        }
    }

    fn object(&mut self, message: &MessageDescriptor, in_path: &[&str]) -> Value {
        let file = message.parent_file();
        let is_read = self.read.contains(message.full_name());
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for field in message.fields().filter(|field| !in_path.contains(&field.name())) {
            let mut schema = if is_read { self.of_read_field(&field) } else { self.of_field(&field) };
            if is_read && is_required(&field) {
                required.push(field.json_name().to_owned());
            }
            let said = comment(&file, field.path());
            let choice =
                field.containing_oneof().map(|oneof| format!(" One of the choices of `{}`.", oneof.name()));
            schema["description"] = json!(format!("{said}{}", choice.unwrap_or_default()));
            properties.insert(field.json_name().to_owned(), schema);
        }
        let mut schema = json!({
            "type": "object",
            "description": comment(&file, message.path()),
            "properties": properties,
            "additionalProperties": false,
        });
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        // No message has two of them.
        if let Some(choice) = message.oneofs().next().filter(|_| is_read) {
            // Null has no fields, and would have all of them if that were not asked of objects only.
            let has = |field: FieldDescriptor| json!({ "type": "object", "required": [field.json_name()] });
            let mut ways: Vec<_> = choice.fields().map(has).collect();
            if !rules::is_needed(&choice) {
                ways.push(json!({ "not": { "anyOf": ways.clone() } }));
            }
            schema["oneOf"] = json!(ways);
        }
        schema
    }

    /// A field as we write it.
    fn of_field(&mut self, field: &FieldDescriptor) -> Value {
        if field.is_map() {
            let value = field.kind().as_message().map(MessageDescriptor::map_entry_value_field);
            let value = value.map(|value| self.of_kind(&value.kind()));
            return json!({ "type": "object", "additionalProperties": value });
        }
        let one = self.of_kind(&field.kind());
        if field.is_list() { json!({ "type": "array", "items": one }) } else { one }
    }

    fn of_kind(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Message(message) => self.of(message),
            Kind::Enum(words) => json!({ "type": "string", "enum": words_of(words, 0) }),
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::Int64 => json!({ "type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$" }),
            Kind::Int32 => json!({ "type": "integer", "format": "int32" }),
            _ => json!({ "type": "string" }),
        }
    }

    /// A field as we read it.
    fn of_read_field(&mut self, field: &FieldDescriptor) -> Value {
        let rule = rules::of(field);
        let schema = match (rule, field.kind()) {
            (Some(Rule::Text(text)), _) => of_text(*text),
            (Some(Rule::Map { max, key, value }), _) => json!({
                "type": "object",
                "propertyNames": of_text(*key), "additionalProperties": of_text(*value), "maxProperties": max,
            }),
            (Some(Rule::Mask(names)), _) => {
                let message = field.parent_message();
                let names = names.iter().filter_map(|name| message.get_field_by_name(name));
                let any = names.map(|named| named.json_name().to_owned()).collect::<Vec<_>>().join("|");
                json!({ "type": "string", "pattern": rules::whole(&format!("(({any})(,({any}))*)?")) })
            }
            (Some(Rule::Number { min, max, or_zero }), _) => of_number(*min, *max, *or_zero),
            (rule, Kind::Enum(words)) => {
                let least = i32::from(matches!(rule, Some(Rule::Needed)));
                let numbers: Vec<_> =
                    words.values().map(|word| word.number()).filter(|number| *number >= least).collect();
                let words = json!({ "type": "string", "enum": words_of(&words, least) });
                json!({ "anyOf": [words, { "type": "integer", "enum": numbers }] })
            }
            _ if field.is_list() => {
                let items = match rule {
                    Some(Rule::List { item: Some(text), .. }) => of_text(*text),
                    _ => self.of_kind(&field.kind()),
                };
                let mut list = json!({ "type": "array", "items": items });
                if let Some(Rule::List { min, max, .. }) = rule {
                    bound(&mut list, ("minItems", *min), ("maxItems", *max));
                }
                list
            }
            // Whole and not by its name: null may stand for it, which the name does not say.
            (_, Kind::Message(message)) => self.object(&message, &[]),
            _ => self.of_field(field),
        };
        let may_be_null = !is_required(field) && field.containing_oneof().is_none();
        if may_be_null { or_null(schema) } else { schema }
    }
}

/// Whether a request without the field is refused, whatever else it says.
pub(super) fn is_required(field: &FieldDescriptor) -> bool {
    let needed = match rules::of(field) {
        Some(Rule::Text(text)) => text.min > 0,
        Some(Rule::List { min, .. }) => *min > 0,
        Some(Rule::Needed) => true,
        _ => false,
    };
    needed && field.containing_oneof().is_none()
}

/// A field in a path: a colon would begin a verb there, a slash another segment.
pub(super) fn of_path(rule: Option<&Rule>) -> Value {
    let mut schema = match rule {
        Some(Rule::Text(text)) => of_text(*text),
        _ => json!({ "type": "string" }),
    };
    schema["pattern"] = json!(r"^[^/:\x00]+$");
    schema
}

/// A field in a query, where numbers are digits like all else.
pub(super) fn of_query(field: &FieldDescriptor, rule: Option<&Rule>) -> Value {
    match (rule, field.kind()) {
        (Some(Rule::Text(text)), _) => of_text(*text),
        (Some(Rule::Number { min, max, .. }), _) => {
            json!({ "type": "integer", "format": "int64", "minimum": min, "maximum": max })
        }
        (_, Kind::Int64) => {
            json!({ "type": "integer", "format": "int64", "minimum": i64::MIN, "maximum": i64::MAX })
        }
        (_, Kind::Bool) => json!({ "type": "boolean" }),
        _ => json!({ "type": "string" }),
    }
}

/// A format says more than its pattern, which is there for what a database can hold.
fn of_text(text: Text) -> Value {
    let mut schema = match text.format {
        Some(format) => json!({ "type": "string", "format": format }),
        None => json!({ "type": "string", "pattern": rules::whole(text.pattern) }),
    };
    bound(&mut schema, ("minLength", text.min), ("maxLength", text.max));
    schema
}

fn bound(schema: &mut Value, (least, min): (&str, usize), (most, max): (&str, usize)) {
    if min > 0 {
        schema[least] = json!(min);
    }
    if max != rules::UNBOUNDED {
        schema[most] = json!(max);
    }
}

/// An int64 in a body: canonical JSON writes it as a string, and reads numbers too.
fn of_number(min: i64, max: i64, or_zero: bool) -> Value {
    let (low, high) = (u64::try_from(min).unwrap_or_default(), u64::try_from(max).unwrap_or_default());
    let zero = if or_zero { "0|" } else { "" };
    let pattern = rules::whole(&format!("{zero}{}", decimal::between(low, high)));
    let mut ways = vec![
        json!({ "type": "string", "format": "int64", "pattern": pattern }),
        json!({ "type": "integer", "minimum": min, "maximum": max }),
    ];
    if or_zero {
        ways.push(json!({ "type": "integer", "const": 0 }));
    }
    json!({ "anyOf": ways })
}

fn words_of(words: &EnumDescriptor, least: i32) -> Vec<String> {
    let words = words.values().filter(|word| word.number() >= least);
    words.map(|word| word.name().to_owned()).collect()
}

/// A field that is not set may be written as null.
fn or_null(mut schema: Value) -> Value {
    let null = json!({ "type": "null" });
    if let Some(Value::Array(ways)) = schema.get_mut("anyOf") {
        ways.push(null);
        return schema;
    }
    match schema.get("type").cloned() {
        Some(name) => schema["type"] = json!([name, "null"]),
        None => schema = json!({ "anyOf": [schema, null] }),
    }
    schema
}
