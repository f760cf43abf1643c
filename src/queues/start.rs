//! Start of the pipeline: restore what lasts, look at what the datapath holds,
//! decide what may be done before the sources have spoken.
//!
//! The restored repository is enforced at once where the kernel holds nothing;
//! where it enforces already, nothing is rebuilt until every source is in sync.

use std::collections::BTreeSet;
use std::sync::Arc;

use palisade_state::{BootRecord, GenerationRecord, GenerationsRecord, Store};
use parking_lot::RwLock;

use super::desk::{Desk, DeskError, DeskRecord, Done, JournalEvent};
use super::endpoint_worker::EndpointWorker;
use super::event_queue::EventQueue;
use super::known::Known;
use super::pipeline::PipelineOptions;
use super::reaction_worker::ReactionWorker;
use super::repository_worker::RepositoryWorker;
use super::shared::{
    Audit, EndpointEvent, EndpointQueue, EndpointRoom, Shared, Signals, Snapshots,
};
use super::workers::Workers;
use crate::clock::Clock;
use crate::datapath::{Datapath, Realized};
use crate::endpoint::{
    Attempts, BuildPermits, Committer, CommitterParts, Endpoint, EndpointManager, GenerationNames,
    HOST_ENDPOINT, OfferBox, Published, policy_status,
};
use crate::events::{EndpointRegenerationEvent, RegenerationCause, Sequence};
use crate::limits::{ENDPOINT_QUEUE_MAX, FLUSH_ATTEMPTS_MAX, REPOSITORY_QUEUE_MAX};
use crate::policy::{Direction, PolicyOptions, PolicySnapshot, resolve};

/// A desk brought up from the store.
struct Restored {
    desk: Desk,
    /// The last event it has seen.
    applied: Sequence,
    /// Events since the snapshot.
    replayed: usize,
    /// What could not be restored.
    problems: Vec<String>,
}

/// Everything that `Pipeline` is made of.
pub(super) fn start(
    mut options: PipelineOptions,
    datapath: Box<dyn Datapath>,
    store: Store,
    clock: Arc<dyn Clock>,
) -> (Arc<Shared>, Known, Workers) {
    let audit_flag = std::mem::take(&mut options.policy.audit);
    let store = Arc::new(store);
    let mut restored = restore(&store, &options.policy);
    let realized = datapath.realized();
    let is_restored = restored.desk.was_open();
    let found = restored.desk.repository.revision();
    let counts_on = realized.filter(|realized| realized.revision > found);
    if let Some(realized) = counts_on {
        let desk = &mut restored.desk;
        desk.continue_from(realized.revision, &options.policy);
    }
    let known = restored.desk.known().clone();

    let audit = store.audit().unwrap_or_else(|error| {
        restored.problems.push(format!("audit options: {error}"));
        // Unknown is not off: a restart never begins to enforce by itself.
        palisade_state::AuditRecord {
            agent: palisade_state::AuditFlag::Enabled,
            ..Default::default()
        }
    });
    let records = store.generations().unwrap_or_default();
    let published = Arc::new(Published::new(Arc::clone(&clock), realized));
    let shared = share(
        &options,
        &store,
        &clock,
        published,
        &restored.desk,
        is_restored,
        Audit::new(audit_flag, audit),
    );
    tell(&shared, &restored, realized, &records);
    note_boot(&shared, &options.boot_id);

    open_journal(&shared, &mut restored, options.sources);
    adopt(&shared, realized, &records);
    first_builds(&shared, &restored, realized.is_none() && is_restored);

    // What cannot be read must not stand in the way of what follows it; and a
    // first revision that is not 1 must be known to the next start.
    let begin_anew = !restored.problems.is_empty() || counts_on.is_some();
    let mut workers = hire(
        &shared,
        restored,
        datapath,
        options.settings,
        options.build_permits,
    );
    if begin_anew {
        workers.repository.save_snapshot();
    }
    (shared, known, workers)
}

/// Snapshot and journal, or an empty repository and the reason.
fn restore(store: &Store, options: &PolicyOptions) -> Restored {
    let mut problems = Vec::new();
    let (mut desk, sequence) = match snapshot(store, options) {
        Ok(Some(found)) => found,
        Ok(None) => (Desk::new(options.clone()), 0),
        Err(error) => {
            problems.push(error.to_string());
            (Desk::new(options.clone()), store.appended())
        }
    };
    let mut applied = Sequence(sequence);
    let mut replayed = 0;
    match store.journal::<JournalEvent>() {
        Ok(replay) => {
            problems.extend(replay.problem);
            for (sequence, event) in replay.events {
                if sequence > applied.0 {
                    applied = Sequence(sequence);
                    replayed += 1;
                    desk.take(applied, event);
                }
            }
        }
        Err(error) => problems.push(format!("journal: {error}")),
    }
    Restored {
        desk,
        applied,
        replayed,
        problems,
    }
}

