//! What came of each of several Images: a line when it ends, and at the end the worst exit code.

use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use image_api::{Operation, message_schema, to_json_value};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::Value;

use super::Entry;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::forecast::Forecast;
use crate::report::{Failure, one_line};
use crate::{service, show};

/// What a command that makes one Image would have printed.
pub(super) enum Made {
    /// The operation, done unless nobody waited.
    Operation(Box<Operation>),
    /// What would be done.
    Forecast(Forecast),
}

/// What came of one of several Images.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::commands) struct Outcome<'a> {
    /// Path or URL, the latter without user, password and query.
    image: String,
    /// Name of the Image.
    name: &'a str,
    /// What a command that makes this one alone would end with.
    exit_code: u8,
    /// If there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "of_messages")]
    operation: Option<Value>,
    /// With --dry-run.
    #[serde(skip_serializing_if = "Option::is_none")]
    forecast: Option<&'a Forecast>,
    /// Why there is no Image.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
}

/// The schema of operations, which the schema of `create` defines.
fn of_messages(_: &mut SchemaGenerator) -> Schema {
    let (schema, _) = message_schema::<Operation>();
    Schema::try_from(schema).unwrap_or_default()
}

/// What has come of the images so far.
pub(super) struct Outcomes {
    all: usize,
    /// The longest name.
    width: usize,
    state: Mutex<State>,
}

struct State {
    done: usize,
    failed: usize,
    worst: Exit,
    /// Standard output refused.
    unwritten: Option<Error>,
}

impl Outcomes {
    /// Of none yet.
    pub(super) fn new(entries: &[Entry]) -> Self {
        let width = entries.iter().map(|entry| entry.fields.name().len()).max().unwrap_or_default();
        let state = State { done: 0, failed: 0, worst: Exit::Done, unwritten: None };
        Self { all: entries.len(), width, state: Mutex::new(state) }
    }

    /// Characters of the longest name.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// How many there are of what.
    pub(super) fn summary(&self) -> String {
        let State { done, failed, .. } = *self.state();
        let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        format!("{done} of {} done{failed}", self.all)
    }

    /// Prints what came of one.
    pub(super) fn tell(&self, context: &Context, name: &str, image: &str, made: Result<Made, Error>) {
        let (made, error) = match made {
            Ok(made) => {
                let failure = match &made {
                    Made::Operation(operation) => service::failure(operation),
                    Made::Forecast(_) => None,
                };
                (Some(made), failure)
            }
            Err(_) if context.cancel.is_cancelled() => (None, Some(Error::Interrupted)),
            Err(error) => (None, Some(error)),
        };
        let exit = error.as_ref().map_or(Exit::Done, Error::exit);
        let write = || match context.output.is_json() {
            true => {
                line(name, image, made.as_ref(), error.as_ref()).and_then(|line| context.output.json(&line))
            }
            false => self.row(context, name, image, made.as_ref(), error.as_ref()),
        };
        // Where nobody draws on what is written, nobody who draws waits until it is read.
        let written = match io::stdout().is_terminal() {
            true => context.progress.aside(write),
            false => write(),
        };
        // That the command is interrupted is told once, at its end.
        if let Some(source) = error.filter(|error| !matches!(error, Error::Interrupted)) {
            let (name, image) = (name.to_owned(), image.to_owned());
            let error = Error::NotMade { name, image, source: source.into() };
            context.progress.aside(|| context.report.error(&Failure::new(&error, exit)));
        }
        let mut state = self.state();
        match exit {
            Exit::Done => state.done += 1,
            _ => state.failed += 1,
        }
        if exit.code() > state.worst.code() {
            state.worst = exit;
        }
        if let Err(error) = written {
            state.unwritten.get_or_insert(error);
        }
    }

    /// Prints how many there are of what, and says how the command ends.
    pub(super) fn end(&self, context: &Context) -> Result<Exit, Error> {
        let (worst, unwritten) = {
            let mut state = self.state();
            (state.worst, state.unwritten.take())
        };
        match (worst, unwritten) {
            (Exit::Interrupted, _) => return Err(Error::Interrupted),
            (Exit::Done, Some(error)) => return Err(error),
            (_, Some(_)) => {}
            (_, None) if context.output.is_json() => {}
            (worst, None) => match context.output.line(&self.summary()) {
                Err(error) if worst == Exit::Done => return Err(error),
                _ => {}
            },
        }
        Ok(worst)
    }

    /// For people: a line, or what would be done.
    fn row(
        &self,
        context: &Context,
        name: &str,
        image: &str,
        made: Option<&Made>,
        error: Option<&Error>,
    ) -> Result<(), Error> {
        let text = match (made, error) {
            (Some(Made::Forecast(forecast)), None) => {
                let which = vec![("image", one_line(image)), ("name", name.to_owned())];
                return context.output.fields(&[which, forecast.fields()].concat());
            }
            (_, Some(Error::Interrupted)) => "interrupted".to_owned(),
            (_, Some(_)) | (None, None) => "failed".to_owned(),
            (Some(Made::Operation(operation)), None) => show::line(operation),
        };
        context.output.line(&format!("{name:<width$}  {text}", width = self.width))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For programs: one object.
fn line<'a>(
    name: &'a str,
    image: &str,
    made: Option<&'a Made>,
    error: Option<&Error>,
) -> Result<Outcome<'a>, Error> {
    let exit = error.map_or(Exit::Done, Error::exit);
    let (mut operation, mut forecast) = (None, None);
    match made {
        Some(Made::Operation(made)) => {
            operation = Some(to_json_value(&**made).map_err(|source| Error::Json { source })?);
        }
        Some(Made::Forecast(made)) => forecast = Some(made),
        None => {}
    }
    Ok(Outcome {
        image: image.to_owned(),
        name,
        exit_code: exit.code(),
        operation,
        forecast,
        error: error.map(|error| Failure::new(error, exit)),
    })
}
