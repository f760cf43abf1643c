//! What each source says about itself. Written by the source's thread, read by
//! the API and the metrics.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::events::{ResourceKey, ResourceKind, SourceName};
use crate::policy::documents::Positions;
use crate::policy::language::FieldError;

/// Something a source could not read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceProblem {
    /// File, directory or device, with the line where one is known.
    pub subject: String,
    pub message: String,
}

/// How far a source is with one kind of objects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KindReport {
    pub kind: ResourceKind,
    pub in_sync: bool,
    pub resources: usize,
    /// Why it is not in sync, or why there is nothing.
    pub detail: String,
}

/// The state of one source.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SourceReport {
    pub in_sync: bool,
    pub resources: usize,
    /// Where it reads from.
    pub detail: String,
    pub problems: Vec<SourceProblem>,
    /// What it leaves out on purpose.
    pub notes: Vec<SourceProblem>,
    /// Each kind, where the source hears them one by one.
    pub kinds: Vec<KindReport>,
}

/// The state of every source.
#[derive(Debug, Default)]
pub struct SourceBoard {
    reports: RwLock<BTreeMap<SourceName, SourceReport>>,
    places: RwLock<BTreeMap<ResourceKey, Arc<Place>>>,
}

/// A resource's text, and what was asked about it: who polls asks the same each
/// time, and finding a place reads the text.
#[derive(Debug)]
struct Place {
    positions: Positions,
    answers: Mutex<VecDeque<Answer>>,
}

/// Errors without and with their places.
type Answer = (Vec<FieldError>, Vec<FieldError>);

/// One for the warnings of the version in force, one for what is refused.
const ANSWERS_MAX: usize = 2;

impl Place {
    fn locate(&self, errors: &mut [FieldError]) {
        let mut answers = self.answers.lock();
        if let Some((_, located)) = answers.iter().find(|(asked, _)| asked == errors) {
            errors.clone_from_slice(located);
            return;
        }
        let asked = errors.to_vec();
        self.positions.locate(errors);
        if answers.len() == ANSWERS_MAX {
            answers.pop_front();
        }
        answers.push_back((asked, errors.to_vec()));
    }
}

impl SourceBoard {
    /// Replaces the report of a source.
    pub fn post(&self, source: SourceName, report: SourceReport) {
        self.reports.write().insert(source, report);
    }
    /// Remembers where the fields of a resource's newest version stand.
    pub fn place(&self, key: &ResourceKey, positions: Positions) {
        let place = Place {
            positions,
            answers: Mutex::default(),
        };
        self.places.write().insert(key.clone(), Arc::new(place));
    }
    /// Forgets a resource.
    pub fn forget(&self, key: &ResourceKey) {
        self.places.write().remove(key);
    }
    /// Fills in line and column of errors about a resource, where known.
    pub fn locate(&self, key: &ResourceKey, errors: &mut [FieldError]) {
        if errors.is_empty() {
            return;
        }
        let place = self.places.read().get(key).cloned();
        if let Some(place) = place {
            place.locate(errors);
        }
    }
    /// All reports.
    #[must_use]
    pub fn reports(&self) -> BTreeMap<SourceName, SourceReport> {
        self.reports.read().clone()
    }
}
