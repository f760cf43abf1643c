//! The world: sources, a kernel, a disk, and an agent that lives and dies
//! between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use palisade::clock::{Clock, ManualClock};
use palisade::datapath::Realized;
use palisade::datapath::fake::FakeKernel;
use palisade::endpoint::{AuditSetting, EndpointPolicyStatus, HOST_ENDPOINT, Progress};
use palisade::events::{RepositoryChange, ResourceKey, Revision, SourceName};
use palisade::identity::{IdentityKey, IdentityNumber};
use palisade::policy::{EndpointPolicy, PolicySnapshot, RuleNumber, RuleRef};
use palisade::queues::{AuditState, ChangeOutcome, JournalEvent, SubmitError};
use palisade_state::{MemoryDisk, Store};
use parking_lot::Mutex;

use crate::agent::{Agent, Config, WORKERS};
use crate::ledger::{Ledger, Plain};
use crate::random::Random;
use crate::source::Source;
use crate::trouble::{Plant, Trouble};

/// Events that wait before a producer would have to.
const BACKLOG_MAX: u64 = 40;
/// Rounds over all workers after the faults stopped.
const ROUNDS_MAX: u32 = 1_000;
/// 2026, in milliseconds: the wall clock at the beginning.
const BEGIN_MS: u64 = 1_767_225_600_000;

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) kernel: FakeKernel,
    pub(crate) disk: MemoryDisk,
    pub(crate) trouble: Arc<Mutex<Trouble>>,
    pub(crate) sources: Vec<Source>,
    pub(crate) config: Config,
    pub(crate) agent: Agent,
    pub(crate) ledger: Ledger,
    /// The last event that the repository has taken, and what follows from all
    /// of them.
    applied: u64,
    pub(crate) plain: Plain,
    /// The last event of the group that waits for its flush.
    group: Option<u64>,
    /// Every snapshot that was ever published, by revision.
    pub(crate) seen: BTreeMap<Revision, Arc<PolicySnapshot>>,
    /// Verdicts from nothing, by revision and audit switch.
    pub(crate) resolved: BTreeMap<(Revision, bool), Arc<EndpointPolicy>>,
    /// What each number meant, ever.
    pub(crate) rules: BTreeMap<RuleNumber, RuleRef>,
    pub(crate) identities: BTreeMap<IdentityNumber, IdentityKey>,
    /// Newest revision that was published or told while the store was well.
    pub(crate) lasting: Revision,
    /// The agent said that it runs without history.
    pub(crate) forgetful: bool,
    /// It committed without a record since the boot: generations of that life
    /// may have the numbers and revisions of others that never came to be.
    pub(crate) unrecorded: bool,
    /// What the kernel enforced when it was last compared with the repository.
    pub(crate) checked: Option<Realized>,
    /// How that reads in the endpoint's status, and its audit mode.
    pub(crate) enforced: Option<(EndpointPolicyStatus, bool)>,
    /// What the operator wants of the endpoint.
    pub(crate) audit: AuditSetting,
    /// What a restart may find instead: what was refused, and what was set
    /// while the store was ill.
    pub(crate) audit_maybe: Vec<AuditSetting>,
    /// Audit modes that the kernel may be found in.
    pub(crate) audit_modes: BTreeSet<bool>,
    pub(crate) counts: Counts,
    /// Whether what happens is printed.
    pub(crate) is_told: bool,
}

/// What a run has seen.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) steps: u64,
    pub(crate) lives: u64,
    pub(crate) deaths: u64,
    pub(crate) faults: u64,
    pub(crate) commits: u64,
    /// Old revisions that were rebuilt and compared.
    pub(crate) rebuilt: u64,
    /// Worlds that came to rest before a source spoke again.
    pub(crate) alone: u64,
    /// Lives that went on without history.
    pub(crate) forgetful: u64,
    /// Kinds of faults: see `Trouble::met`.
    pub(crate) met: u32,
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.lives += other.lives;
        self.deaths += other.deaths;
        self.faults += other.faults;
        self.commits += other.commits;
        self.rebuilt += other.rebuilt;
        self.alone += other.alone;
        self.forgetful += other.forgetful;
        self.met |= other.met;
    }
}

/// How a life ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// SIGKILL, or death in the middle of a call.
    Killed,
    /// Loss of power: the kernel is empty afterwards.
    PowerLost,
    /// SIGTERM.
    Stopped,
}

