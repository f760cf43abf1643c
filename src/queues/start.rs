//! Start of the pipeline: restore what lasts, look at what the datapath holds,
//! decide what may be done before the sources have spoken.
//!
//! The restored repository is enforced at once where the kernel holds nothing,
//! and where the kernel enforces an older revision of it, and so is what comes
//! later: what was acknowledged waits for no source. Where the kernel enforces
//! what this store does not know, or a source was cut off while it told, nothing
//! is rebuilt until every source is in sync.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use palisade_state::{
    AuditFlag, AuditRecord, BootRecord, GenerationRecord, GenerationsRecord, Store, StoreError,
};
use parking_lot::{Mutex, RwLock};

use super::desk::{Desk, Done, JournalEvent};
use super::endpoint_worker::EndpointWorker;
use super::event_queue::EventQueue;
use super::hold::hold;
use super::imports;
use super::known::Known;
use super::pipeline::PipelineOptions;
use super::reaction_worker::ReactionWorker;
use super::repository_worker::RepositoryWorker;
use super::restore::{Restored, restore};
use super::shared::{
    Audit, EndpointEvent, EndpointQueue, EndpointRoom, Shared, Signals, Snapshots,
};
use super::told::Telling;
use super::workers::Workers;
use crate::clock::Clock;
use crate::datapath::{Datapath, Realized};
use crate::endpoint::{
    Attempts, BuildPermits, Committer, CommitterParts, Endpoint, EndpointManager, GenerationNames,
    HOST_ENDPOINT, OfferBox, Published, endpoint_record, found_status,
};
use crate::events::{EndpointRegenerationEvent, RegenerationCause, Revision, Sequence, SourceName};
use crate::limits::{ENDPOINT_QUEUE_MAX, FLUSH_ATTEMPTS_MAX, REPOSITORY_QUEUE_MAX};
use crate::policy::{Direction, PolicyOptions, PolicySnapshot, resolve};

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
    let is_whole = restored.desk.is_whole();
    let found = restored.desk.repository.revision();
    if let Some(ahead) = realized.filter(|realized| realized.revision > found) {
        restored.count_on(ahead.revision);
    }
    let audit = store.audit();
    let is_trusted = !restored.is_broken && audit.is_ok();
    let audit = audit.unwrap_or_else(|error| unknown_audit(&mut restored, &error));
    let records = records_of_boot(&store, &options.boot_id);
    let published = Published::new(Arc::clone(&clock), Arc::clone(&store), realized);
    let published = Arc::new(published);
    let shared = share(
        &options,
        &store,
        &clock,
        published,
        &restored.desk,
        is_restored,
        Audit::new(audit_flag, audit),
    );
    tell(&shared, &mut restored, realized, &records);
    note_boot(&shared, &options.boot_id);

    let before = Arc::clone(&shared.snapshots.read().newest);
    open_journal(&shared, &mut restored, options.sources, options.policy);
    let known = restored.desk.known().clone();
    let adopted = adopt(&shared, &before, realized, &records);
    let is_due = match adopted {
        None => is_restored && realized.is_none(),
        Some(found) => is_trusted && is_whole && found.is_behind(&shared, &before),
    };
    if !hold(&shared, realized) {
        first_builds(&shared, &restored, &before, is_due);
    }
    let may_go_ahead = is_trusted && (adopted.is_some() || realized.is_none());

    // What cannot be read must not stand in the way of what follows it; and a
    // first revision that is not 1 must be known to the next start.
    let begin_anew = restored.is_broken;
    // The past that is kept begins with a snapshot.
    let wants_snapshot = shared.store.snapshots().is_empty() || !restored.problems.is_empty();
    let mut workers = hire(
        &shared,
        restored,
        datapath,
        options.settings,
        options.build_permits,
        may_go_ahead,
    );
    if begin_anew {
        workers.repository.begin_anew();
    } else if wants_snapshot {
        workers.repository.save_snapshot();
    }
    (shared, known, workers)
}

