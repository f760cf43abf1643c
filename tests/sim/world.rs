//! The world: an operator's files, a kernel, a disk, and an agent that lives
//! and dies between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use palisade::clock::{Clock, ManualClock};
use palisade::datapath::fake::{FakeKernel, Fault};
use palisade::datapath::{DatapathSettings, Realized};
use palisade::endpoint::{AuditSetting, HOST_ENDPOINT, NodeFacts, Progress};
use palisade::events::{RepositoryChange, ResourceKey, Revision, SourceName};
use palisade::policy::{PolicyOptions, PolicySnapshot};
use palisade::queues::{ChangeOutcome, Pipeline, PipelineOptions, Submission, Workers};
use palisade_state::{MemoryDisk, Store};
use serde_json::Value;

use crate::manifests;
use crate::random::Random;

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) kernel: FakeKernel,
    pub(crate) disk: MemoryDisk,
    /// What lies in the manifests directory.
    pub(crate) files: BTreeMap<ResourceKey, Value>,
    pub(crate) agent: Agent,
    /// Every snapshot that was ever published, by revision.
    pub(crate) seen: BTreeMap<Revision, Arc<PolicySnapshot>>,
    /// Revision of the newest change whose success was told.
    pub(crate) told: Revision,
    /// What the kernel enforced when it was last compared with the repository.
    pub(crate) checked: Option<Realized>,
    /// What the operator wants, durably.
    pub(crate) audit: AuditSetting,
    /// What the operator was refused; a crash may have kept it all the same.
    pub(crate) audit_refused: Vec<AuditSetting>,
    /// Old revisions that were rebuilt and compared.
    pub(crate) rebuilt: u32,
}

pub(crate) struct Agent {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) workers: Workers,
    /// What the source has not told yet, in order.
    untold: Vec<RepositoryChange>,
    /// What the source has told in this life.
    listed: BTreeSet<ResourceKey>,
    in_sync: bool,
    submissions: Vec<Submission>,
    /// What the kernel enforced, and what was restored, when it started.
    pub(crate) kernel_at_start: Option<Revision>,
    pub(crate) restored: Arc<PolicySnapshot>,
    /// Whether somebody asked for a regeneration in this life.
    pub(crate) asked: bool,
}

fn options(audit: bool) -> PipelineOptions {
    PipelineOptions {
        sources: BTreeSet::from([SourceName::Manifests]),
        policy: PolicyOptions {
            node_name: manifests::NODE.to_owned(),
            audit,
            ..PolicyOptions::default()
        },
        settings: DatapathSettings::default(),
        build_permits: 2,
        facts: NodeFacts::default(),
        boot_id: "boot".to_owned(),
    }
}

pub(crate) fn policy_options() -> PolicyOptions {
    options(false).policy
}

impl Agent {
    fn start(
        kernel: &FakeKernel,
        disk: &MemoryDisk,
        clock: &Arc<ManualClock>,
        files: &BTreeMap<ResourceKey, Value>,
        random: &mut Random,
    ) -> Self {
        let store = Store::on(disk.clone()).expect("the disk opens");
        let kernel_at_start = kernel.enforced().map(|(realized, _)| realized.revision);
        let pipeline = Pipeline::start(
            options(false),
            Box::new(kernel.datapath()),
            store,
            Arc::clone(clock) as Arc<dyn Clock>,
        );
        let workers = pipeline.take_workers().expect("not yet taken");
        let mut untold: Vec<RepositoryChange> = files
            .iter()
            .map(|(key, body)| RepositoryChange::Upsert(manifests::resource(key, body)))
            .collect();
        // A directory is read in any order.
        for place in (1..untold.len()).rev() {
            untold.swap(place, random.below(place + 1));
        }
        let restored = pipeline.repository();
        Self {
            pipeline,
            workers,
            untold,
            listed: BTreeSet::new(),
            in_sync: false,
            submissions: Vec::new(),
            kernel_at_start,
            restored,
            asked: false,
        }
    }

    /// The source tells the next change, or that this was all.
    fn tell(&mut self, files: &BTreeMap<ResourceKey, Value>) {
        // A producer waits while the queue is full; here it comes again.
        if self.pipeline.queue_stats()[0].depth > 40 {
            return;
        }
        if self.untold.is_empty() {
            if !self.in_sync {
                let owned: BTreeSet<ResourceKey> = files.keys().cloned().collect();
                self.in_sync = self
                    .pipeline
                    .source_in_sync(SourceName::Manifests, &owned)
                    .is_ok();
            }
            return;
        }
        let change = self.untold.remove(0);
        self.listed.extend(change.key().cloned());
        let submission = self.pipeline.submit(change).expect("taken");
        if submission.sequence.is_some() {
            self.submissions.push(submission);
        }
    }

    /// One worker does one step; `false` if it had nothing to do.
    fn work(&mut self, which: usize, clock: &ManualClock) -> bool {
        let now = clock.now();
        let workers = &mut self.workers;
        let progress = match which {
            0 => workers.repository.step(now),
            1 => workers.reaction.step(now),
            2 => workers.endpoints[0].step(now),
            _ => workers.committer.step(),
        };
        progress == Progress::Busy
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let kernel = FakeKernel::new();
        let disk = MemoryDisk::new();
        let clock = Arc::new(ManualClock::default());
        let files = BTreeMap::new();
        let agent = Agent::start(&kernel, &disk, &clock, &files, &mut random);
        Self {
            random,
            clock,
            kernel,
            disk,
            files,
            agent,
            seen: BTreeMap::new(),
            told: Revision(1),
            checked: None,
            audit: AuditSetting::Inherited,
            audit_refused: Vec::new(),
            rebuilt: 0,
        }
    }