impl World {
    pub(crate) fn new(seed: u64, plant: Option<Plant>) -> Self {
        let mut random = Random::new(seed);
        let kernel = FakeKernel::new();
        let disk = MemoryDisk::new();
        let clock = Arc::new(ManualClock::default());
        clock.set_wall_ms(BEGIN_MS);
        let config = Config::new();
        let store = Store::on(disk.clone()).expect("an empty disk opens");
        let agent = Agent::start(&config, &kernel, store, &clock);
        let mut ledger = Ledger::default();
        ledger.add(1, config.started(false));
        let plain = ledger.state(1, &config.policy());
        let trouble = Trouble::begin(seed, plant, &clock, &disk, &kernel);
        let mut sources = Vec::from(
            [
                SourceName::Manifests,
                SourceName::Kubernetes,
                SourceName::Api,
            ]
            .map(Source::new),
        );
        for source in &mut sources {
            source.begin(clock.now(), &mut random);
        }
        let mut world = Self {
            random,
            clock,
            kernel,
            disk,
            trouble,
            sources,
            config,
            agent,
            ledger,
            applied: 1,
            plain,
            group: None,
            seen: BTreeMap::new(),
            resolved: BTreeMap::new(),
            rules: BTreeMap::new(),
            identities: BTreeMap::new(),
            lasting: Revision(1),
            forgetful: false,
            unrecorded: false,
            checked: None,
            enforced: None,
            audit: AuditSetting::Inherited,
            audit_maybe: Vec::new(),
            audit_modes: BTreeSet::from([false]),
            counts: Counts::default(),
            is_told: false,
        };
        world.published();
        world
    }

    /// A line of the story of one seed.
    pub(crate) fn tell_story(&self, line: impl FnOnce() -> String) {
        if self.is_told {
            let (events, applied) = (self.ledger.last(), self.applied);
            println!(
                "{:5} event {applied}/{events}: {}",
                self.counts.steps,
                line()
            );
        }
    }

    /// Looks after what just happened: the agent may have died of it.
    pub(crate) fn settle(&mut self) {
        self.counts.steps += 1;
        if self.trouble.lock().is_dead() {
            self.counts.deaths += 1;
            self.tell_story(|| "died in the middle of that".to_owned());
            let end = if self.random.chance(25) {
                End::PowerLost
            } else {
                End::Killed
            };
            return self.end(end);
        }
        self.collect();
        self.check();
    }

    /// One worker does one step; false if it had nothing to do.
    pub(crate) fn work(&mut self, which: usize) -> bool {
        let waiting = self.ledger.last();
        let progress = self.agent.work(which, &self.clock);
        if progress != Progress::IDLE {
            let worker = ["repository", "reaction", "endpoint", "committer"][which];
            self.tell_story(|| format!("{worker}: {progress:?}"));
        }
        if which == 0 && !self.trouble.lock().is_dead() {
            match progress {
                Progress::Busy => {
                    let last = self.group.take().unwrap_or(waiting);
                    self.apply(last);
                    self.published();
                }
                Progress::Idle { wake_at: Some(_) } => {
                    self.group.get_or_insert(waiting);
                }
                Progress::Idle { wake_at: None } => {}
            }
        }
        progress == Progress::Busy
    }

    /// The repository has taken all events up to this one.
    fn apply(&mut self, last: u64) {
        for event in self.ledger.between(self.applied, last) {
            self.plain.take(event);
        }
        self.applied = last;
    }

    /// A producer waits while the queue is full; here it comes again.
    pub(crate) fn has_room(&self) -> bool {
        self.ledger.last() - self.applied <= BACKLOG_MAX
    }

    /// A source tells the next change, or that this was all.
    pub(crate) fn tell(&mut self, which: usize) {
        if !self.has_room() {
            return;
        }
        let source = &mut self.sources[which];
        let is_api = source.name == SourceName::Api;
        if !is_api && !self.config.sources().contains(&source.name)
            || source.is_silent(self.clock.now())
        {
            return;
        }
        match source.next() {
            Some(change) => self.submit(change),
            None if is_api => source.in_sync = true,
            None if !source.in_sync => self.say_in_sync(which),
            None => {}
        }
    }

