//! What `--json` printed, held against `image-prep schema`: drift between the two fails wherever it shows.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::process::Command;
use std::sync::OnceLock;

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::Value;

use super::Run;

/// The schemas of all commands.
pub(crate) struct Described {
    schemas: Schemas,
    of: BTreeMap<String, SchemaIndex>,
}

impl Described {
    /// What the program under test says.
    pub(crate) fn get() -> &'static Self {
        static DESCRIBED: OnceLock<Described> = OnceLock::new();
        DESCRIBED.get_or_init(|| {
            let printed = Command::new(env!("CARGO_BIN_EXE_image-prep")).arg("schema").output().unwrap();
            let all: BTreeMap<String, Value> = serde_json::from_slice(&printed.stdout).unwrap();
            let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
            compiler.enable_format_assertions();
            let mut of = BTreeMap::new();
            for (name, schema) in all {
                let place = format!("https://schema.invalid/{name}");
                compiler.add_resource(&place, schema).unwrap();
                // A schema that is none by its own draft does not compile.
                let index = compiler
                    .compile(&place, &mut schemas)
                    .unwrap_or_else(|error| panic!("{name}: {error:#}"));
                of.insert(name, index);
            }
            Self { schemas, of }
        })
    }

    /// Names of what has a schema.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.of.keys().map(String::as_str)
    }

    /// What of `value` is not as the schema of `name` has it.
    pub(crate) fn check(&self, name: &str, value: &Value) -> Result<(), String> {
        self.schemas.validate(value, self.of[name]).map_err(|error| format!("{error:#}\n{value:#}"))
    }
}

/// Fails if the program was asked for JSON and printed something else than its schema says.
pub(crate) fn conforms(args: &[&OsStr], run: &Run) {
    // Wrong usage is told by the parser, which knows of no JSON yet.
    let is_usage = run.stderr.contains("For more information, try '--help'");
    if is_usage || !args.contains(&OsStr::new("--json")) {
        return;
    }
    let described = Described::get();
    let holds = |name: &str, text: &str| {
        let value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}: {run:?}"));
        described.check(name, &value).unwrap_or_else(|error| panic!("{name}: {error}"));
    };
    // Logs are text; `-v` is no result.
    run.stderr.lines().filter(|line| line.starts_with('{')).for_each(|line| holds("message", line));
    let command = args.iter().filter_map(|arg| arg.to_str()).find(|arg| described.of.contains_key(*arg));
    match command {
        Some("map") => (!run.stdout.is_empty()).then(|| holds("map", &run.stdout)).unwrap_or_default(),
        Some(name) => run.stdout.lines().for_each(|line| holds(name, line)),
        None => {}
    }
}