/// Unknown is not off: a restart never begins to enforce by itself.
fn unknown_audit(restored: &mut Restored, error: &StoreError) -> AuditRecord {
    restored.problems.push(format!("audit options: {error}"));
    AuditRecord {
        agent: AuditFlag::Enabled,
        ..Default::default()
    }
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
        snapshots: RwLock::new(Snapshots {
            newest,
            buildable,
            ahead: None,
            held: None,
        }),
        waiting: RwLock::new(options.sources.clone()),
        options_wait: AtomicBool::new(false),
        audit,
        flushing_since: Mutex::default(),
        signals,
    })
}

/// What was found, for the history.
fn tell(
    shared: &Shared,
    restored: &mut Restored,
    realized: Option<Realized>,
    records: &GenerationsRecord,
) {
    for entry in std::mem::take(&mut restored.untold) {
        shared.published.enter(entry);
    }
    let revision = restored.desk.repository.revision();
    let record = |event: &str, subject: &str, message: String| {
        shared.published.record(event, revision, subject, message);
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
    let of_revision = match record.nonce {
        // Found right for a later revision, too, when the record had yet to follow.
        Some(nonce) => nonce == realized.nonce && realized.revision.0 >= record.revision,
        None => realized.revision.0 == record.revision,
    };
    realized.generation.0 == record.generation && of_revision
}

/// Generations of an earlier boot are void: numbers begin anew with each.
fn records_of_boot(store: &Store, boot_id: &str) -> GenerationsRecord {
    match store.boot() {
        Ok(Some(boot)) if boot.boot_id == boot_id => store.generations().unwrap_or_default(),
        Ok(_) | Err(_) => GenerationsRecord::default(),
    }
}

/// Voids the records of an earlier boot on the disk, too.
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
            .record("reboot", revision, "node", "the node was booted anew");
    }
}

/// Journals that the agent started: from here on, sources must speak again.
/// Where the kernel enforces, options of this start count when they have: the
/// policies that go with these may be among what they tell.
fn open_journal(
    shared: &Shared,
    restored: &mut Restored,
    sources: BTreeSet<SourceName>,
    options: PolicyOptions,
) {
    let event = JournalEvent::Started {
        sources,
        options: Some(Box::new(options)),
        options_wait: shared.published.realized().is_some(),
        audit: Some(shared.audit.state()),
        endpoints: shared
            .endpoints
            .iter()
            .map(|one| endpoint_record(one))
            .collect(),
        accepted_ms: shared.clock.wall_ms(),
    };
    let is_lost = restored.is_lost();
    let done = enter(shared, restored, event);
    if is_lost {
        bring_back_imports(shared, restored);
    }
    let mut flushes = Attempts::default();
    for _ in 0..FLUSH_ATTEMPTS_MAX {
        if flushes.flush(&shared.store).is_ok() {
            break;
        }
    }
    if restored.desk.has_next_options() {
        let revision = restored.desk.repository.revision();
        shared.options_wait.store(true, Ordering::SeqCst);
        let message = "other options than before; they count when every source is in sync";
        shared.published.record("start", revision, "agent", message);
    }
    let gate_opened = done.contains(&Done::GateOpened);
    let newest = restored.desk.repository.snapshot();
    let mut snapshots = shared.snapshots.write();
    if gate_opened || (shared.published.realized().is_none() && snapshots.buildable.is_some()) {
        snapshots.buildable = Some(Arc::clone(&newest));
    }
    for endpoint in shared.endpoints.iter() {
        endpoint.desire(newest.revision);
        endpoint.set_labels(Arc::clone(&newest.host_labels));
    }
    snapshots.newest = newest;
    *shared.waiting.write() = restored.desk.waiting().clone();
}

