//! The single owner of the datapath: gathers the endpoint policies of one
//! revision into one generation and makes it current.
//!
//! Order (DESIGN 2, steps 6 to 8): stage; persist `staged`, flush; commit;
//! persist `realized`, flush; publish. Invariants: the unit of change is the
//! node, so nothing is staged until every endpoint has a policy that is right
//! for one common revision; a failure leaves the old generation enforcing.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdSet;
use palisade_state::{EndpointRecord, GenerationRecord, Store, StoreError};
use parking_lot::Mutex;

use super::endpoint::Endpoint;
use super::manager::EndpointManager;
use super::published::{GenerationNames, Published};
use super::signal::{Progress, Signal};
use super::status::{EndpointPolicyStatus, Enforcement};
use super::{flush, meters};
use crate::clock::Clock;
use crate::datapath::{Datapath, DatapathError, DatapathSettings, Generation, Realized};
use crate::events::{EndpointId, HistoryEntry, ResourceKey};
use crate::policy::{Direction, DirectionPolicy, EndpointPolicy, PolicySnapshot};

/// What an endpoint's worker hands over; one per endpoint at a time, since one
/// build is in flight.
#[derive(Clone, Debug)]
pub struct Offer {
    /// None: the policy that was handed over last is right for `snapshot` too.
    pub policy: Option<Arc<EndpointPolicy>>,
    pub snapshot: Arc<PolicySnapshot>,
}

/// Where offers wait for the committer. Bounded by the number of endpoints.
#[derive(Debug)]
pub struct OfferBox {
    offers: Mutex<BTreeMap<EndpointId, Offer>>,
    wake: Arc<Signal>,
}

impl OfferBox {
    /// An empty box; `wake` is the committer's.
    #[must_use]
    pub fn new(wake: Arc<Signal>) -> Self {
        Self {
            offers: Mutex::default(),
            wake,
        }
    }
    /// Puts an offer in.
    pub fn put(&self, endpoint: EndpointId, offer: Offer) {
        self.offers.lock().insert(endpoint, offer);
        self.wake.raise();
    }
}

/// What the committer works with.
#[derive(Debug)]
pub struct CommitterParts {
    pub offers: Arc<OfferBox>,
    pub endpoints: Arc<EndpointManager>,
    pub published: Arc<Published>,
    pub store: Arc<Store>,
    pub settings: Arc<DatapathSettings>,
}

/// The committer; its thread owns it.
pub struct Committer {
    datapath: Box<dyn Datapath>,
    parts: CommitterParts,
    clock: Arc<dyn Clock>,
    held: BTreeMap<EndpointId, Held>,
    flushes: flush::Attempts,
}

/// The newest policy of one endpoint and the revisions for which it is right.
#[derive(Debug)]
struct Held {
    policy: Arc<EndpointPolicy>,
    snapshot: Arc<PolicySnapshot>,
    /// Its worker waits for the outcome.
    waiting: bool,
}

/// Why a generation did not become current.
#[derive(Debug, thiserror::Error)]
enum CommitError {
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl std::fmt::Debug for Committer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committer")
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

impl Committer {
    /// A committer that has seen no policy yet.
    #[must_use]
    pub fn new(datapath: Box<dyn Datapath>, parts: CommitterParts, clock: Arc<dyn Clock>) -> Self {
        Self {
            datapath,
            parts,
            clock,
            held: BTreeMap::new(),
            flushes: flush::Attempts::default(),
        }
    }

    /// Takes the offers and, if they make a whole, makes it current.
    pub fn step(&mut self) -> Progress {
        let offers = std::mem::take(&mut *self.parts.offers.offers.lock());
        if offers.is_empty() {
            return Progress::IDLE;
        }
        for (id, offer) in offers {
            self.hold(id, offer);
        }
        let Some(snapshot) = self.common_snapshot() else {
            return Progress::Busy;
        };
        let generation = self.generation(&snapshot);
        let started = self.clock.now();
        let result = self.execute(&generation);
        let span = self.clock.now().since(started);
        meters::regeneration_time("commit", span, result.is_ok());
        match result {
            Ok((realized, written)) => self.publish(&generation, &snapshot, realized, written),
            Err(error) => self.refuse(&generation, &error.to_string()),
        }
        Progress::Busy
    }

