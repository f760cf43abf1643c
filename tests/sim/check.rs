//! What must hold after each step, after each restart and at the end.

use std::collections::BTreeSet;
use std::sync::Arc;

use palisade::datapath::{Generation, Realized};
use palisade::endpoint::{AuditSetting, HOST_ENDPOINT, policy_status};
use palisade::events::{EndpointState, RepositoryChange, ResourceKey, Revision, SourceName};
use palisade::policy::{EndpointPolicy, PolicySnapshot, Repository, Subject, resolve};
use palisade::queues::PastError;

use crate::objects::{self, PEERS_COUNT};
use crate::verdicts::{of_kernel, of_rules};
use crate::world::World;

const SUBJECT: Subject = Subject::Host(HOST_ENDPOINT);
/// Peers on which each commit is compared with the plain reading.
const SAMPLED_PEERS: usize = 3;

impl World {
    /// After each step.
    pub(crate) fn check(&mut self) {
        let endpoint = self.agent.workers.endpoints[0].endpoint();
        let revisions = endpoint.revisions();
        let newest = self.agent.pipeline.repository().revision;
        assert!(revisions.realized <= revisions.desired, "{revisions:?}");
        assert!(revisions.desired <= newest, "{revisions:?} of {newest}");
        let enforced = self.kernel.realized();
        if let Some(realized) = enforced {
            assert!(
                revisions.realized <= realized.revision,
                "{revisions:?} is told, {realized:?} is enforced"
            );
            self.check_commit(realized);
            self.check_told(realized);
        }
        self.check_gate(enforced);
    }

    /// What the repository published last: the resources that the contract
    /// wants, under numbers that never mean two things.
    pub(crate) fn published(&mut self) {
        let snapshot = self.agent.pipeline.repository();
        self.plain.compare_with(&snapshot);
        if self.agent.pipeline.status().store_problem.is_none() {
            self.lasting = self.lasting.max(snapshot.revision);
        }
        if self.agent.knows_the_kernel() && self.plain.may_be_enforced() {
            self.agent.enforceable.insert(snapshot.revision);
        }
        for (number, entry) in &snapshot.rules {
            let meant = self
                .rules
                .entry(*number)
                .or_insert_with(|| entry.rule.clone());
            assert_eq!(*meant, entry.rule, "{number:?}");
        }
        let entries = snapshot.ipcache4.values().chain(snapshot.ipcache6.values());
        for entry in entries {
            let identity = snapshot.identities.live_at(entry.index).expect("it lives");
            assert_eq!(identity.number, entry.identity);
            let meant = self.identities.entry(entry.identity);
            let meant = meant.or_insert_with(|| identity.key.clone());
            assert_eq!(*meant, identity.key, "{:?}", entry.identity);
        }
        if let Some(known) = self.seen.get(&snapshot.revision) {
            assert_same(known, &snapshot);
        }
        self.seen.insert(snapshot.revision, snapshot);
    }

    /// The verdicts of a revision, from nothing.
    fn resolve(&mut self, snapshot: &PolicySnapshot, audit: bool) -> Arc<EndpointPolicy> {
        let entry = self.resolved.entry((snapshot.revision, audit));
        let policy =
            entry.or_insert_with(|| Arc::new(resolve(snapshot, SUBJECT, audit).expect("it fits")));
        Arc::clone(policy)
    }

    /// What the kernel enforces is one whole revision, and none goes back.
    pub(crate) fn check_commit(&mut self, realized: Realized) {
        if self.checked == Some(realized) {
            return;
        }
        if let Some(before) = self.checked {
            assert!(before.generation <= realized.generation);
            assert!(before.revision <= realized.revision);
        }
        self.counts.commits += 1;
        self.checked = Some(realized);
        let (_, generation) = self.kernel.enforced().expect("something is realized");
        assert_eq!(generation.revision, realized.revision);
        let snapshot = self.seen.get(&realized.revision);
        let snapshot =
            Arc::clone(snapshot.unwrap_or_else(|| panic!("{realized:?} was never published")));
        assert_eq!(generation.ipcache4, snapshot.ipcache4);
        assert_eq!(generation.ipcache6, snapshot.ipcache6);
        let policy = &generation.endpoints[0];
        let audited = policy.directions[0].audit;
        assert!(self.audit_modes.contains(&audited), "audit: {audited}");
        let expected = self.resolve(&snapshot, audited);
        assert!(
            policy.directions == expected.directions,
            "{realized:?} is a mix"
        );
        let first = self.random.below(PEERS_COUNT);
        check_verdicts(&generation, &snapshot, audited, SAMPLED_PEERS, first);
        self.enforced = Some((policy_status(policy), audited));
    }

