//! The repository as it was at an earlier revision: the nearest snapshot at or
//! before it, then the journal. Reads the store in small batches and touches
//! nothing that the pipeline works with.
//!
//! A revision's state is the last one that had its number: a refused resource or
//! a new comment changes the repository without a new revision.

use palisade_state::{Kept, Store};
use sha2::{Digest, Sha256};

use super::desk::{Circumstances, Desk, DeskError, DeskRecord, JournalEvent};
use crate::events::{Revision, Sequence};
use crate::policy::{Direction, EndpointPolicy, PolicyOptions, Repository};

/// Why a revision cannot be had.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PastError {
    #[error("revision {asked} is not there yet; the newest is {newest}")]
    NotYet { asked: Revision, newest: Revision },
    #[error("revision {asked} is no longer kept; the oldest one kept is {oldest}")]
    Gone { asked: Revision, oldest: Revision },
    #[error("revision {asked} is not kept: {problem}")]
    Forgotten { asked: Revision, problem: String },
    #[error("revision {asked} cannot be rebuilt: {problem}")]
    Lost { asked: Revision, problem: String },
    #[error("other old revisions are being rebuilt; try again")]
    Busy,
}

/// An agent as it was at a revision.
#[derive(Clone, Debug)]
pub struct PastState {
    pub repository: Repository,
    /// Audit options and endpoints.
    pub circumstances: Circumstances,
}

/// Times that a replay begins again because its snapshot left meanwhile.
const ATTEMPTS_MAX: u32 = 3;

/// The agent at revision `asked`. `options` count where the store does not
/// tell with which ones the agent ran.
pub fn rebuild(
    store: &Store,
    asked: Revision,
    options: &PolicyOptions,
) -> Result<PastState, PastError> {
    let mut attempt = 1;
    loop {
        let kept = store.snapshots();
        let outcome = rebuild_from(store, &kept, asked, options);
        let base = |kept: &[Kept]| kept.first().map(|kept| kept.sequence);
        let has_left = base(&store.snapshots()) != base(&kept);
        match outcome {
            Err(PastError::Lost { .. }) if has_left && attempt < ATTEMPTS_MAX => attempt += 1,
            outcome => return outcome,
        }
    }
}

fn rebuild_from(
    store: &Store,
    kept: &[Kept],
    asked: Revision,
    options: &PolicyOptions,
) -> Result<PastState, PastError> {
    let lost = |problem: String| PastError::Lost { asked, problem };
    if kept.is_empty() {
        if let Some(problem) = store.problem() {
            return Err(PastError::Forgotten { asked, problem });
        }
        let desk = Desk::new(first_options(store).unwrap_or_else(|| options.clone()));
        return Replay::new(desk, asked).run(store, 0, u64::MAX);
    }
    let mut nearest = kept
        .iter()
        .rposition(|kept| kept.revision <= asked.0)
        .ok_or_else(|| PastError::Gone {
            asked,
            oldest: Revision(kept[0].revision),
        })?;
    let end = kept[nearest + 1..].iter().find(|kept| kept.begins);
    let end = end.map_or(u64::MAX, |kept| kept.sequence);
    let desk = loop {
        match load(store, &kept[nearest], options) {
            Ok(desk) => break desk,
            // The one before it and a longer replay give the same.
            Err(_) if nearest > 0 && !kept[nearest].begins => nearest -= 1,
            Err(error) => return Err(lost(error.to_string())),
        }
    };
    if desk.repository.revision() > asked {
        let oldest = desk.repository.revision();
        return Err(PastError::Gone { asked, oldest });
    }
    Replay::new(desk, asked).run(store, kept[nearest].sequence, end)
}

/// The options of the agent's first start, if the journal still begins there.
fn first_options(store: &Store) -> Option<PolicyOptions> {
    let batch = store.events_after::<JournalEvent>(0).ok()?;
    match batch.events.into_iter().next()? {
        (_, JournalEvent::Started { options, .. }) => options.map(|options| *options),
        (
            _,
            JournalEvent::Change { .. } | JournalEvent::InSync { .. } | JournalEvent::Audit { .. },
        ) => None,
    }
}