    fn hold(&mut self, id: EndpointId, offer: Offer) {
        let Offer { policy, snapshot } = offer;
        match (policy, self.held.get_mut(&id)) {
            (Some(policy), _) => {
                let held = Held {
                    policy,
                    snapshot,
                    waiting: true,
                };
                self.held.insert(id, held);
            }
            (None, Some(held)) => {
                held.snapshot = snapshot;
                held.waiting = true;
            }
            (None, None) => {
                if let Some(endpoint) = self.parts.endpoints.get(id) {
                    endpoint.failed("nothing was built yet that could be kept");
                }
            }
        }
    }

    /// The newest snapshot for which every endpoint's policy is right.
    fn common_snapshot(&self) -> Option<Arc<PolicySnapshot>> {
        if self.held.len() < self.parts.endpoints.len() {
            return None;
        }
        let newest_build = self.held.values().map(|held| held.policy.revision).max()?;
        let common = self
            .held
            .values()
            .map(|held| &held.snapshot)
            .min_by_key(|snapshot| snapshot.revision)?;
        (newest_build <= common.revision).then(|| Arc::clone(common))
    }

    fn generation(&self, snapshot: &PolicySnapshot) -> Generation {
        Generation {
            revision: snapshot.revision,
            endpoints: self
                .held
                .values()
                .map(|held| Arc::clone(&held.policy))
                .collect(),
            ipcache4: snapshot.ipcache4.clone(),
            ipcache6: snapshot.ipcache6.clone(),
            settings: Arc::clone(&self.parts.settings),
        }
    }

    /// Makes it current. Also tells how much was written.
    fn execute(&mut self, generation: &Generation) -> Result<(Realized, usize), CommitError> {
        let audit = is_audited(generation);
        if let Some(current) = self.datapath.realized()
            && self.datapath.matches_current(generation)?
        {
            let realized = if current.revision == generation.revision {
                current
            } else {
                self.datapath.adopt(generation.revision)?
            };
            meters::written(0);
            self.persist_realized(realized, audit, &commit_message(realized, 0));
            return Ok((realized, 0));
        }
        let report = self.datapath.stage(generation)?;
        meters::written(report.writes);
        self.persist_staged(generation, report.nonce)?;
        let realized = self.datapath.commit()?;
        let message = commit_message(realized, report.writes);
        self.persist_realized(realized, audit, &message);
        Ok((realized, report.writes))
    }

    fn persist_staged(&mut self, generation: &Generation, nonce: u32) -> Result<(), StoreError> {
        let store = &self.parts.store;
        let mut record = store.generations().unwrap_or_default();
        let next = self
            .datapath
            .realized()
            .map_or(1, |realized| realized.generation.0.wrapping_add(1));
        record.staged = Some(GenerationRecord {
            generation: next,
            revision: generation.revision.0,
            audit: Some(is_audited(generation)),
            nonce: Some(nonce),
        });
        store.put_generations(&record)?;
        for endpoint in self.parts.endpoints.iter() {
            store.put_endpoint(&endpoint_record(endpoint))?;
        }
        self.flushes.flush(store)
    }

    /// The datapath enforces it, whatever the disk says: a failure is told and
    /// the next flush carries the record, and the line of the history.
    fn persist_realized(&mut self, realized: Realized, audit: bool, message: &str) {
        self.parts.published.enter(HistoryEntry {
            generation: Some(realized.generation.0),
            ..self.parts.published.entry(
                "commit",
                realized.revision,
                format!("generation {}", realized.generation.0),
                message,
            )
        });
        let store = &self.parts.store;
        let mut record = store.generations().unwrap_or_default();
        record.staged = None;
        record.realized = Some(GenerationRecord {
            generation: realized.generation.0,
            revision: realized.revision.0,
            audit: Some(audit),
            nonce: Some(realized.nonce),
        });
        let result = store
            .put_generations(&record)
            .and_then(|()| self.flushes.flush(store));
        if let Err(error) = result {
            tracing::warn!(
                "the record of generation {} waits: {error}",
                realized.generation.0
            );
        }
    }

