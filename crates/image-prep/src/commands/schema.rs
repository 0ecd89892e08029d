//! `schema`: what `--json` prints, as JSON Schema.
//!
//! Source: <https://json-schema.org/draft/2020-12/schema>. The types that are printed describe themselves, so what a result gains its
//! schema has; operations, which are messages of the service, are described by their descriptors. The tests hold what every command
//! prints there against it.

use clap::ValueEnum as _;
use image_api::{Operation, message_schema};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::create::forecast::Requested;
use super::create::many::outcome::Outcome;
use super::{cleanup, compare, convert, doctor, info, map, upload};
use crate::args::{SchemaArgs, SchemaOf};
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::forecast::Forecast;
use crate::report::{Failed, Note, Warning};

/// Prints one schema, or all of them.
pub(crate) fn run(args: &SchemaArgs, context: &Context) -> Result<Exit, Error> {
    let printed = match args.of {
        Some(of) => schema(of),
        None => {
            SchemaOf::value_variants().iter().map(|of| (name(*of), schema(*of))).collect::<Map<_, _>>().into()
        }
    };
    context.output.write(|out| {
        serde_json::to_writer_pretty(&mut *out, &printed)?;
        out.write_all(b"\n")
    })?;
    Ok(Exit::Done)
}

fn name(of: SchemaOf) -> String {
    of.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// The schema of what a command prints.
fn schema(of: SchemaOf) -> Value {
    let mut lines = Lines::new();
    match of {
        SchemaOf::Info => lines.add::<info::Info>(),
        SchemaOf::Map => lines.add::<Vec<map::Run<'_>>>(),
        SchemaOf::Compare => lines.add::<compare::Compared>(),
        SchemaOf::Convert => lines.add::<convert::Converted<'_>>(),
        SchemaOf::Create => {
            lines.add_operation();
            lines.add::<Forecast>();
            lines.add::<Requested>();
            lines.add::<Outcome<'_>>();
        }
        SchemaOf::Upload => {
            lines.add::<upload::Uploaded<'_>>();
            lines.add::<Forecast>();
        }
        SchemaOf::Doctor => lines.add::<doctor::Step<'_>>(),
        SchemaOf::Operation => lines.add_operation(),
        SchemaOf::Cleanup => lines.add::<cleanup::Found<'_>>(),
        SchemaOf::Message => {
            lines.add::<Failed<'_>>();
            lines.add::<Warning<'_>>();
            lines.add::<Note<'_>>();
        }
    }
    lines.finish(&name(of))
}

/// What a line may be, and what that refers to.
struct Lines {
    generator: SchemaGenerator,
    ways: Vec<Value>,
    messages: Map<String, Value>,
}

impl Lines {
    fn new() -> Self {
        let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
        Self { generator, ways: Vec::new(), messages: Map::new() }
    }

    fn add<T: JsonSchema>(&mut self) {
        self.ways.push(self.generator.subschema_for::<T>().to_value());
    }

    fn add_operation(&mut self) {
        let (way, messages) = message_schema::<Operation>();
        self.ways.push(way);
        self.messages.extend(messages);
    }

    fn finish(mut self, name: &str) -> Value {
        let mut definitions = self.generator.take_definitions(true);
        definitions.extend(self.messages);
        let title = match name {
            "message" => "A line of standard error with --json".to_owned(),
            "map" => "image-prep map --json".to_owned(),
            name => format!("A line of image-prep {name} --json"),
        };
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": title,
            "anyOf": self.ways,
            "$defs": definitions,
        })
    }
}