    /// What is told of the endpoint is what the kernel does.
    fn check_told(&self, realized: Realized) {
        let endpoint = self.agent.workers.endpoints[0].endpoint();
        let told = !self.unrecorded
            && self.agent.pipeline.realized() == Some(realized)
            && endpoint.revisions().realized == realized.revision;
        if let (true, Some((enforced, _))) = (told, self.enforced) {
            assert_eq!(endpoint.policy(), enforced);
        }
    }

    /// While a source has not told everything, nothing is deleted but by name, and
    /// what is enforced is what was enforced, what was restored, or what came while
    /// no source was in the middle of telling.
    fn check_gate(&self, enforced: Option<Realized>) {
        let pipeline = &self.agent.pipeline;
        let newest = pipeline.repository();
        let restored = &self.agent.restored;
        if newest.revision == restored.revision
            && enforced.map(|it| it.revision) == self.agent.kernel_at_start
            || pipeline.status().waiting_for.is_empty()
        {
            return;
        }
        for (key, stored) in &restored.policies {
            let is_here = newest.policies.contains_key(key);
            let by_name = stored.resource.source == SourceName::Api;
            assert!(is_here || by_name, "{key} was deleted");
        }
        for (key, stored) in &restored.objects {
            let is_here = newest.objects.contains_key(key);
            let by_name = stored.resource.source == SourceName::Api;
            assert!(is_here || by_name, "{key} was deleted");
        }
        let enforced = enforced.map(|realized| realized.revision);
        let is_allowed = |revision| self.agent.enforceable.contains(&revision);
        if enforced == self.agent.kernel_at_start || enforced.is_some_and(is_allowed) {
            return;
        }
        let of_store = [restored.revision, self.agent.journaled];
        assert!(
            of_store.map(Some).contains(&enforced),
            "{enforced:?} of {of_store:?}"
        );
        let may = self.agent.knows_the_kernel() || self.agent.asked;
        assert!(may, "regenerated before every source was in sync");
    }

    /// After each restart: what was told is there, bit for bit.
    pub(crate) fn check_restart(&mut self) {
        let restored = Arc::clone(&self.agent.restored);
        if std::mem::take(&mut self.forgetful) {
            // Revisions since then are gone, as the agent said; so is in which
            // audit mode the kernel's generation was made.
            self.enforced = None;
            self.seen.clear();
            self.resolved.clear();
            self.rules.clear();
            self.identities.clear();
        }
        assert!(
            restored.revision >= self.lasting,
            "{} was published or told, {} was restored",
            self.lasting,
            restored.revision
        );
        if let Some(realized) = self.kernel.realized() {
            assert!(realized.revision <= restored.revision);
        }
        let status = self.agent.pipeline.endpoint(HOST_ENDPOINT);
        let status = status.expect("it exists");
        let maybe = std::mem::take(&mut self.audit_maybe);
        assert!(
            status.audit == self.audit || maybe.contains(&status.audit),
            "audit was {:?} and is {:?}",
            self.audit,
            status.audit
        );
        self.audit = status.audit;
        self.audit_modes = BTreeSet::from([status.audit_effective]);
        self.audit_modes
            .extend(self.enforced.map(|(_, audit)| audit));
        self.published();
        let journaled = self.agent.journaled;
        if let Ok(found) = self.agent.pipeline.snapshot_at(journaled) {
            // A life may have ended before it published what it had journaled.
            self.seen.entry(journaled).or_insert(found);
        }
        self.check_past();
    }