/// What an operator brought, no source tells again.
fn bring_back_imports(shared: &Shared, restored: &mut Restored) {
    let (changes, mut told) = match imports::lost(&shared.store, restored.desk.known()) {
        Ok(found) => found,
        Err(error) => (Vec::new(), vec![error.to_string()]),
    };
    if !changes.is_empty() {
        let count = changes.len();
        told.push(format!(
            "the journal had lost {count} imported resources; they are taken from imports/"
        ));
    }
    for change in changes {
        let accepted_ms = shared.clock.wall_ms();
        enter(
            shared,
            restored,
            JournalEvent::Change {
                accepted_ms,
                change,
            },
        );
    }
    let revision = restored.desk.repository.revision();
    for message in told {
        let published = &shared.published;
        published.record("store-problem", revision, "store", message);
    }
}

/// Appends an event and acts on it.
fn enter(shared: &Shared, restored: &mut Restored, event: JournalEvent) -> Vec<Done> {
    restored.applied = append(&shared.store, &event);
    restored.replayed += 1;
    let revision = restored.desk.repository.revision();
    let telling = Telling::new(restored.applied, &event, revision);
    let done = restored.desk.take(restored.applied, event);
    for entry in telling.entries(&done) {
        shared.published.enter(entry);
    }
    done
}

/// A store that cannot be written to takes it into memory.
fn append(store: &Store, event: &JournalEvent) -> Sequence {
    let appended = store.append(event).or_else(|error| {
        store.suspend(&error.to_string());
        store.append(event)
    });
    Sequence(appended.unwrap_or_else(|_| store.appended()))
}

/// What the kernel enforces, where it is of this store.
#[derive(Clone, Copy)]
struct Adopted {
    revision: Revision,
    audit: bool,
}

impl Adopted {
    /// The last agent ended before all that it had acknowledged was enforced.
    fn is_behind(self, shared: &Shared, journal: &PolicySnapshot) -> bool {
        let mut endpoints = shared.endpoints.iter();
        self.revision < journal.revision
            || endpoints.any(|endpoint| shared.audit.effective(endpoint.id()) != self.audit)
    }
}

/// Takes over what the kernel enforces, if the records say that it is ours.
/// `snapshot`: the repository before this start brought options of its own.
fn adopt(
    shared: &Shared,
    snapshot: &Arc<PolicySnapshot>,
    realized: Option<Realized>,
    records: &GenerationsRecord,
) -> Option<Adopted> {
    let realized = realized?;
    let ours = [records.realized, records.staged]
        .into_iter()
        .flatten()
        .find(|record| same(realized, *record))?;
    if realized.revision > snapshot.revision {
        return None;
    }
    // What the kernel does, whatever was wanted when the last agent ended.
    let audit = ours.audit.unwrap_or_else(|| shared.audit.agent());
    for endpoint in shared.endpoints.iter() {
        endpoint.adopt(realized.revision, found_status(realized, audit));
        if realized.revision == snapshot.revision
            && let Ok(policy) = resolve(snapshot, endpoint.subject(), audit)
        {
            shared
                .published
                .commit(realized, names(realized, snapshot, &policy));
        }
    }
    Some(Adopted {
        revision: realized.revision,
        audit,
    })
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
        auditing: Direction::BOTH.map(|direction| policy.direction(direction).auditing.clone()),
        snapshot: Arc::clone(snapshot),
    }
}

/// Asks for the builds that need not wait for anybody. `is_due`: what the
/// journal held before this start waits for no source.
fn first_builds(shared: &Shared, restored: &Restored, journal: &PolicySnapshot, is_due: bool) {
    if !is_due && !restored.desk.is_open() {
        return;
    }
    let revision = {
        let mut snapshots = shared.snapshots.write();
        snapshots.ahead = is_due.then_some(journal.revision);
        snapshots.newest.revision
    };
    if is_due {
        let message = "enforced from the store now; no source is waited for";
        let told = &shared.published;
        told.record("start", journal.revision, "agent", message);
    }
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
    may_go_ahead: bool,
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
            may_go_ahead,
        ),
        reaction: ReactionWorker::new(Arc::clone(shared)),
        endpoints,
        committer: Committer::new(datapath, parts, Arc::clone(&shared.clock)),
    }
}