    /// Something happens.
    pub(crate) fn step(&mut self) {
        match self.random.below(100) {
            0..50 => {
                let which = self.random.below(4);
                self.agent.work(which, &self.clock);
            }
            50..70 => self.agent.tell(&self.files),
            70..84 => self.edit(),
            84..90 => self.fault(),
            90..94 => {
                let span = [10, 300, 3_000, 130_000][self.random.below(4)];
                self.clock.advance(Duration::from_millis(span));
            }
            95..97 => self.set_audit(),
            // Much more often than the limit makes it happen.
            94 => self.agent.workers.repository.save_snapshot(),
            97 => {
                self.agent.asked = true;
                let asked = self.agent.pipeline.regenerate(HOST_ENDPOINT);
                assert_eq!(asked, Ok(true));
            }
            _ => self.crash(),
        }
        self.collect();
    }

    /// The operator writes or removes a file.
    fn edit(&mut self) {
        let key = self.random.pick(&manifests::keys()).clone();
        let change = if self.files.contains_key(&key) && self.random.chance(35) {
            self.files.remove(&key);
            RepositoryChange::Delete {
                key: key.clone(),
                source: SourceName::Manifests,
            }
        } else {
            let body = manifests::version(&key, &mut self.random);
            self.files.insert(key.clone(), body.clone());
            RepositoryChange::Upsert(manifests::resource(&key, &body))
        };
        // A source that has not listed a file yet finds its newest version.
        self.agent
            .untold
            .retain(|waiting| waiting.key() != Some(&key));
        let deletes_unlisted =
            matches!(change, RepositoryChange::Delete { .. }) && !self.agent.listed.contains(&key);
        if !deletes_unlisted {
            self.agent.untold.push(change);
        }
    }

    fn fault(&mut self) {
        match self.random.below(7) {
            0 => self.kernel.inject(Fault::Stage),
            1 => self.kernel.inject(Fault::StageHalf),
            2 => self.kernel.inject(Fault::Commit),
            3 => self.kernel.inject(Fault::CommitAfterFlip),
            4 => self.kernel.inject(Fault::Adopt),
            // Fewer in a row than make the agent give the disk up.
            5 => self.disk.fail_flushes(1),
            _ => self.disk.fail_writes(1),
        }
    }

    fn set_audit(&mut self) {
        let setting = *self.random.pick(&[
            AuditSetting::Inherited,
            AuditSetting::Enabled,
            AuditSetting::Disabled,
        ]);
        if self
            .agent
            .pipeline
            .set_audit(HOST_ENDPOINT, setting)
            .is_ok()
        {
            self.audit = setting;
            self.audit_refused.clear();
            self.agent.asked = true;
        } else {
            self.audit_refused.push(setting);
        }
    }

    /// SIGKILL, or a loss of power: what was not flushed may be lost, and in
    /// the second case the kernel's state is.
    fn crash(&mut self) {
        let unflushed = self.disk.unflushed();
        let kept = if self.random.chance(50) {
            0
        } else {
            self.random.below(unflushed + 1)
        };
        self.disk.crash(kept);
        if self.random.chance(20) {
            self.kernel.reboot();
            self.checked = None;
        }
        self.kernel.heal();
        self.agent = Agent::start(
            &self.kernel,
            &self.disk,
            &self.clock,
            &self.files,
            &mut self.random,
        );
        self.check_restart();
    }

    /// What the producers learnt.
    fn collect(&mut self) {
        let submissions = std::mem::take(&mut self.agent.submissions);
        for submission in submissions {
            // A wait of no time: the answer is there or not.
            let probe = submission.try_outcome();
            match probe {
                None => self.agent.submissions.push(submission),
                Some(ChangeOutcome::Applied { revision, .. }) => {
                    self.told = self.told.max(revision);
                }
                Some(
                    ChangeOutcome::Refused { .. }
                    | ChangeOutcome::Unchanged { .. }
                    | ChangeOutcome::Deferred { .. },
                ) => {}
            }
        }
    }

    /// The faults stop and the operator rests: everything must come right.
    pub(crate) fn converge(&mut self) {
        self.kernel.heal();
        self.disk.fail_flushes(0);
        self.disk.fail_writes(0);
        for (key, body) in self.files.clone() {
            if !manifests::is_valid(&body) {
                let valid = manifests::valid_policy(&key.name, &mut self.random);
                self.files.insert(key.clone(), valid.clone());
                self.agent
                    .untold
                    .retain(|waiting| waiting.key() != Some(&key));
                let change = RepositoryChange::Upsert(manifests::resource(&key, &valid));
                self.agent.untold.push(change);
            }
        }
        let mut quiet = 0;
        for _ in 0..10_000 {
            self.agent.tell(&self.files);
            let mut busy = false;
            for which in 0..4 {
                busy |= self.agent.work(which, &self.clock);
            }
            self.collect();
            self.check();
            if busy || !self.agent.untold.is_empty() || !self.agent.in_sync {
                quiet = 0;
                continue;
            }
            quiet += 1;
            self.clock.advance(Duration::from_secs(130));
            if quiet == 3 {
                return self.check_converged();
            }
        }
        panic!("it never came to rest");
    }
}
