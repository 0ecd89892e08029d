//! `doctor`: whether `create` would get through, one step after the other, each with what it found and what would mend it.
//!
//! A step that fails does not end the command: those that do not need it are still made. Nothing is left anywhere, see
//! [`service`] and [`store`].

mod google;
mod service;
mod store;

use std::error::Error as StdError;

use object_io::Scheme;
use schemars::JsonSchema;
use serde::Serialize;

use crate::args::DoctorArgs;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::local::Local;
use crate::{report, transfer};

/// Folder and bucket of `--local`, as `create` has them.
const LOCAL: (&str, &str) = ("local", "uploads");

/// Checks, and prints each step.
pub(crate) async fn run(args: &DoctorArgs, context: &Context) -> Result<Exit, Error> {
    let mut findings = Findings { context, failed: false };
    match &args.local.local {
        Some(dir) => {
            let local = Local::start(dir.as_deref(), args.api.transport.into(), context).await?;
            let done = locally(args, &mut findings, &local).await;
            local.stop(context).await;
            done?;
        }
        None => {
            // A profile that cannot be read is told as a step, and ends no other.
            let is_google = crate::service::is_google(&args.api, context).unwrap_or_default();
            match is_google {
                true => google::check(args, &mut findings).await?,
                false => service::check(args, &mut findings).await?,
            }
            let own = crate::service::own_bucket(&args.api, context).ok().flatten();
            let bucket = args.bucket.as_ref().or(own);
            let at_home = if is_google { Scheme::Gs } else { Scheme::S3 };
            let scheme = bucket.and_then(|bucket| bucket.scheme).unwrap_or(at_home);
            let bucket = bucket.map(|bucket| bucket.name.as_str());
            match transfer::connect(&args.store, scheme, Some(&args.api), context).await {
                Ok(store) => store::check(&mut findings, &store, bucket).await?,
                Err(error) => findings.failed_with("store", &error, None)?,
            }
        }
    }
    // Steps that were cut short by Ctrl-C found nothing out.
    if context.cancel.is_cancelled() {
        return Err(Error::Interrupted);
    }
    Ok(if findings.failed { Exit::Failed } else { Exit::Done })
}

async fn locally(args: &DoctorArgs, findings: &mut Findings<'_>, local: &Local) -> Result<(), Error> {
    let (folder, bucket) = LOCAL;
    let folder = args.folder_id.as_deref().unwrap_or(folder);
    service::rights(findings, local.client(), Some(folder)).await?;
    let bucket = args.bucket.as_ref().map_or(bucket, |bucket| bucket.name.as_str());
    local.bucket(bucket, findings.context).await?;
    store::check(findings, local.store(), Some(bucket)).await
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
    Skip,
}

/// A step.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Step<'a> {
    /// Its name.
    step: &'a str,
    /// How it ended.
    result: Verdict,
    /// What was found.
    text: &'a str,
    /// What would help, where something is amiss.
    fix: Option<&'a str>,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

/// Prints steps as they end.
struct Findings<'a> {
    context: &'a Context,
    failed: bool,
}

impl Findings<'_> {
    fn say(
        &mut self,
        step: &'static str,
        verdict: Verdict,
        text: &str,
        fix: Option<&str>,
    ) -> Result<(), Error> {
        if self.context.cancel.is_cancelled() {
            return Err(Error::Interrupted);
        }
        self.failed |= verdict == Verdict::Fail;
        if self.context.output.is_json() {
            return self.context.output.json(&Step { step, result: verdict, text, fix });
        }
        let word = if verdict == Verdict::Fail { "FAIL" } else { verdict.name() };
        self.context.output.line(&format!("{word:<6}{step:<14}{text}"))?;
        match fix {
            Some(fix) => self.context.output.line(&format!("{:<20}-> {fix}", "")),
            None => Ok(()),
        }
    }

    fn ok(&mut self, step: &'static str, text: &str) -> Result<(), Error> {
        self.say(step, Verdict::Ok, text, None)
    }

    fn warn(&mut self, step: &'static str, text: &str, fix: Option<&str>) -> Result<(), Error> {
        self.say(step, Verdict::Warn, text, fix)
    }

    fn skip(&mut self, step: &'static str, text: &str) -> Result<(), Error> {
        self.say(step, Verdict::Skip, text, None)
    }

    fn fail(&mut self, step: &'static str, text: &str, fix: &str) -> Result<(), Error> {
        self.say(step, Verdict::Fail, text, Some(fix))
    }

    /// A step that failed with an error; what helps is `fix`, or what the error says.
    fn failed_with(&mut self, step: &'static str, error: &Error, fix: Option<&str>) -> Result<(), Error> {
        let fix = fix.or_else(|| error.hint());
        self.say(step, Verdict::Fail, &told(error), fix)
    }
}

/// An error and its causes in one line.
fn told(error: &dyn StdError) -> String {
    report::chain(error)
}