    pub(crate) fn submit(&mut self, change: RepositoryChange) {
        self.tell_story(|| format!("{} from {}", change.subject(), change.source().as_str()));
        let submission = match self.agent.pipeline.submit(change.clone()) {
            Ok(submission) => submission,
            // Only the journal would remember it, and there is none.
            Err(SubmitError::NotLasting(_)) => {
                assert_eq!(change.source(), SourceName::Api);
                return assert!(self.agent.pipeline.status().store_problem.is_some());
            }
            Err(error) => panic!("{error}"),
        };
        if let Some(sequence) = submission.sequence {
            let event = JournalEvent::Change {
                accepted_ms: 0,
                change,
            };
            self.ledger.add(sequence.0, event);
            self.agent.submissions.push(submission);
        }
    }

    /// What the source told in an earlier life and holds no more is deleted; so
    /// is what came from sources that the agent is no longer configured with.
    fn say_in_sync(&mut self, which: usize) {
        self.tell_story(|| format!("{} is in sync", self.sources[which].name.as_str()));
        let source = &mut self.sources[which];
        let name = source.name;
        let owned: BTreeSet<ResourceKey> = source.holds.keys().cloned().collect();
        source.in_sync = true;
        let mut gone = vec![(name, self.ledger.vanished(name, &owned))];
        for other in self.ledger.sources() {
            let stays = matches!(other, SourceName::Api | SourceName::Local);
            if !stays && other != name && !self.config.sources().contains(&other) {
                gone.push((other, self.ledger.vanished(other, &BTreeSet::new())));
            }
        }
        for (source, keys) in gone {
            for key in keys {
                self.ledger.push(JournalEvent::Change {
                    accepted_ms: 0,
                    change: RepositoryChange::Delete { key, source },
                });
            }
        }
        let pipeline = &self.agent.pipeline;
        if pipeline.status().waiting_for.contains(&name) {
            self.ledger.push(JournalEvent::InSync {
                source: name,
                accepted_ms: 0,
            });
        }
        let said = pipeline.source_in_sync(name, &owned);
        assert_eq!(said, Ok(()));
    }

    /// Whether the agent gave the store up in this life.
    fn note_forgetful(&mut self) {
        if !self.forgetful && self.agent.pipeline.status().store_problem.is_some() {
            self.forgetful = true;
            self.counts.forgetful += 1;
        }
    }

    /// What the producers learnt.
    fn collect(&mut self) {
        self.note_forgetful();
        let submissions = std::mem::take(&mut self.agent.submissions);
        for submission in submissions {
            match submission.try_outcome() {
                None => self.agent.submissions.push(submission),
                Some(_) if self.forgetful => {}
                Some(outcome) => {
                    let sequence = submission.sequence.expect("it was journaled");
                    self.ledger.acknowledge(sequence.0);
                    if let ChangeOutcome::Applied { revision, .. } = outcome {
                        self.lasting = self.lasting.max(revision);
                    }
                }
            }
        }
    }

    pub(crate) fn set_audit(&mut self, setting: AuditSetting) {
        self.tell_story(|| format!("audit {setting:?}"));
        let before = self.audit;
        let done = self.agent.pipeline.set_audit(HOST_ENDPOINT, setting);
        if self.trouble.lock().is_dead() {
            self.audit_maybe.push(setting);
            return;
        }
        // What fails is told as a second event that takes it back.
        for _ in 0..1 + u8::from(done.is_err()) {
            self.ledger.push(JournalEvent::Audit {
                audit: AuditState::default(),
                endpoint: Some(HOST_ENDPOINT),
                accepted_ms: 0,
            });
        }
        if done.is_err() {
            self.audit_maybe.push(setting);
        } else {
            self.audit = setting;
            self.agent.asked = true;
            if self.agent.pipeline.status().store_problem.is_some() {
                self.audit_maybe.push(before);
            } else {
                self.audit_maybe.clear();
            }
        }
        let status = self.agent.pipeline.endpoint(HOST_ENDPOINT);
        self.audit_modes
            .extend(status.map(|status| status.audit_effective));
    }

