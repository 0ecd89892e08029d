//! The methods of the services and their HTTP forms, both ways.
//!
//! Source: <https://cloud.google.com/endpoints/docs/grpc/transcoding>, by the `google.api.http` options in `proto/`, of
//! which the part is here that the contract uses: path templates of literals and whole-segment fields, a verb after a
//! colon, a body that is the request, a field of it or none, fields of one value in the query. The server's REST face, the client and
//! the OpenAPI document all read the same table, so no path is written twice.
//!
//! A method is known by its descriptors only; what it is called with are the bytes of its messages.

mod template;

use std::sync::LazyLock;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use prost::{Message as _, Name};
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, ReflectMessage as _, Value,
};
use url::form_urlencoded;

use crate::{
    Code, JsonError, Violations,
    descriptors::{descriptor, pool},
    json::read_strictly,
    messages::google::api::{HttpRule, http_rule::Pattern},
    rpc::Status,
};
use template::Template;

/// What stays as it is in a segment of a path: the unreserved characters of RFC 3986, section 2.3. A colon does not, it
/// would begin a verb.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

static METHODS: LazyLock<Vec<Method>> = LazyLock::new(|| {
    let services = pool().services();
    services.flat_map(|service| service.methods().map(Method::read).collect::<Vec<_>>()).collect()
});

/// A method of a service.
#[derive(Debug)]
pub struct Method {
    descriptor: MethodDescriptor,
    grpc_path: String,
    bindings: Vec<Binding>,
}

/// One HTTP form of a method.
#[derive(Debug)]
pub struct Binding {
    verb: &'static str,
    template: Template,
    body: Body,
}

/// What of a request stands in the body.
#[derive(Debug, PartialEq, Eq)]
enum Body {
    /// Nothing: there is none.
    Nothing,
    /// All that does not stand in the path.
    Whole,
    /// The message in this field; others may stand in the query.
    Field(String),
}

/// What a verb and a path lead to.
#[derive(Debug)]
pub enum Route<'a> {
    /// A method, called by this request.
    Method(&'static Method, HttpRequest<'a>),
    /// There is something, but only for these verbs.
    OtherVerb(Vec<&'static str>),
    /// There is nothing.
    Nothing,
}

/// A request that fits a binding: what its path says, and what is still to be added.
#[derive(Debug)]
pub struct HttpRequest<'a> {
    binding: &'static Binding,
    /// Names of fields and their undecoded values.
    captures: Vec<(&'static str, &'a str)>,
}

/// A method's call as HTTP has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCall {
    /// The HTTP method.
    pub verb: &'static str,
    /// Path and query, below the service's host.
    pub target: String,
    /// The body in JSON, where the method has one.
    pub body: Option<String>,
}

impl Method {
    /// Every method of every service in `proto/`.
    pub fn all() -> &'static [Self] {
        &METHODS
    }

    /// The method at a gRPC path, such as `/yandex.cloud.compute.v1.ImageService/Get`.
    pub fn at(grpc_path: &str) -> Option<&'static Self> {
        METHODS.iter().find(|method| method.grpc_path == grpc_path)
    }

    /// The method that an HTTP request calls. `path` is not decoded and has no query.
    pub fn route<'a>(verb: &str, path: &'a str) -> Route<'a> {
        let mut others = Vec::new();
        for method in METHODS.iter() {
            for binding in &method.bindings {
                let Some(captures) = binding.template.captures(path) else { continue };
                if binding.verb == verb {
                    return Route::Method(method, HttpRequest { binding, captures });
                }
                others.push(binding.verb);
            }
        }
        if others.is_empty() { Route::Nothing } else { Route::OtherVerb(others) }
    }

    /// Path of the method over gRPC: `/package.Service/Method`.
    pub fn grpc_path(&self) -> &str {
        &self.grpc_path
    }

    /// Full name of the service.
    pub fn service(&self) -> &str {
        self.descriptor.parent_service().full_name()
    }

    /// Name of the method in its service.
    pub fn name(&self) -> &str {
        self.descriptor.name()
    }

    /// The HTTP forms of the method; the first one is the one that a client uses.
    pub fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    pub(crate) fn descriptor(&self) -> &MethodDescriptor {
        &self.descriptor
    }

    /// The bytes of the request that an HTTP request stands for. What does not fit is INVALID_ARGUMENT.
    pub fn request_from_http(
        &self,
        request: &HttpRequest<'_>,
        query: &str,
        body: &[u8],
    ) -> Result<Vec<u8>, Status> {
        let input = self.descriptor.input();
        let read = |message: MessageDescriptor| {
            let name = message.full_name().to_owned();
            let unreadable =
                |error| Status::new(Code::InvalidArgument, format!("not the JSON of {name}: {error}"));
            read_strictly(message, body).map_err(unreadable)
        };
        let mut message = DynamicMessage::new(input.clone());
        match (&request.binding.body, request.binding.body_field(&input)) {
            (Body::Whole, _) if !body.is_empty() => message = read(input)?,
            (Body::Field(_), Some((field, inner))) if !body.is_empty() => {
                message.set_field(&field, Value::Message(read(inner)?));
            }
            _ => {}
        }
        let mut refused = Vec::new();
        if request.binding.body != Body::Whole {
            for (name, value) in form_urlencoded::parse(query.as_bytes()) {
                refused.extend(set(&mut message, &name, value.into_owned()).err());
            }
        }
        for (name, value) in &request.captures {
            let decoded = percent_encoding::percent_decode_str(value).decode_utf8();
            let set = match decoded {
                Ok(value) => set(&mut message, name, value.into_owned()),
                Err(_) => Err(Violations::one(name, "not UTF-8")),
            };
            refused.extend(set.err());
        }
        match Violations::all(refused) {
            Some(violations) => Err(violations.into_status()),
            None => Ok(message.encode_to_vec()),
        }
    }

    /// The JSON of an answer, from its bytes.
    pub fn response_to_json(&self, response: &[u8]) -> Result<String, JsonError> {
        let output = self.descriptor.output();
        let name = || output.full_name().to_owned();
        let message = DynamicMessage::decode(output.clone(), response)
            .map_err(|source| JsonError::Wire { message: name(), source })?;
        serde_json::to_string(&message).map_err(|source| JsonError::Write { message: name(), source })
    }

    /// A request as HTTP has it, in the first of the method's forms.
    pub fn request_to_http<M: Name>(&self, request: &M) -> Result<HttpCall, JsonError> {
        let binding = self.bindings.first().expect("every method of `proto/` has an HTTP form");
        let mut message = DynamicMessage::new(descriptor::<M>());
        message
            .transcode_from(request)
            .map_err(|source| JsonError::Wire { message: M::full_name(), source })?;
        let mut target = binding.template.fill(|field| {
            let value = message.take_field_by_name(field);
            let value = value.as_ref().and_then(Value::as_str).unwrap_or_default();
            utf8_percent_encode(value, SEGMENT).to_string()
        });
        let unwritable = |source| JsonError::Write { message: M::full_name(), source };
        let body = match &binding.body {
            Body::Nothing => None,
            Body::Whole => {
                let body = serde_json::to_string(&message).map_err(unwritable)?;
                return Ok(HttpCall { verb: binding.verb, target, body: Some(body) });
            }
            Body::Field(name) => {
                let inner = message.take_field_by_name(name);
                let inner = inner.as_ref().and_then(Value::as_message);
                inner.map(serde_json::to_string).transpose().map_err(unwritable)?
            }
        };
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (field, value) in message.fields() {
            // Fields of other kinds do not stand in a query; a test looks at every method.
            if let Some(text) = text_of(value) {
                query.append_pair(field.json_name(), &text);
            }
        }
        let query = query.finish();
        if !query.is_empty() {
            target.push('?');
            target.push_str(&query);
        }
        Ok(HttpCall { verb: binding.verb, target, body })
    }

    fn read(descriptor: MethodDescriptor) -> Self {
        let http = pool().get_extension_by_name("google.api.http").expect("annotations.proto is compiled in");
        let options = descriptor.options();
        let rule = options.get_extension(&http);
        let rule =
            rule.as_message().and_then(|rule| rule.transcode_to::<HttpRule>().ok()).unwrap_or_default();
        let bindings = std::iter::once(&rule).chain(&rule.additional_bindings).filter_map(Binding::read);
        Self {
            grpc_path: format!("/{}/{}", descriptor.parent_service().full_name(), descriptor.name()),
            bindings: bindings.collect(),
            descriptor,
        }
    }
}

