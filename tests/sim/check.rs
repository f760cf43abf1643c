//! What must hold after each step, after each restart and at the end.

use std::net::IpAddr;
use std::sync::Arc;

use palisade::endpoint::{AuditSetting, HOST_ENDPOINT};
use palisade::events::{EndpointState, RepositoryChange, Revision};
use palisade::policy::{
    Direction, Packet, PolicySnapshot, Query, Repository, Subject, explain, resolve,
};
use palisade::queues::PastError;

use crate::manifests;
use crate::world::{World, policy_options};

const SUBJECT: Subject = Subject::Host(HOST_ENDPOINT);

impl World {
    /// After each step.
    pub(crate) fn check(&mut self) {
        self.note_snapshot();
        let pipeline = &self.agent.pipeline;
        let status = pipeline.endpoint(HOST_ENDPOINT).expect("it exists");
        assert!(
            status.revision.realized <= status.revision.desired,
            "{:?}",
            status.revision
        );
        assert!(status.revision.desired <= pipeline.repository().revision);
        if let Some((realized, _)) = self.kernel.enforced() {
            assert!(
                status.revision.realized <= realized.revision,
                "{:?} is told, {realized:?} is enforced",
                status.revision
            );
        }
        assert_eq!(status.audit, self.audit);
        self.check_commits();
        self.check_gate();
    }

    /// A revision means one thing, in every life of the agent.
    fn note_snapshot(&mut self) {
        let snapshot = self.agent.pipeline.repository();
        match self.seen.get(&snapshot.revision) {
            Some(known) if Arc::ptr_eq(known, &snapshot) => {}
            Some(known) => {
                assert_same(known, &snapshot);
                self.seen.insert(snapshot.revision, snapshot);
            }
            None => {
                self.seen.insert(snapshot.revision, snapshot);
            }
        }
    }

    /// Each new generation is one whole revision, and none goes back.
    fn check_commits(&mut self) {
        let commits = self.kernel.commits();
        for pair in commits.windows(2) {
            assert!(pair[0].revision <= pair[1].revision, "{pair:?}");
        }
        let Some((realized, generation)) = self.kernel.enforced() else {
            return;
        };
        // An adoption raises the revision without a commit.
        if self.checked == Some(realized) {
            return;
        }
        self.checked = Some(realized);
        assert_eq!(generation.revision, realized.revision);
        let snapshot = self
            .seen
            .get(&realized.revision)
            .unwrap_or_else(|| panic!("{realized:?} was never published"));
        assert_eq!(generation.ipcache4, snapshot.ipcache4);
        assert_eq!(generation.ipcache6, snapshot.ipcache6);
        let policy = &generation.endpoints[0];
        let audited = policy.directions[0].audit;
        let expected = resolve(snapshot, SUBJECT, audited).expect("it fits");
        assert_eq!(policy.directions, expected.directions);
    }

    /// While the source has not told everything, nothing is deleted, and what
    /// is enforced is what was enforced or what was restored.
    fn check_gate(&self) {
        let pipeline = &self.agent.pipeline;
        if pipeline.status().waiting_for.is_empty() {
            return;
        }
        let restored = &self.agent.restored;
        let now = pipeline.repository();
        for key in restored.policies.keys() {
            assert!(now.policies.contains_key(key), "{key} was deleted");
        }
        let enforced = self
            .kernel
            .enforced()
            .map(|(realized, _)| realized.revision);
        if enforced == self.agent.kernel_at_start {
            return;
        }
        assert_eq!(enforced, Some(restored.revision));
        let may = self.agent.kernel_at_start.is_none() || self.agent.asked;
        assert!(may, "regenerated before the source was in sync");
    }

    /// After each restart: what was told is there, bit for bit.
    pub(crate) fn check_restart(&mut self) {
        let restored = Arc::clone(&self.agent.restored);
        assert!(
            restored.revision >= self.told,
            "{} was told, {} was restored",
            self.told,
            restored.revision
        );
        let newest = self.seen.keys().next_back().copied().unwrap_or_default();
        assert!(
            restored.revision >= newest,
            "{newest} was published, {} was restored",
            restored.revision
        );
        if let Some((realized, _)) = self.kernel.enforced() {
            assert!(realized.revision <= restored.revision);
        }
        let pipeline = &self.agent.pipeline;
        let audit = pipeline.endpoint(HOST_ENDPOINT).expect("it exists").audit;
        if std::mem::take(&mut self.audit_refused).contains(&audit) {
            self.audit = audit;
        }
        self.check_past();
        self.check();
    }