    /// A revision that was published is rebuilt as it was, or no longer kept.
    fn check_past(&mut self) {
        let newest = self.agent.pipeline.repository().revision;
        let known: Vec<Revision> = self.seen.keys().copied().collect();
        let asked = *self.random.pick(&known);
        match self.agent.pipeline.snapshot_at(asked) {
            Ok(found) => {
                let known = Arc::clone(&self.seen[&asked]);
                assert_same(&known, &found);
                let verdicts = self.resolve(&known, false);
                let again = resolve(&found, SUBJECT, false).expect("it fits");
                assert!(verdicts.directions == again.directions, "{asked}");
                self.counts.rebuilt += u64::from(asked < newest);
            }
            Err(PastError::Gone { oldest, .. }) => assert!(asked < oldest && oldest <= newest),
            Err(PastError::Forgotten { .. }) => {
                assert!(self.agent.pipeline.status().store_problem.is_some());
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// At the end: ready, realized, and right.
    pub(crate) fn check_converged(&mut self) {
        let pipeline = Arc::clone(&self.agent.pipeline);
        let snapshot = pipeline.repository();
        let status = pipeline.endpoint(HOST_ENDPOINT).expect("it exists");
        assert_eq!(status.state, EndpointState::Ready, "{:#?}", status.log);
        assert_eq!(status.error, None);
        assert_eq!(status.revision.realized, snapshot.revision);
        assert_eq!(status.revision.desired, snapshot.revision);
        assert_eq!(pipeline.status().datapath_problem, None);
        assert_eq!(pipeline.status().store_problem, None);
        assert_eq!(pipeline.status().waiting_for, Vec::<SourceName>::new());
        let (realized, generation) = self.kernel.enforced().expect("enforced");
        assert_eq!(realized.revision, snapshot.revision);
        assert_eq!(pipeline.realized(), Some(realized));
        assert_eq!(*generation.settings, self.config.settings());
        let audit = match self.audit {
            AuditSetting::Inherited => self.config.audit,
            AuditSetting::Enabled => true,
            AuditSetting::Disabled => false,
        };
        let expected = self.resolve(&snapshot, audit);
        assert!(generation.endpoints[0].directions == expected.directions);
        assert_eq!(generation.ipcache4, snapshot.ipcache4);
        assert_eq!(generation.ipcache6, snapshot.ipcache6);
        let names = pipeline.rules_of(realized.generation).expect("named");
        assert_eq!(names.revision, snapshot.revision);
        self.plain.compare_with(&snapshot);
        self.check_held();
        self.check_from_nothing(&generation, audit);
    }

    /// What is in force is what the sources hold; who holds a key with another,
    /// one of the two.
    fn check_held(&self) {
        let configured = self.config.sources();
        let speaks = |name: SourceName| name == SourceName::Api || configured.contains(&name);
        let mut held: BTreeSet<&ResourceKey> = BTreeSet::new();
        for source in &self.sources {
            if speaks(source.name) {
                held.extend(source.holds.keys());
            }
        }
        let in_force = self.plain.resources();
        assert_eq!(held, in_force.keys().collect());
        for (key, (owner, body)) in in_force {
            let mut sources = self.sources.iter();
            let source = sources.find(|source| source.name == *owner);
            let holds = &source.expect("a source").holds;
            assert_eq!(holds.get(key), Some(&body.value()), "{key}");
        }
    }

    /// The same verdicts as of a repository that only ever saw these resources.
    fn check_from_nothing(&self, generation: &Generation, audit: bool) {
        let mut fresh = Repository::new(self.config.policy());
        let local = self.plain.local_addresses().to_vec();
        fresh.apply(&RepositoryChange::LocalAddresses(local));
        for (key, (source, body)) in self.plain.resources() {
            let resource = objects::resource(key, &body.value(), *source);
            fresh.apply(&RepositoryChange::Upsert(resource));
        }
        check_verdicts(generation, &fresh.snapshot(), audit, PEERS_COUNT, 0);
    }
}

fn check_verdicts(
    generation: &Generation,
    snapshot: &PolicySnapshot,
    audit: bool,
    peers: usize,
    first: usize,
) {
    let samples = objects::samples(peers, first);
    let plain = of_rules(snapshot, SUBJECT, audit, &samples);
    for (sample, plain) in samples.iter().zip(plain) {
        assert_eq!(of_kernel(generation, sample), plain, "{sample:?}");
    }
}

/// A revision means one thing, in every life of the agent.
fn assert_same(known: &PolicySnapshot, again: &PolicySnapshot) {
    assert_eq!(known.revision, again.revision);
    assert_eq!(known.host_labels, again.host_labels);
    assert_eq!(known.ipcache4, again.ipcache4);
    assert_eq!(known.ipcache6, again.ipcache6);
    assert_eq!(known.rules, again.rules);
}