impl Binding {
    /// The HTTP method, in capitals.
    pub fn verb(&self) -> &'static str {
        self.verb
    }

    /// The path, with the names of fields in braces.
    pub fn path(&self) -> String {
        self.template.fill(|field| format!("{{{field}}}"))
    }

    /// Whether the body is the request, or a field of it; otherwise the query is.
    pub fn has_body(&self) -> bool {
        self.body != Body::Nothing
    }

    /// The field that the body is, and its message.
    fn body_field(&self, input: &MessageDescriptor) -> Option<(FieldDescriptor, MessageDescriptor)> {
        let Body::Field(name) = &self.body else { return None };
        let field = input.get_field_by_name(name)?;
        let inner = field.kind().as_message()?.clone();
        Some((field, inner))
    }

    /// Names of the fields that stand in the path.
    pub fn path_fields(&self) -> impl Iterator<Item = &str> {
        self.template.fields()
    }

    fn read(rule: &HttpRule) -> Option<Self> {
        let (verb, template) = match rule.pattern.as_ref()? {
            Pattern::Get(template) => ("GET", template),
            Pattern::Put(template) => ("PUT", template),
            Pattern::Post(template) => ("POST", template),
            Pattern::Delete(template) => ("DELETE", template),
            Pattern::Patch(template) => ("PATCH", template),
        };
        let body = match rule.body.as_str() {
            "" => Body::Nothing,
            "*" => Body::Whole,
            field => Body::Field(field.to_owned()),
        };
        Some(Self { verb, template: Template::read(template), body })
    }
}

/// Fields of a message that can stand in a query.
pub(crate) fn query_fields(message: &MessageDescriptor) -> impl Iterator<Item = FieldDescriptor> {
    message.fields().filter(|field| !field.is_list() && !field.is_map() && is_scalar(&field.kind()))
}

fn is_scalar(kind: &Kind) -> bool {
    matches!(kind, Kind::String | Kind::Int64 | Kind::Bool)
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::I64(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        _ => None,
    }
}

/// Sets a field by its JSON name or by its proto name.
fn set(message: &mut DynamicMessage, name: &str, text: String) -> Result<(), Violations> {
    let descriptor = message.descriptor();
    let found = query_fields(&descriptor).find(|field| field.json_name() == name || field.name() == name);
    let Some(field) = found else { return Err(Violations::one(name, "no such parameter")) };
    let wrong = |what: &str| Violations::one(field.name(), what);
    let value = match field.kind() {
        Kind::Int64 => Value::I64(text.parse().map_err(|_| wrong("not a whole number"))?),
        Kind::Bool => Value::Bool(text.parse().map_err(|_| wrong("neither true nor false"))?),
        _ => Value::String(text),
    };
    message.set_field(&field, value);
    Ok(())
}

#[cfg(test)]
mod tests;
