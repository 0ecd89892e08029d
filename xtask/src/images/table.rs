//! Results of checks as a table, a row at a time, and what was wrong in full below it.

use std::process::ExitCode;

use anyhow::Result;

/// A table that is printed while it grows.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<&'static str>,
    wrong: Vec<String>,
    passed: usize,
}

/// Width of the first column: the longest name of a form.
const FIRST: usize = 24;

impl Table {
    /// Prints the head.
    pub(crate) fn new(columns: &[&'static str]) -> Self {
        let mut line = format!("{:FIRST$}", "form");
        for column in columns {
            line.push_str(&format!("  {column:>11}"));
        }
        println!("{line}");
        Self { columns: columns.to_vec(), wrong: Vec::new(), passed: 0 }
    }

    /// Prints a row: what each column's check said.
    pub(crate) fn row(&mut self, name: &str, results: &[Result<String>]) {
        let mut line = format!("{name:FIRST$}");
        for (column, result) in self.columns.iter().zip(results) {
            match result {
                Ok(said) => {
                    self.passed += 1;
                    line.push_str(&format!("  {said:>11}"));
                }
                Err(error) => {
                    self.wrong.push(format!("{name}: {column}: {error:#}"));
                    line.push_str(&format!("  {:>11}", "WRONG"));
                }
            }
        }
        println!("{line}");
    }

    /// Prints what was wrong, and a closing line.
    pub(crate) fn finish(self) -> ExitCode {
        for wrong in &self.wrong {
            println!("\n{wrong}");
        }
        println!("\n{} passed, {} failed", self.passed, self.wrong.len());
        if self.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
