//! `palisade policy validate`: every error of every resource, offline.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::CliError;
use super::output::Output;
use crate::events::{RepositoryChange, Resource, ResourceKey, SourceName};
use crate::limits::{MANIFEST_ERRORS_MAX, MANIFEST_FILE_BYTES_MAX};
use crate::policy::advice::advise;
use crate::policy::documents::{self, Positions};
use crate::policy::language::{FieldError, Policy, read_policy};
use crate::policy::objects::{Object, read_object};
use crate::policy::{Applied, PolicyOptions, Repository};
use crate::sources::manifests::{read_capped, scan};

/// What is wrong in one place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Finding {
    file: String,
    /// One-based; the beginning where no place is known.
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
    /// Found, but not listed above: a file of nothing but errors must not
    /// fill the memory.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) errors_not_listed: usize,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) warnings_not_listed: usize,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Report {
    fn error(&mut self, finding: impl FnOnce() -> Finding) {
        list(&mut self.errors, &mut self.errors_not_listed, finding);
    }

    fn warn(&mut self, finding: impl FnOnce() -> Finding) {
        list(&mut self.warnings, &mut self.warnings_not_listed, finding);
    }
}

/// Adds what was found, or only counts it.
fn list(found: &mut Vec<Finding>, more: &mut usize, finding: impl FnOnce() -> Finding) {
    if found.len() < MANIFEST_ERRORS_MAX {
        found.push(finding());
    } else {
        *more += 1;
    }
}

/// What was read, for advice that needs all of it.
#[derive(Default)]
struct Run {
    /// The file of each resource.
    owners: BTreeMap<ResourceKey, String>,
    policies: Vec<(ResourceKey, Policy, Finding, Positions)>,
    objects: Vec<(ResourceKey, Object)>,
}

pub(super) fn run(out: Output, paths: &[PathBuf], options: PolicyOptions) -> Result<(), CliError> {
    let mut repository = Repository::new(options.clone());
    let mut run = Run::default();
    let mut report = read_all(paths, &mut repository, &mut run)?;
    for finding in advice(&run, &options) {
        report.warn(|| finding);
    }
    out.print(&report, report_text)?;
    if report.valid {
        Ok(())
    } else {
        let count = report.errors.len() + report.errors_not_listed;
        let noun = if count == 1 { "error" } else { "errors" };
        Err(CliError::Failed(format!("{count} {noun}")))
    }
}

/// What only all resources of the run together tell.
fn advice(run: &Run, options: &PolicyOptions) -> Vec<Finding> {
    let policies: Vec<_> = run
        .policies
        .iter()
        .map(|(key, policy, ..)| (key, policy))
        .collect();
    let objects: Vec<_> = run
        .objects
        .iter()
        .map(|(key, object)| (key, object))
        .collect();
    let mut of_resource: BTreeMap<ResourceKey, Vec<FieldError>> = BTreeMap::new();
    for advice in advise(&policies, &objects, options) {
        let warnings = of_resource.entry(advice.resource).or_default();
        warnings.push(advice.warning);
    }
    let mut findings = Vec::new();
    for (key, _, place, positions) in &run.policies {
        let mut warnings = of_resource.remove(key).unwrap_or_default();
        positions.locate(&mut warnings);
        findings.extend(warnings.into_iter().map(|warning| at(place, warning)));
    }
    findings
}

fn report_text(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.errors {
        text.push_str(&format!("{finding}\n"));
    }
    if report.errors_not_listed > 0 {
        let more = report.errors_not_listed;
        text.push_str(&format!(
            "and {more} more errors, not listed; correct these first\n"
        ));
    }
    for finding in &report.warnings {
        text.push_str(&format!("warning: {finding}\n"));
    }
    if report.warnings_not_listed > 0 {
        let more = report.warnings_not_listed;
        text.push_str(&format!("warning: and {more} more, not listed\n"));
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
    read_all(paths, repository, &mut Run::default())
}

fn read_all(
    paths: &[PathBuf],
    repository: &mut Repository,
    run: &mut Run,
) -> Result<Report, CliError> {
    let mut report = Report::default();
    for file in files_of(paths)? {
        report.files += 1;
        let name = file.display().to_string();
        let bytes = match read_capped(&file, MANIFEST_FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) => {
                report.error(|| whole_file(&name, &error.to_string()));
                continue;
            }
        };
        check_file(&name, &bytes, repository, run, &mut report);
    }
    report.valid = report.errors.is_empty();
    Ok(report)
}

fn check_file(
    name: &str,
    bytes: &[u8],
    repository: &mut Repository,
    run: &mut Run,
    report: &mut Report,
) {
    let reading = documents::read(name, bytes, SourceName::Manifests);
    for error in reading.errors {
        report.error(|| Finding {
            line: error.line,
            column: error.column,
            document: error.document,
            resource: error.resource,
            ..whole_file(name, &error.reason)
        });
    }
    for skipped in reading.skipped {
        report.warn(|| Finding {
            line: skipped.line,
            column: 1,
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
        if let Some(owner) = run.owners.get(&resource.key) {
            let reason = format!("the same resource stands in {owner}, which wins");
            report.error(|| Finding { reason, ..place });
            continue;
        }
        run.owners.insert(resource.key.clone(), name.to_owned());
        check_resource(resource, document.positions, place, repository, run, report);
    }
}

/// Reads one resource for all that it says wrong, then applies it as an agent
/// would, for what it needs.
fn check_resource(
    resource: Resource,
    positions: Positions,
    place: Finding,
    repository: &mut Repository,
    run: &mut Run,
    report: &mut Report,
) {
    let key = resource.key.clone();
    let found = |listed: usize, mut errors: Vec<FieldError>| {
        // What is only counted needs no place.
        if listed < MANIFEST_ERRORS_MAX && !errors.is_empty() {
            positions.locate(&mut errors);
        }
        errors.into_iter().map(|error| at(&place, error))
    };
    let (errors, warnings) = if key.kind.is_policy() {
        let reading = read_policy(&key, &resource.body.value());
        if let Some(policy) = reading.value {
            let known = (key, policy, place.clone(), positions.clone());
            run.policies.push(known);
        }
        (reading.errors, reading.warnings)
    } else {
        let reading = read_object(&key, &resource.body.value());
        run.objects
            .extend(reading.value.map(|object| (key, object)));
        (reading.errors, reading.warnings)
    };
    let valid = errors.is_empty();
    for finding in found(report.errors.len(), errors) {
        report.error(|| finding);
    }
    for finding in found(report.warnings.len(), warnings) {
        report.warn(|| finding);
    }
    let applied = repository.apply(&RepositoryChange::Upsert(resource));
    if let Applied::Refused(refusal) = applied
        && valid
    {
        for finding in found(report.errors.len(), refusal.errors) {
            report.error(|| finding);
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
        line: 1,
        column: 1,
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
