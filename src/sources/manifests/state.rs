//! What each file holds, and which changes follow. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::events::{RepositoryChange, Resource, ResourceKey, SourceName};
use crate::policy::documents::{self, FileReading, Positions};
use crate::sources::SourceProblem;

/// What was seen of one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Observation {
    /// Its bytes.
    Content(Vec<u8>),
    /// It is there, but cannot be read.
    Unreadable(String),
    /// It is not there any more.
    Gone,
}

/// A resource, and where its fields stand (not known of a restored one).
#[derive(Debug)]
struct Held {
    resource: Resource,
    positions: Positions,
}

/// One file: what it holds, the last readable version of each resource.
#[derive(Debug, Default)]
struct FileState {
    resources: Vec<Held>,
    problems: Vec<SourceProblem>,
}

/// All files, and what was told about them.
#[derive(Debug, Default)]
pub struct ManifestState {
    files: BTreeMap<PathBuf, FileState>,
    told: BTreeMap<ResourceKey, Resource>,
    conflicts: Vec<SourceProblem>,
}

impl ManifestState {
    /// The state that an earlier life of the agent left: so that a file which
    /// is broken now keeps what it held then.
    #[must_use]
    pub fn restore(resources: impl IntoIterator<Item = Resource>) -> Self {
        let mut state = Self::default();
        for resource in resources {
            let path = PathBuf::from(&resource.origin.file);
            state.told.insert(resource.key.clone(), resource.clone());
            let file = state.files.entry(path).or_default();
            file.resources.push(Held {
                resource,
                positions: Positions::default(),
            });
        }
        state
    }

    /// Takes in what was seen of one file. Call [`Self::settle`] after all
    /// files of one look, so that a resource may move from file to file.
    pub fn observe(&mut self, path: &Path, observation: Observation) {
        match observation {
            Observation::Gone => {
                self.files.remove(path);
            }
            Observation::Unreadable(reason) => {
                let file = self.files.entry(path.to_owned()).or_default();
                file.problems = vec![SourceProblem {
                    subject: path.display().to_string(),
                    message: with_kept(&reason, &file.resources),
                }];
            }
            Observation::Content(bytes) => {
                let name = path.display().to_string();
                let reading = documents::read(&name, &bytes, SourceName::Manifests);
                let file = self.files.entry(path.to_owned()).or_default();
                file.take(&name, reading);
            }
        }
    }

    /// The changes that make the repository equal to the files.
    pub fn settle(&mut self) -> Vec<RepositoryChange> {
        let (wanted, conflicts) = self.wanted();
        self.conflicts = conflicts;
        let mut changes = Vec::new();
        for (key, resource) in &wanted {
            if self.told.get(key) != Some(resource) {
                changes.push(RepositoryChange::Upsert(resource.clone()));
            }
        }
        for key in self.told.keys().filter(|key| !wanted.contains_key(*key)) {
            changes.push(RepositoryChange::Delete {
                key: key.clone(),
                source: SourceName::Manifests,
            });
        }
        self.told = wanted;
        changes
    }

    /// Each resource from the first file that holds it, and the others.
    fn wanted(&self) -> (BTreeMap<ResourceKey, Resource>, Vec<SourceProblem>) {
        let mut wanted: BTreeMap<ResourceKey, Resource> = BTreeMap::new();
        let mut conflicts = Vec::new();
        let held = self.files.values().flat_map(|file| &file.resources);
        for resource in held.map(|held| &held.resource) {
            if let Some(winner) = wanted.get(&resource.key) {
                let origin = &resource.origin;
                conflicts.push(SourceProblem {
                    subject: format!("{}:{}", origin.file, origin.line),
                    message: format!(
                        "{} stands in {}:{} too, which wins; remove or rename one of them",
                        resource.key, winner.origin.file, winner.origin.line
                    ),
                });
            } else {
                wanted.insert(resource.key.clone(), resource.clone());
            }
        }
        (wanted, conflicts)
    }

    /// Where the fields of a resource stand that was told.
    #[must_use]
    pub fn positions(&self, key: &ResourceKey) -> Option<&Positions> {
        let held = self.files.values().flat_map(|file| &file.resources);
        let mut found = held.filter(|held| held.resource.key == *key);
        found.next().map(|held| &held.positions)
    }

    /// Files that are known in `directory`.
    pub fn files_in<'a>(&'a self, directory: &'a Path) -> impl Iterator<Item = &'a PathBuf> + 'a {
        self.files
            .keys()
            .filter(move |path| path.parent() == Some(directory))
    }

    /// Files that are known, but lie in none of `directories` (any more).
    #[must_use]
    pub fn strays(&self, directories: &[PathBuf]) -> Vec<PathBuf> {
        self.files
            .keys()
            .filter(|path| {
                !directories
                    .iter()
                    .any(|directory| path.parent() == Some(directory))
            })
            .cloned()
            .collect()
    }

    /// Everything that is held, as of the last [`Self::settle`].
    #[must_use]
    pub fn keys(&self) -> BTreeSet<ResourceKey> {
        self.told.keys().cloned().collect()
    }

    /// Everything that could not be read or is there twice.
    #[must_use]
    pub fn problems(&self) -> Vec<SourceProblem> {
        let broken = self.files.values().flat_map(|file| &file.problems);
        broken.chain(&self.conflicts).cloned().collect()
    }
}

impl FileState {
    /// A document that cannot be read may be any of the resources that the file
    /// held and holds no more: they all stay.
    fn take(&mut self, name: &str, reading: FileReading) {
        let mut resources: Vec<Held> = reading
            .documents
            .into_iter()
            .map(|document| Held {
                resource: document.resource,
                positions: document.positions,
            })
            .collect();
        let mut kept = Vec::new();
        if !reading.errors.is_empty() {
            let read: BTreeSet<ResourceKey> = resources
                .iter()
                .map(|held| held.resource.key.clone())
                .collect();
            kept = std::mem::take(&mut self.resources);
            kept.retain(|held| !read.contains(&held.resource.key));
        }
        self.problems = reading
            .errors
            .iter()
            .map(|error| SourceProblem {
                subject: format!("{name}:{}:{}", error.line, error.column),
                message: with_kept(
                    &format!("document {}: {}", error.document + 1, error.reason),
                    &kept,
                ),
            })
            .collect();
        resources.extend(kept);
        self.resources = resources;
    }
}

fn with_kept(reason: &str, kept: &[Held]) -> String {
    if kept.is_empty() {
        return reason.to_owned();
    }
    let names: Vec<String> = kept
        .iter()
        .map(|held| held.resource.key.to_string())
        .collect();
    format!(
        "{reason}; the last valid version of {} stays in force",
        names.join(", ")
    )
}
