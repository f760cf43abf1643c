//! `palisade policy validate`: every error of every resource, offline.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::CliError;
use super::output::Output;
use crate::events::{RepositoryChange, ResourceKey, SourceName};
use crate::limits::MANIFEST_FILE_BYTES_MAX;
use crate::policy::language::FieldError;
use crate::policy::{Applied, PolicyOptions, Repository, documents};
use crate::sources::manifests::{read_capped, scan};

/// What is wrong in one place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Finding {
    file: String,
    /// One-based; 0 where unknown.
    line: usize,
    column: usize,
    /// Zero-based number of the document in the file.
    document: usize,
    resource: Option<String>,
    field: Option<String>,
    value: Option<String>,
    reason: String,
    suggestion: Option<String>,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        for part in [&self.resource, &self.field, &self.value]
            .into_iter()
            .flatten()
        {
            write!(f, "{part}: ")?;
        }
        f.write_str(&self.reason)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; {suggestion}")?;
        }
        Ok(())
    }
}

/// Everything that was found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) valid: bool,
    pub(super) files: usize,
    pub(super) resources: usize,
    pub(super) errors: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
}

pub(super) fn run(out: Output, paths: &[PathBuf], node: PolicyOptions) -> Result<(), CliError> {
    let mut repository = Repository::new(node);
    let report = check(paths, &mut repository)?;
    out.print(&report, report_text)?;
    if report.valid {
        Ok(())
    } else {
        let count = report.errors.len();
        let noun = if count == 1 { "error" } else { "errors" };
        Err(CliError::Failed(format!("{count} {noun}")))
    }
}

fn report_text(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.errors {
        text.push_str(&format!("{finding}\n"));
    }
    for finding in &report.warnings {
        text.push_str(&format!("warning: {finding}\n"));
    }
    if report.valid {
        text.push_str(&format!(
            "valid: {} resources in {} files\n",
            report.resources, report.files
        ));
    }
    text
}

/// Applies the manifests under `paths` to `repository`, as an agent would.
///
/// # Errors
/// When a path itself cannot be read.
pub(super) fn check(paths: &[PathBuf], repository: &mut Repository) -> Result<Report, CliError> {
    let mut report = Report::default();
    let mut owners: BTreeMap<ResourceKey, String> = BTreeMap::new();
    for file in files_of(paths)? {
        report.files += 1;
        let name = file.display().to_string();
        let bytes = match read_capped(&file, MANIFEST_FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) => {
                report.errors.push(whole_file(&name, &error.to_string()));
                continue;
            }
        };
        check_file(&name, &bytes, repository, &mut owners, &mut report);
    }
    report.valid = report.errors.is_empty();
    Ok(report)
}

fn check_file(
    name: &str,
    bytes: &[u8],
    repository: &mut Repository,
    owners: &mut BTreeMap<ResourceKey, String>,
    report: &mut Report,
) {
    let reading = documents::read(name, bytes, SourceName::Manifests);
    for error in reading.errors {
        report.errors.push(Finding {
            line: error.line,
            column: error.column,
            document: error.document,
            ..whole_file(name, &error.reason)
        });
    }
    for skipped in reading.skipped {
        report.warnings.push(Finding {
            line: skipped.line,
            document: skipped.document,
            resource: Some(format!("{}/{}", skipped.kind, skipped.name)),
            ..whole_file(name, &skipped.reason)
        });
    }
    for document in reading.documents {
        let resource = document.resource;
        report.resources += 1;
        let place = Finding {
            line: resource.origin.line,
            column: 1,
            document: resource.origin.document,
            resource: Some(resource.key.to_string()),
            ..whole_file(name, "")
        };
        if let Some(owner) = owners.get(&resource.key) {
            let reason = format!("the same resource stands in {owner}, which wins");
            report.errors.push(Finding { reason, ..place });
            continue;
        }
        owners.insert(resource.key.clone(), name.to_owned());
        match repository.apply(&RepositoryChange::Upsert(resource)) {
            Applied::Unchanged => {}
            Applied::Refused(mut refusal) => {
                document.positions.locate(&mut refusal.errors);
                let found = refusal.errors.into_iter().map(|e| at(&place, e));
                report.errors.extend(found);
            }
            Applied::Changed(mut change) => {
                document.positions.locate(&mut change.warnings);
                let found = change.warnings.into_iter().map(|e| at(&place, e));
                report.warnings.extend(found);
            }
        }
    }
}

fn at(place: &Finding, error: FieldError) -> Finding {
    Finding {
        line: error.line.unwrap_or(place.line),
        column: error.column.unwrap_or(place.column),
        field: Some(error.path).filter(|path| !path.is_empty()),
        value: error.value,
        reason: error.reason,
        suggestion: error.suggestion,
        ..place.clone()
    }
}

fn whole_file(name: &str, reason: &str) -> Finding {
    Finding {
        file: name.to_owned(),
        line: 0,
        column: 0,
        document: 0,
        resource: None,
        field: None,
        value: None,
        reason: reason.to_owned(),
        suggestion: None,
    }
}

/// The files that the paths name: a directory stands for its manifests.
pub(super) fn files_of(paths: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    let mut files = Vec::new();
    for path in paths {
        let unreadable = |error: &std::io::Error, at: &Path| {
            CliError::Failed(format!("{}: {error}", at.display()))
        };
        let about = std::fs::metadata(path).map_err(|error| unreadable(&error, path))?;
        if about.is_dir() {
            files.extend(scan(path).map_err(|error| unreadable(&error, path))?);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}