    /// A revision that was published is rebuilt as it was, or no longer kept.
    fn check_past(&mut self) {
        let newest = self.agent.pipeline.repository().revision;
        let known: Vec<Revision> = self.seen.keys().copied().collect();
        if known.is_empty() {
            return;
        }
        let asked = *self.random.pick(&known);
        match self.agent.pipeline.snapshot_at(asked) {
            Ok(found) => {
                assert_same(&self.seen[&asked], &found);
                self.rebuilt += u32::from(asked < newest);
            }
            Err(PastError::Gone { oldest, .. }) => assert!(asked < oldest && oldest <= newest),
            Err(error) => panic!("{error}"),
        }
    }

    /// At the end: ready, realized, and right.
    pub(crate) fn check_converged(&self) {
        let pipeline = &self.agent.pipeline;
        let snapshot = pipeline.repository();
        let status = pipeline.endpoint(HOST_ENDPOINT).expect("it exists");
        assert_eq!(status.state, EndpointState::Ready, "{:#?}", status.log);
        assert_eq!(status.error, None);
        assert_eq!(status.revision.realized, snapshot.revision);
        assert_eq!(status.revision.desired, snapshot.revision);
        assert_eq!(pipeline.status().datapath_problem, None);
        assert_eq!(pipeline.status().store_problem, None);
        let (realized, generation) = self.kernel.enforced().expect("enforced");
        assert_eq!(realized.revision, snapshot.revision);
        assert_eq!(pipeline.realized(), Some(realized));
        let audit = self.audit == AuditSetting::Enabled;
        let expected = resolve(&snapshot, SUBJECT, audit).expect("it fits");
        assert_eq!(generation.endpoints[0].directions, expected.directions);
        assert_eq!(generation.ipcache4, snapshot.ipcache4);
        let names = pipeline.rules_of(realized.generation).expect("named");
        assert_eq!(names.revision, snapshot.revision);
        self.check_against_files(&snapshot);
    }

    /// The same verdicts as of a repository that only ever saw these files.
    fn check_against_files(&self, snapshot: &PolicySnapshot) {
        let mut fresh = Repository::new(policy_options());
        for (key, body) in &self.files {
            fresh.apply(&RepositoryChange::Upsert(manifests::resource(key, body)));
        }
        let fresh = fresh.snapshot();
        assert_eq!(snapshot.host_labels, fresh.host_labels);
        let names =
            |snapshot: &PolicySnapshot| -> Vec<_> { snapshot.policies.keys().cloned().collect() };
        assert_eq!(names(snapshot), names(&fresh));
        let peers = [
            "10.1.0.1",
            "10.1.0.2",
            "10.9.9.9",
            "192.0.2.5",
            "198.51.100.7",
            "203.0.113.1",
            "2001:db8::1",
            "2001:db9::1",
        ];
        for peer in peers {
            let peer: IpAddr = peer.parse().expect("an address");
            for port in manifests::PORTS {
                for direction in Direction::BOTH {
                    let packet = Packet::Port { proto: 6, port };
                    let query = Query {
                        direction,
                        peer,
                        packet,
                    };
                    let ours = explain(snapshot, SUBJECT, false, &query);
                    let plain = explain(&fresh, SUBJECT, false, &query);
                    assert_eq!(
                        (ours.verdict, ours.rule, ours.enforced),
                        (plain.verdict, plain.rule, plain.enforced),
                        "{query:?}"
                    );
                }
            }
        }
    }
}

fn assert_same(known: &PolicySnapshot, again: &PolicySnapshot) {
    assert_eq!(known.revision, again.revision);
    assert_eq!(known.host_labels, again.host_labels);
    assert_eq!(known.ipcache4, again.ipcache4);
    assert_eq!(known.ipcache6, again.ipcache6);
    assert_eq!(known.rules, again.rules);
    if known.revision > Revision(1) {
        let verdicts = |snapshot| {
            resolve(snapshot, SUBJECT, false)
                .expect("it fits")
                .directions
        };
        assert_eq!(verdicts(known), verdicts(again));
    }
}