    fn publish(
        &mut self,
        generation: &Generation,
        snapshot: &Arc<PolicySnapshot>,
        realized: Realized,
        written: usize,
    ) {
        let host = generation.endpoints.first();
        let of_host = |of: &dyn Fn(&DirectionPolicy) -> OrdSet<ResourceKey>| {
            Direction::BOTH.map(|direction| {
                host.map(|policy| of(policy.direction(direction)))
                    .unwrap_or_default()
            })
        };
        let names = GenerationNames {
            generation: realized.generation,
            revision: realized.revision,
            rules: host.map(|policy| policy.rules.clone()).unwrap_or_default(),
            enforcing: of_host(&|direction| direction.enforcing.clone()),
            auditing: of_host(&|direction| direction.auditing.clone()),
            snapshot: Arc::clone(snapshot),
        };
        let message = commit_message(realized, written);
        for (id, held) in &mut self.held {
            let Some(endpoint) = self.parts.endpoints.get(*id) else {
                continue;
            };
            held.waiting = false;
            let labels = Arc::clone(&snapshot.host_labels);
            let status = policy_status(&held.policy);
            let span = endpoint.realized(realized.revision, status, labels, &message);
            meters::regeneration_time("total", span, true);
        }
        // After the endpoints, so that who waits for it finds them done.
        self.parts.published.commit(realized, names);
    }

    fn refuse(&mut self, generation: &Generation, error: &str) {
        let message = format!("revision {} refused: {error}", generation.revision);
        self.parts.published.record(
            "commit-failed",
            generation.revision,
            "datapath",
            message.as_str(),
        );
        self.parts.published.refuse(message);
        for (id, held) in &mut self.held {
            if std::mem::take(&mut held.waiting)
                && let Some(endpoint) = self.parts.endpoints.get(*id)
            {
                endpoint.failed(error);
            }
        }
    }
}

fn commit_message(realized: Realized, written: usize) -> String {
    let revision = realized.revision;
    if written == 0 {
        return format!("revision {revision} enforced, nothing had to be written");
    }
    format!(
        "revision {revision} enforced by generation {}, {written} writes",
        realized.generation.0
    )
}

fn is_audited(generation: &Generation) -> bool {
    let mut directions = generation.endpoints.iter().flat_map(|one| &one.directions);
    directions.any(|direction| direction.audit)
}

/// Enforcement by direction, as the datapath was found. `audit`: whether its
/// verdicts are those of an endpoint in audit mode.
#[must_use]
pub fn found_status(realized: Realized, audit: bool) -> EndpointPolicyStatus {
    let of = |direction: Direction| {
        let place = direction as usize;
        match (realized.enforced[place], realized.watched[place]) {
            (true, _) if !audit => Enforcement::Enabled,
            (true, _) | (false, true) => Enforcement::Audit,
            (false, false) => Enforcement::Disabled,
        }
    };
    EndpointPolicyStatus {
        ingress: of(Direction::Ingress),
        egress: of(Direction::Egress),
        audit_mode: audit,
    }
}

/// Enforcement by direction, as a policy brings it.
#[must_use]
pub fn policy_status(policy: &EndpointPolicy) -> EndpointPolicyStatus {
    let of = |direction: &DirectionPolicy| {
        if direction.watched || (direction.enforced && direction.audit) {
            Enforcement::Audit
        } else if direction.enforced {
            Enforcement::Enabled
        } else {
            Enforcement::Disabled
        }
    };
    EndpointPolicyStatus {
        ingress: of(policy.direction(Direction::Ingress)),
        egress: of(policy.direction(Direction::Egress)),
        audit_mode: policy.directions.iter().any(|direction| direction.audit),
    }
}

/// What lasts of an endpoint.
#[must_use]
pub fn endpoint_record(endpoint: &Endpoint) -> EndpointRecord {
    let status = endpoint.status(super::AuditSetting::Inherited, false);
    EndpointRecord {
        id: status.id.0,
        kind: "host".to_owned(),
        identity: status.identity.0,
        labels: status.labels.to_strings(),
        desired: status.revision.desired.0,
    }
}