fn snapshot(store: &Store, options: &PolicyOptions) -> Result<Option<(Desk, u64)>, DeskError> {
    let Some(snapshot) = store.load_snapshot()? else {
        return Ok(None);
    };
    let record: DeskRecord = serde_json::from_slice(&snapshot.bytes)?;
    let desk = Desk::import(record, options.clone())?;
    Ok(Some((desk, snapshot.sequence)))
}

fn share(
    options: &PipelineOptions,
    store: &Arc<Store>,
    clock: &Arc<dyn Clock>,
    published: Arc<Published>,
    desk: &Desk,
    is_restored: bool,
    audit: Audit,
) -> Arc<Shared> {
    let signals = Signals::default();
    let wake = Arc::default();
    let had_record = matches!(store.endpoint(HOST_ENDPOINT.0), Ok(Some(_)));
    let endpoint = Arc::new(Endpoint::host(
        HOST_ENDPOINT,
        had_record,
        options.facts.clone(),
        Arc::clone(clock),
        Arc::clone(&wake),
    ));
    let newest = desk.repository.snapshot();
    endpoint.desire(newest.revision);
    endpoint.set_labels(Arc::clone(&newest.host_labels));
    let queue: EndpointQueue = EventQueue::new(
        format!("endpoint-{HOST_ENDPOINT}"),
        ENDPOINT_QUEUE_MAX,
        Arc::clone(clock),
        wake,
        Some(Arc::clone(&signals.reaction)),
    );
    let buildable = is_restored.then(|| Arc::clone(&newest));
    Arc::new(Shared {
        clock: Arc::clone(clock),
        store: Arc::clone(store),
        published,
        endpoints: Arc::new(EndpointManager::new([Arc::clone(&endpoint)])),
        rooms: vec![EndpointRoom {
            endpoint,
            queue: Arc::new(queue),
        }],
        changes: EventQueue::new(
            "repository-change-queue",
            REPOSITORY_QUEUE_MAX,
            Arc::clone(clock),
            Arc::clone(&signals.repository),
            None,
        ),
        reactions: EventQueue::new(
            "repository-reaction-queue",
            REPOSITORY_QUEUE_MAX,
            Arc::clone(clock),
            Arc::clone(&signals.reaction),
            Some(Arc::clone(&signals.repository)),
        ),
        snapshots: RwLock::new(Snapshots { newest, buildable }),
        waiting: RwLock::new(options.sources.clone()),
        audit,
        signals,
    })
}

/// What was found, for the history.
fn tell(
    shared: &Shared,
    restored: &Restored,
    realized: Option<Realized>,
    records: &GenerationsRecord,
) {
    let revision = restored.desk.repository.revision();
    let record = |event: &str, subject: &str, message: String| {
        shared
            .published
            .record(event, None, revision, subject, message);
    };
    for problem in shared.store.problem().iter().chain(&restored.problems) {
        record("store-problem", "store", problem.clone());
    }
    let kernel = match realized {
        Some(realized) => format!(
            "the kernel enforces revision {} by generation {}",
            realized.revision, realized.generation.0
        ),
        None => "the kernel enforces nothing".to_owned(),
    };
    record(
        "start",
        "agent",
        format!(
            "repository restored at revision {revision} from {} journal events; {kernel}",
            restored.replayed
        ),
    );
    if let Some(staged) = records.staged {
        let word = if realized.is_some_and(|realized| same(realized, staged)) {
            "had been committed"
        } else {
            "had not been committed and is dropped"
        };
        record(
            "start",
            &format!("generation {}", staged.generation),
            format!(
                "staged for revision {} when the agent ended; it {word}",
                staged.revision
            ),
        );
    }
}

fn same(realized: Realized, record: GenerationRecord) -> bool {
    realized.generation.0 == record.generation && realized.revision.0 == record.revision
}

/// Generations of an earlier boot are void.
fn note_boot(shared: &Shared, boot_id: &str) {
    let store = &shared.store;
    let before = store.boot().ok().flatten();
    if before.as_ref().is_some_and(|boot| boot.boot_id == boot_id) {
        return;
    }
    let boot = BootRecord {
        boot_id: boot_id.to_owned(),
    };
    let noted = store
        .put_generations(&GenerationsRecord::default())
        .and_then(|()| store.put_boot(&boot));
    if let Err(error) = noted {
        tracing::warn!("the boot could not be noted: {error}");
    }
    if before.is_some() {
        let revision = shared.snapshots.read().newest.revision;
        shared
            .published
            .record("reboot", None, revision, "node", "the node was booted anew");
    }
}

