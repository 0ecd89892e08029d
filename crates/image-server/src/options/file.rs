//! The file of options: TOML, one key for each option, no tables.

use std::ffi::OsString;

use anyhow::{Context as _, bail};
use clap::{ArgMatches, Command, parser::ValueSource};
use toml::{Table, Value};

/// The arguments that the file stands for, without those that `said` has already.
///
/// Values are not repeated in errors: some are secrets.
pub(super) fn arguments(text: &str, command: &Command, said: &ArgMatches) -> anyhow::Result<Vec<OsString>> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| anyhow::anyhow!(place(text, &error)))?;
    let serve = command.find_subcommand("serve").context("no such command")?;
    let mut arguments = Vec::new();
    for (key, value) in &table {
        let known = serve.get_arguments().find(|arg| arg.get_long() == Some(key.as_str()) && key != "config");
        let Some(arg) = known else {
            bail!("unknown key `{key}`; keys are the options of `image-server serve`")
        };
        let source = said.value_source(arg.get_id().as_str());
        if matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
            continue;
        }
        let takes_value = arg.get_action().takes_values();
        let many = matches!(arg.get_action(), clap::ArgAction::Append);
        match value {
            Value::Boolean(true) if !takes_value => arguments.push(format!("--{key}").into()),
            Value::Boolean(false) if !takes_value => {}
            Value::Array(values) if many => {
                for value in values {
                    arguments.push(format!("--{key}={}", scalar(key, value)?).into());
                }
            }
            value if takes_value => arguments.push(format!("--{key}={}", scalar(key, value)?).into()),
            _ => bail!("`{key}` is true or false"),
        }
    }
    Ok(arguments)
}

fn scalar(key: &str, value: &Value) -> anyhow::Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        _ => bail!("`{key}` has a value of type {}, expected text or a number", value.type_str()),
    }
}

/// Where the file is no TOML; its parser would show the line, which may hold a secret.
fn place(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
    format!("line {line}: {}", error.message())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::super::Cli;
    use super::*;

    fn read(text: &str, said: &[&str]) -> anyhow::Result<Vec<String>> {
        let command = Cli::command();
        let said = [&["image-server", "serve"], said].concat();
        let matches = command.clone().ignore_errors(true).get_matches_from(said);
        let serve = matches.subcommand_matches("serve").unwrap();
        let arguments = arguments(text, &command, serve)?;
        Ok(arguments.into_iter().map(|argument| argument.into_string().unwrap()).collect())
    }

    #[test]
    fn a_file_is_arguments() {
        let text = "data-dir = \"d\"\nallow-http = true\nallow-private-hosts = false\nrunning-ingests = 2\n\
                    allow-uri-host = [\"a.example\", \"b.example:8443\"]\ntoken = \"one\"";
        let expected = [
            "--allow-http",
            "--allow-uri-host=a.example",
            "--allow-uri-host=b.example:8443",
            "--data-dir=d",
            "--running-ingests=2",
            "--token=one",
        ];
        let mut found = read(text, &[]).unwrap();
        found.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_command_line_wins() {
        let text = "running-ingests = 2\nallow-uri-host = [\"a.example\"]\nmemory = \"64M\"";
        let found = read(text, &["--running-ingests", "3", "--allow-uri-host=c.example"]).unwrap();
        assert_eq!(found, ["--memory=64M"]);
    }

    #[test]
    fn what_is_wrong_is_named_and_not_repeated() {
        for (text, words) in [
            ("tokens = \"hunter2\"", "unknown key `tokens`"),
            ("config = \"hunter2\"", "unknown key `config`"),
            ("allow-http = \"hunter2\"", "`allow-http` is true or false"),
            ("listen = [\"hunter2\"]", "`listen` has a value of type array"),
            ("token = 1.5", "`token` has a value of type float"),
            ("listen = \"a\"\ntoken = hunter2", "line 2"),
            ("[serve]\nlisten = \"hunter2\"", "unknown key `serve`"),
        ] {
            let error = read(text, &[]).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("hunter2"), "{text}: {error}");
        }
    }
}
