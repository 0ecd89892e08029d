//! The OpenAPI document of the REST calls, made from the descriptors and the rules that serve them.
//!
//! Source: <https://spec.openapis.org/oas/v3.1.0.html>. Descriptions are the comments of the `.proto` files; what a field may hold
//! is said by the table that [`crate::Validate`] holds requests against. What only a server knows, the hosts that it reads from, the
//! grammar of its filters, its page tokens, the document does not say; whatever is refused is a 400 that names every field.

mod decimal;
mod schemas;

use std::collections::BTreeMap;

use prost::Name;
use prost_reflect::{FieldDescriptor, FileDescriptor};
use serde_json::{Map, Value, json};

use crate::{Binding, Method, descriptors::descriptor, method::query_fields, rpc::Status, validate::rules};
use schemas::{Schemas, is_required, of_path, of_query};

/// The JSON Schema of a message as [`crate::to_json`] writes it, by a reference into `#/$defs`, and what belongs there.
pub fn message_schema<M: Name>() -> (Value, BTreeMap<String, Value>) {
    let mut schemas = Schemas::written();
    let schema = schemas.of(&descriptor::<M>());
    (schema, schemas.into_components())
}

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
            "schemas": schemas.into_components(),
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
    let parameter = |field: &FieldDescriptor, place: &str, name: &str, required: bool, schema: Value| {
        json!({
            "name": name, "in": place, "required": required,
            "description": comment(&input.parent_file(), field.path()), "schema": schema,
        })
    };
    let mut parameters = Vec::new();
    for name in &in_path {
        let field = input.get_field_by_name(name).expect("a test asks for every path");
        parameters.push(parameter(&field, "path", name, true, of_path(rules::of(&field))));
    }
    if !binding.has_body() {
        for field in query_fields(&input).filter(|field| !in_path.contains(&field.name())) {
            let schema = of_query(&field, rules::of(&field));
            parameters.push(parameter(&field, "query", field.json_name(), is_required(&field), schema));
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
        // A body of which nothing is needed may be left out.
        let needed = input.fields().any(|field| is_required(&field) && !in_path.contains(&field.name()))
            || input.oneofs().any(|choice| rules::is_needed(&choice));
        operation["requestBody"] = json!({
            "required": needed,
            "content": { "application/json": { "schema": schemas.of_body(&input, &in_path) } },
        });
    }
    operation
}

fn operation_id(method: &Method) -> String {
    format!("{}_{}", method.descriptor().parent_service().name(), method.name())
}

/// The comment before a declaration, as one line.
fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let location = info.and_then(|info| info.location.iter().find(|location| location.path == path));
    let lines = location.map(|location| location.leading_comments()).unwrap_or_default();
    lines.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