    /// A life ends and the next one begins. What was not flushed may be lost.
    pub(crate) fn end(&mut self, end: End) {
        self.tell_story(|| format!("{end:?}; the kernel has {:?}", self.kernel.realized()));
        if end == End::Stopped {
            self.agent.stop();
            self.collect();
        }
        if !self.trouble.lock().is_dead() {
            self.note_forgetful();
        }
        self.unrecorded = end != End::PowerLost && (self.unrecorded || self.forgetful);
        // What the last step of that life did.
        if let Some(realized) = self.kernel.realized() {
            self.check_commit(realized);
        }
        if self.random.chance(15) {
            self.config.change(&mut self.random);
        }
        if end == End::PowerLost {
            self.kernel.reboot();
            self.config.boot += 1;
            self.checked = None;
            self.enforced = None;
        }
        loop {
            self.lose_unflushed();
            self.counts.lives += 1;
            if let Some(agent) = self.start() {
                self.agent = agent;
                break;
            }
            self.counts.deaths += 1;
        }
        for source in &mut self.sources {
            source.begin(self.clock.now(), &mut self.random);
        }
        self.tell_story(|| {
            let status = self.agent.pipeline.status();
            format!("started with {:?}: {status:?}", self.config)
        });
        self.check_restart();
        self.check();
    }

    fn lose_unflushed(&mut self) {
        let unflushed = self.disk.unflushed();
        let kept = match self.random.below(3) {
            0 => 0,
            1 => unflushed,
            _ => self.random.below(unflushed + 1),
        };
        self.disk.crash(kept);
        self.trouble.lock().revive();
    }

    /// None if it died of its start.
    fn start(&mut self) -> Option<Agent> {
        let store = Store::on(self.disk.clone()).ok()?;
        self.ledger.compare_with(&store);
        let mut agent = Agent::start(&self.config, &self.kernel, store, &self.clock);
        if self.trouble.lock().is_dead() {
            return None;
        }
        let before = self.ledger.last();
        self.plain = self.ledger.state(before, &self.config.policy());
        let options = self.plain.options().clone();
        let started = self.config.started(agent.kernel_at_start.is_some());
        self.plain.take(&started);
        if *self.plain.options() != options {
            agent.journaled = Revision(agent.restored.revision.0 - 1);
        }
        self.ledger.push(started);
        self.applied = self.ledger.last();
        self.group = None;
        Some(agent)
    }

    /// The faults stop and the operators rest: everything must come right.
    pub(crate) fn converge(&mut self) {
        self.trouble.lock().end();
        self.collect();
        if self.forgetful {
            // What the agent asks the operator for.
            self.end(End::Stopped);
        }
        self.rest_alone();
        for source in &mut self.sources {
            source.correct(&mut self.random);
        }
        // The second time, a key that its owner has let go of is told again.
        for _ in 0..2 {
            for source in &mut self.sources {
                source.list_again(&self.ledger, &mut self.random);
            }
            self.rest();
        }
        self.check_converged();
        let trouble = self.trouble.lock();
        (self.counts.faults, self.counts.met) = (trouble.count, trouble.met);
    }

    /// What is known is enforced although no source says a word.
    fn rest_alone(&mut self) {
        for _ in 0..3 {
            let mut busy = true;
            while std::mem::take(&mut busy) {
                for worker in 0..WORKERS {
                    busy |= self.work(worker);
                    self.settle();
                }
            }
            self.clock.advance(std::time::Duration::from_secs(130));
        }
        self.settle();
        if self.agent.knows_the_kernel() && self.plain.may_be_enforced() {
            self.counts.alone += 1;
            let newest = self.agent.pipeline.repository().revision;
            let realized = self.kernel.realized().map(|realized| realized.revision);
            assert_eq!(realized, Some(newest), "it waits for a source");
        }
    }

    /// Until nobody has anything to do.
    fn rest(&mut self) {
        let mut quiet = 0;
        for _ in 0..ROUNDS_MAX {
            for source in 0..self.sources.len() {
                self.tell(source);
            }
            let mut busy = false;
            for worker in 0..WORKERS {
                busy |= self.work(worker);
                self.settle();
            }
            let configured = self.config.sources();
            let told = self.sources.iter().all(|source| {
                source.is_done()
                    || source.name != SourceName::Api && !configured.contains(&source.name)
            });
            if busy || !told {
                quiet = 0;
                continue;
            }
            quiet += 1;
            self.clock.advance(std::time::Duration::from_secs(130));
            if quiet == 3 {
                return;
            }
        }
        panic!("it never came to rest");
    }
}
