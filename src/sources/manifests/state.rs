//! What each file holds, and which changes follow. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::events::{RepositoryChange, Resource, ResourceKey, SourceName};
use crate::limits::MANIFEST_PROBLEMS_MAX;
use crate::policy::documents::{self, FileReading, Positions, Skipped};
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

/// A resource of a file.
#[derive(Debug)]
struct Held {
    resource: Arc<Resource>,
    /// Where its fields stand, until it was told.
    positions: Option<Positions>,
}

/// What follows from the files.
#[derive(Debug, Default)]
pub struct Settled {
    /// In the order in which to submit them.
    pub changes: Vec<RepositoryChange>,
    /// Where the fields of what was read again stand.
    pub places: Vec<(ResourceKey, Positions)>,
}

/// One file: what it holds, the last readable version of each resource.
#[derive(Debug, Default)]
struct FileState {
    resources: Vec<Held>,
    problems: Vec<SourceProblem>,
    /// What it holds besides, in one line.
    note: Option<SourceProblem>,
}

/// All files, and what was told about them.
#[derive(Debug, Default)]
pub struct ManifestState {
    files: BTreeMap<PathBuf, FileState>,
    told: BTreeMap<ResourceKey, Arc<Resource>>,
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
            let resource = Arc::new(resource);
            let told = Arc::clone(&resource);
            state.told.insert(resource.key.clone(), told);
            let file = state.files.entry(path).or_default();
            file.resources.push(Held {
                resource,
                positions: None,
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
    pub fn settle(&mut self) -> Settled {
        let mut settled = Settled::default();
        let wanted = self.wanted(&mut settled.places);
        for (key, resource) in &wanted {
            if !self
                .told
                .get(key)
                .is_some_and(|told| is_same(told, resource))
            {
                let resource = Resource::clone(resource);
                settled.changes.push(RepositoryChange::Upsert(resource));
            }
        }
        for key in self.told.keys().filter(|key| !wanted.contains_key(*key)) {
            settled.changes.push(RepositoryChange::Delete {
                key: key.clone(),
                source: SourceName::Manifests,
            });
        }
        self.told = wanted;
        settled
    }

    /// Each resource from the first file that holds it; the others are
    /// conflicts.
    fn wanted(
        &mut self,
        places: &mut Vec<(ResourceKey, Positions)>,
    ) -> BTreeMap<ResourceKey, Arc<Resource>> {
        let mut wanted: BTreeMap<ResourceKey, Arc<Resource>> = BTreeMap::new();
        self.conflicts.clear();
        for held in self.files.values_mut().flat_map(|file| &mut file.resources) {
            let resource = &held.resource;
            if let Some(winner) = wanted.get(&resource.key) {
                let origin = &resource.origin;
                self.conflicts.push(SourceProblem {
                    subject: format!("{}:{}", origin.file, origin.line),
                    message: format!(
                        "{} stands in {}:{} too, which wins; remove or rename one of them",
                        resource.key, winner.origin.file, winner.origin.line
                    ),
                });
            } else {
                let fresh = held.positions.take();
                places.extend(fresh.map(|positions| (resource.key.clone(), positions)));
                wanted.insert(resource.key.clone(), Arc::clone(resource));
            }
        }
        wanted
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

    /// Objects that are left out because of their kind, by file.
    #[must_use]
    pub fn notes(&self) -> Vec<SourceProblem> {
        let files = self.files.values();
        files.filter_map(|file| file.note.clone()).collect()
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
                resource: Arc::new(document.resource),
                positions: Some(document.positions),
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
        self.note = note_of(name, &reading.skipped);
        self.problems = reading
            .errors
            .iter()
            .take(MANIFEST_PROBLEMS_MAX)
            .map(|error| SourceProblem {
                subject: format!("{name}:{}:{}", error.line, error.column),
                message: with_kept(
                    &format!("document {}: {}", error.document + 1, error.reason),
                    &kept,
                ),
            })
            .collect();
        let more = reading.errors.len().saturating_sub(MANIFEST_PROBLEMS_MAX);
        if more > 0 {
            self.problems.push(SourceProblem {
                subject: name.to_owned(),
                message: format!("and {more} more; `palisade policy validate {name}` lists them"),
            });
        }
        resources.extend(kept);
        self.resources = resources;
    }
}

fn note_of(name: &str, skipped: &[Skipped]) -> Option<SourceProblem> {
    let first = skipped.first()?;
    let others = match skipped.len() - 1 {
        0 => String::new(),
        others => format!(" (and {others} more objects)"),
    };
    Some(SourceProblem {
        subject: format!("{name}:{}", first.line),
        message: format!(
            "{}/{} is left out: {}{others}",
            first.kind, first.name, first.reason
        ),
    })
}

fn is_same(told: &Arc<Resource>, wanted: &Arc<Resource>) -> bool {
    Arc::ptr_eq(told, wanted) || told == wanted
}

/// Names of kept resources in one message.
const KEPT_NAMES_MAX: usize = 20;

fn with_kept(reason: &str, kept: &[Held]) -> String {
    if kept.is_empty() {
        return reason.to_owned();
    }
    let names: Vec<String> = kept
        .iter()
        .take(KEPT_NAMES_MAX)
        .map(|held| held.resource.key.to_string())
        .collect();
    let others = match kept.len() - names.len() {
        0 => String::new(),
        others => format!(" and {others} more"),
    };
    format!(
        "{reason}; the last valid version of {}{others} stays in force",
        names.join(", ")
    )
}
