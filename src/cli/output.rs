//! Forms of output: tables, JSON, YAML.

use std::io::Write;

use serde::Serialize;

use super::CliError;
use super::args::OutputForm;

/// Where results go: standard output, in one form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    form: OutputForm,
}

impl Output {
    pub(super) fn new(form: OutputForm) -> Self {
        Self { form }
    }

    /// Whether people read it.
    pub(super) fn is_table(self) -> bool {
        self.form == OutputForm::Table
    }

    /// Prints `value` as JSON or YAML, or what `table` makes of it.
    pub(super) fn print<T: Serialize>(
        self,
        value: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), CliError> {
        let text = match self.form {
            OutputForm::Table => table(value),
            OutputForm::Json => serde_json::to_string_pretty(value)
                .map_err(|error| CliError::Failed(error.to_string()))?,
            OutputForm::Yaml => serde_yaml_ng::to_string(value)
                .map_err(|error| CliError::Failed(error.to_string()))?,
        };
        write_out(&text);
        Ok(())
    }

    /// Prints one event of a stream: one JSON object on one line, one YAML
    /// document, or the line that `table` makes of it.
    pub(super) fn event<T: Serialize>(
        self,
        value: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<bool, CliError> {
        let text = match self.form {
            OutputForm::Table => table(value),
            OutputForm::Json => {
                serde_json::to_string(value).map_err(|error| CliError::Failed(error.to_string()))?
            }
            OutputForm::Yaml => serde_yaml_ng::to_string(value)
                .map(|text| format!("---\n{text}"))
                .map_err(|error| CliError::Failed(error.to_string()))?,
        };
        Ok(write_out(&text))
    }
}

/// Writes a text and a line end; false when nobody reads any more.
fn write_out(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    let end = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    write!(out, "{text}{end}")
        .and_then(|()| out.flush())
        .is_ok()
}

/// A table in the manner of Cilium's: columns aligned, three spaces between.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

const GUTTER: &str = "   ";

impl Table {
    /// A table with these header lines.
    pub(super) fn new(header: &[&[&str]]) -> Self {
        Self {
            rows: header
                .iter()
                .map(|line| line.iter().map(|cell| (*cell).to_owned()).collect())
                .collect(),
        }
    }

    /// Adds one line.
    pub(super) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The text.
    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows
                    .iter()
                    .filter_map(|row| row.get(column))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                let fill = width - cell.chars().count();
                line.extend(std::iter::repeat_n(' ', fill));
                line.push_str(GUTTER);
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// `2026-01-31T12:00:00.000Z` of milliseconds since 1970.
pub(super) fn timestamp(time_ms: u64) -> String {
    let (days, rest_ms) = (time_ms / 86_400_000, time_ms % 86_400_000);
    // Civil calendar from a day number (Howard Hinnant's algorithm), in eras of
    // 400 years that begin on 1 March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        rest_ms / 3_600_000,
        rest_ms / 60_000 % 60,
        rest_ms / 1_000 % 60,
        rest_ms % 1_000
    )
}