/// The desk of a snapshot.
pub(super) fn load(store: &Store, kept: &Kept, options: &PolicyOptions) -> Result<Desk, DeskError> {
    let snapshot = store.snapshot(kept)?;
    let record: DeskRecord = serde_json::from_slice(&snapshot.bytes)?;
    Desk::import(record, options)
}

struct Replay {
    desk: Desk,
    asked: Revision,
    found: Option<PastState>,
}

impl Replay {
    fn new(desk: Desk, asked: Revision) -> Self {
        let mut replay = Self {
            desk,
            asked,
            found: None,
        };
        replay.look();
        replay
    }

    /// Notes the state if it is of the revision.
    fn look(&mut self) {
        if self.desk.repository.revision() == self.asked {
            self.found = Some(PastState {
                repository: self.desk.repository.clone(),
                circumstances: self.desk.circumstances().clone(),
            });
        }
    }

    /// Takes the events after `sequence` and before `end`, until a later
    /// revision comes.
    fn run(mut self, store: &Store, sequence: u64, end: u64) -> Result<PastState, PastError> {
        let asked = self.asked;
        let lost = |problem: String| PastError::Lost { asked, problem };
        let mut sequence = sequence;
        loop {
            let batch = store
                .events_after::<JournalEvent>(sequence)
                .map_err(|error| lost(error.to_string()))?;
            let is_last = batch.events.is_empty();
            for (number, event) in batch.events {
                if number >= end {
                    return self.finish(Some("the events that led to it were damaged".to_owned()));
                }
                self.take(number, event);
                if self.desk.repository.revision() > asked {
                    return self.finish(None);
                }
                sequence = number;
            }
            if batch.problem.is_some() {
                return self.finish(batch.problem);
            }
            if is_last {
                return self.finish(None);
            }
        }
    }

    fn take(&mut self, number: u64, event: JournalEvent) {
        let (asked, found) = (self.asked, &mut self.found);
        let circumstances = self.desk.circumstances().clone();
        self.desk
            .take_seeing(Sequence(number), event, &mut |repository| {
                if repository.revision() == asked {
                    *found = Some(PastState {
                        repository: repository.clone(),
                        circumstances: circumstances.clone(),
                    });
                }
            });
        self.look();
    }

    fn finish(self, problem: Option<String>) -> Result<PastState, PastError> {
        let (asked, reached) = (self.asked, self.desk.repository.revision());
        match (self.found, problem) {
            (Some(state), _) => Ok(state),
            (None, Some(problem)) => Err(PastError::Lost { asked, problem }),
            (None, None) if reached < asked => Err(PastError::NotYet {
                asked,
                newest: reached,
            }),
            (None, None) => Err(PastError::Lost {
                asked,
                problem: format!("the count went on at {reached}"),
            }),
        }
    }
}

/// SHA-256 of the verdict tables of an endpoint: equal if and only if the
/// verdicts and the rule numbers in them are.
#[must_use]
pub fn fingerprint(policy: &EndpointPolicy) -> String {
    let mut hash = Sha256::new();
    for direction in Direction::BOTH {
        let of = policy.direction(direction);
        hash.update([u8::from(of.enforced), u8::from(of.audit)]);
        for key in &of.enforcing {
            hash.update(key.to_string().as_bytes());
            hash.update([0]);
        }
        let (rows, of_index) = of.table.different_rows();
        let lengths = [of_index.len(), rows.len()];
        hash.update(
            lengths
                .map(|length| length as u64)
                .map(u64::to_le_bytes)
                .concat(),
        );
        let mut bytes = Vec::new();
        for row in of_index {
            bytes.extend(row.to_le_bytes());
        }
        hash.update(&bytes);
        for row in rows
            .into_iter()
            .chain([&of.table.denied, &of.table.everyone])
        {
            bytes.clear();
            for (run, cell) in row.runs() {
                bytes.extend(run.end.to_le_bytes());
                bytes.extend(cell.0.to_le_bytes());
            }
            hash.update(&bytes);
        }
    }
    let digest = hash.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[path = "past_tests.rs"]
mod tests;