/// Journals that the agent started: from here on, sources must speak again.
fn open_journal(
    shared: &Shared,
    restored: &mut Restored,
    sources: BTreeSet<crate::events::SourceName>,
) {
    let event = JournalEvent::Started { sources };
    let sequence = match shared.store.append(&event) {
        Ok(sequence) => sequence,
        Err(error) => {
            shared.store.abandon(&error.to_string());
            shared.store.appended()
        }
    };
    let mut flushes = Attempts::default();
    for _ in 0..FLUSH_ATTEMPTS_MAX {
        if flushes.flush(&shared.store).is_ok() {
            break;
        }
    }
    restored.applied = Sequence(sequence);
    restored.replayed += 1;
    let done = restored.desk.take(restored.applied, event);
    let newest = restored.desk.repository.snapshot();
    let mut snapshots = shared.snapshots.write();
    if done.contains(&Done::GateOpened) {
        snapshots.buildable = Some(Arc::clone(&newest));
    }
    snapshots.newest = newest;
    *shared.waiting.write() = restored.desk.waiting().clone();
}

/// Takes over what the kernel enforces, if the records say that it is ours.
fn adopt(shared: &Shared, realized: Option<Realized>, records: &GenerationsRecord) {
    let Some(realized) = realized else { return };
    let snapshot = Arc::clone(&shared.snapshots.read().newest);
    let ours = [records.realized, records.staged]
        .into_iter()
        .flatten()
        .any(|record| same(realized, record));
    if !ours || realized.revision > snapshot.revision {
        return;
    }
    for endpoint in shared.endpoints.iter() {
        let audit = shared.audit.effective(endpoint.id());
        let Ok(policy) = resolve(&snapshot, endpoint.subject(), audit) else {
            continue;
        };
        endpoint.adopt(realized.revision, policy_status(&policy));
        if realized.revision == snapshot.revision {
            shared
                .published
                .commit(realized, names(realized, &snapshot, &policy));
        }
    }
}

fn names(
    realized: Realized,
    snapshot: &Arc<PolicySnapshot>,
    policy: &crate::policy::EndpointPolicy,
) -> GenerationNames {
    GenerationNames {
        generation: realized.generation,
        revision: realized.revision,
        rules: policy.rules.clone(),
        enforcing: Direction::BOTH.map(|direction| policy.direction(direction).enforcing.clone()),
        snapshot: Arc::clone(snapshot),
    }
}

/// Asks for the builds that need not wait for anybody.
fn first_builds(shared: &Shared, restored: &Restored, unprotected: bool) {
    if !unprotected && !restored.desk.is_open() {
        return;
    }
    let revision = shared.snapshots.read().newest.revision;
    for room in &shared.rooms {
        let event = EndpointRegenerationEvent {
            endpoint: room.endpoint.id(),
            revision,
            causes: BTreeSet::from([RegenerationCause::EndpointRestored]),
        };
        // The queue is new and empty.
        let _ = room.queue.try_enqueue(EndpointEvent::Regenerate(event));
    }
}

fn hire(
    shared: &Arc<Shared>,
    restored: Restored,
    datapath: Box<dyn Datapath>,
    settings: crate::datapath::DatapathSettings,
    build_permits: usize,
) -> Workers {
    let permits = BuildPermits::new(build_permits);
    let offers = Arc::new(OfferBox::new(Arc::clone(&shared.signals.committer)));
    let parts = CommitterParts {
        offers: Arc::clone(&offers),
        endpoints: Arc::clone(&shared.endpoints),
        published: Arc::clone(&shared.published),
        store: Arc::clone(&shared.store),
        settings: Arc::new(settings),
    };
    let endpoints = shared
        .rooms
        .iter()
        .map(|room| {
            EndpointWorker::new(
                Arc::clone(shared),
                Arc::clone(&room.endpoint),
                Arc::clone(&room.queue),
                Arc::clone(&permits),
                Arc::clone(&offers),
            )
        })
        .collect();
    Workers {
        repository: RepositoryWorker::new(
            Arc::clone(shared),
            restored.desk,
            restored.applied,
            restored.replayed,
        ),
        reaction: ReactionWorker::new(Arc::clone(shared)),
        endpoints,
        committer: Committer::new(datapath, parts, Arc::clone(&shared.clock)),
    }
}
