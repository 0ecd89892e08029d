//! The OpenAPI document of the REST calls, made from the descriptors that serve them.
//!
//! Source: <https://spec.openapis.org/oas/v3.1.0.html>; shapes by <https://protobuf.dev/programming-guides/json/>: int64 is a
//! string, a time RFC 3339, a field mask a list of names in one string, an Any an object with `@type`. Descriptions are the
//! comments of the `.proto` files. What the descriptors do not know, the rules of the fields ([`crate::Validate`]), the
//! document does not say; a broken rule is a 400 that names every field.

use std::collections::BTreeMap;

use prost_reflect::{EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use crate::{Binding, Method, descriptors::descriptor, method::query_fields, rpc::Status};

/// The document. `is_open` tells the methods that ask for no token.
pub fn openapi(title: &str, version: &str, is_open: impl Fn(&Method) -> bool) -> Value {
    let mut schemas = Schemas::default();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for method in Method::all() {
        for (at, binding) in method.bindings().iter().enumerate() {
            let mut operation = operation(method, binding, &mut schemas);
            if at > 0 {
                operation["operationId"] = json!(format!("{}_{}", operation_id(method), at + 1));
            }
            if is_open(method) {
                operation["security"] = json!([]);
            }
            paths.entry(binding.path()).or_default().insert(binding.verb().to_ascii_lowercase(), operation);
        }
    }
    let status = schemas.of(&descriptor::<Status>());
    json!({
        "openapi": "3.1.0",
        "info": { "title": title, "version": version },
        "paths": paths,
        "security": [{ "bearer": [] }],
        "components": {
            "schemas": schemas.0,
            "responses": {
                "Error": {
                    "description": "The call was refused or failed; the HTTP status stands for the code.",
                    "headers": { "x-request-id": { "schema": { "type": "string" } } },
                    "content": { "application/json": { "schema": status } },
                },
            },
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn operation(method: &Method, binding: &Binding, schemas: &mut Schemas) -> Value {
    let method_descriptor = method.descriptor();
    let (input, output) = (method_descriptor.input(), method_descriptor.output());
    let in_path: Vec<_> = binding.path_fields().collect();
    let mut parameters = Vec::new();
    for name in &in_path {
        let description =
            input.get_field_by_name(name).map(|field| comment(&input.parent_file(), field.path()));
        // A colon would begin a verb, and a slash another segment.
        parameters.push(json!({
            "name": name, "in": "path", "required": true, "description": description,
            "schema": { "type": "string", "pattern": "^[^/:]+$" },
        }));
    }
    if !binding.has_body() {
        for field in query_fields(&input).filter(|field| !in_path.contains(&field.name())) {
            parameters.push(json!({
                "name": field.json_name(), "in": "query", "description": comment(&input.parent_file(), field.path()),
                "schema": schemas.of_kind(&field.kind()),
            }));
        }
    }
    let mut operation = json!({
        "operationId": operation_id(method),
        "tags": [method_descriptor.parent_service().name()],
        "summary": comment(&method_descriptor.parent_service().parent_file(), method_descriptor.path()),
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "Done, or accepted where it is an Operation.",
                "headers": { "x-request-id": { "schema": { "type": "string" } } },
                "content": { "application/json": { "schema": schemas.of(&output) } },
            },
            "default": { "$ref": "#/components/responses/Error" },
        },
    });
    if binding.has_body() {
        operation["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": schemas.of(&input) } },
        });
    }
    operation
}

fn operation_id(method: &Method) -> String {
    format!("{}_{}", method.descriptor().parent_service().name(), method.name())
}

/// Schemas by the full names of messages.
#[derive(Default)]
struct Schemas(BTreeMap<String, Value>);

impl Schemas {
    fn of(&mut self, message: &MessageDescriptor) -> Value {
        match message.full_name() {
            "google.protobuf.Timestamp" => json!({ "type": "string", "format": "date-time" }),
            "google.protobuf.Duration" => json!({ "type": "string", "pattern": "^-?[0-9]+(\\.[0-9]+)?s$" }),
            "google.protobuf.FieldMask" => json!({ "type": "string" }),
            "google.protobuf.Any" => json!({
                "type": "object", "required": ["@type"], "properties": { "@type": { "type": "string" } },
            }),
            name => {
                if !self.0.contains_key(name) {
                    // First a place: messages may hold themselves.
                    self.0.insert(name.to_owned(), Value::Null);
                    let schema = self.object(message);
                    self.0.insert(name.to_owned(), schema);
                }
                json!({ "$ref": format!("#/components/schemas/{name}") })
            }
        }
    }

    fn object(&mut self, message: &MessageDescriptor) -> Value {
        let file = message.parent_file();
        let mut properties = Map::new();
        for field in message.fields() {
            let mut schema = self.of_field(&field);
            let said = comment(&file, field.path());
            let choice =
                field.containing_oneof().map(|oneof| format!(" One of the choices of `{}`.", oneof.name()));
            schema["description"] = json!(format!("{said}{}", choice.unwrap_or_default()));
            properties.insert(field.json_name().to_owned(), schema);
        }
        json!({
            "type": "object",
            "description": comment(&file, message.path()),
            "properties": properties,
            "additionalProperties": false,
        })
    }

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
            Kind::Enum(words) => of_enum(words),
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::Int64 => json!({ "type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$" }),
            Kind::Int32 => json!({ "type": "integer", "format": "int32" }),
            _ => json!({ "type": "string" }),
        }
    }
}

fn of_enum(words: &EnumDescriptor) -> Value {
    let words: Vec<_> = words.values().map(|value| value.name().to_owned()).collect();
    json!({ "type": "string", "enum": words })
}

/// The comment before a declaration, as one line.
fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let location = info.and_then(|info| info.location.iter().find(|location| location.path == path));
    let lines = location.map(|location| location.leading_comments()).unwrap_or_default();
    lines.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_binding_and_every_reference() {
        let document = openapi("t", "1", |method| method.service().contains("endpoint"));
        let bindings: usize = Method::all().iter().map(|method| method.bindings().len()).sum();
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(paths.values().map(|path| path.as_object().unwrap().len()).sum::<usize>(), bindings);
        let list = &document["paths"]["/compute/v1/images"]["get"];
        assert_eq!(list["operationId"], "ImageService_List");
        assert_eq!(list["summary"], "Lists the images of a folder.");
        assert_eq!(list["parameters"][1]["name"], "pageSize");
        assert_eq!(list["parameters"][1]["schema"]["format"], "int64");
        assert_eq!(document["paths"]["/endpoints"]["get"]["security"], json!([]));
        let image = &document["components"]["schemas"]["yandex.cloud.compute.v1.Image"];
        assert_eq!(image["properties"]["minDiskSize"]["type"], "string");
        assert_eq!(image["properties"]["labels"]["additionalProperties"]["type"], "string");
        assert_eq!(image["properties"]["status"]["enum"][2], "READY");
        assert_eq!(image["properties"]["createdAt"]["format"], "date-time");
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(document.pointer(reference).is_some_and(|found| !found.is_null()), "{reference}");
        }
        let mut ids: Vec<_> =
            text.split("\"operationId\":\"").skip(1).map(|rest| rest.split('"').next()).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all, "operation ids are unique");
    }
}
