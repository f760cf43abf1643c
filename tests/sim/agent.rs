//! One life of the agent: the production pipeline, its workers in our hands.

use std::collections::BTreeSet;
use std::sync::Arc;

use palisade::clock::{Clock, ManualClock};
use palisade::datapath::DatapathSettings;
use palisade::datapath::fake::FakeKernel;
use palisade::endpoint::{NodeFacts, Progress};
use palisade::events::{Revision, SourceName};
use palisade::policy::{EnforcementMode, PolicyOptions, PolicySnapshot};
use palisade::queues::{JournalEvent, Pipeline, PipelineOptions, Submission, Workers};
use palisade_state::Store;

use crate::objects;
use crate::random::Random;

/// What the agent is started with.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) kubernetes: bool,
    pub(crate) audit: bool,
    pub(crate) enforcement: EnforcementMode,
    pub(crate) cidr_match_nodes: bool,
    pub(crate) tcp_syn_s: u32,
    pub(crate) boot: u32,
}

impl Config {
    pub(crate) fn new() -> Self {
        Self {
            kubernetes: true,
            audit: false,
            enforcement: EnforcementMode::Default,
            cidr_match_nodes: false,
            tcp_syn_s: 60,
            boot: 1,
        }
    }

    /// The operator changes an option for the next start.
    pub(crate) fn change(&mut self, random: &mut Random) {
        match random.below(5) {
            0 => self.kubernetes = !self.kubernetes,
            1 => self.audit = !self.audit,
            2 => self.cidr_match_nodes = !self.cidr_match_nodes,
            3 => self.tcp_syn_s = 60 + u32::from(random.chance(50)),
            _ => {
                self.enforcement = *random.pick(&[
                    EnforcementMode::Default,
                    EnforcementMode::Default,
                    EnforcementMode::Always,
                    EnforcementMode::Never,
                ]);
            }
        }
    }

    pub(crate) fn sources(&self) -> BTreeSet<SourceName> {
        let mut sources = BTreeSet::from([SourceName::Manifests]);
        if self.kubernetes {
            sources.insert(SourceName::Kubernetes);
        }
        sources
    }

    /// As the journal holds them: the audit flag is none of its business.
    pub(crate) fn policy(&self) -> PolicyOptions {
        PolicyOptions {
            node_name: objects::NODE.to_owned(),
            enforcement: self.enforcement,
            cidr_match_nodes: self.cidr_match_nodes,
            ..PolicyOptions::default()
        }
    }

    pub(crate) fn settings(&self) -> DatapathSettings {
        DatapathSettings {
            tcp_syn_s: self.tcp_syn_s,
            ..DatapathSettings::default()
        }
    }

    /// The event of a start with it; `enforced`: the kernel held something.
    pub(crate) fn started(&self, enforced: bool) -> JournalEvent {
        JournalEvent::Started {
            sources: self.sources(),
            options: Some(Box::new(self.policy())),
            options_wait: enforced,
            audit: None,
            endpoints: Vec::new(),
            accepted_ms: 0,
        }
    }

    fn options(&self) -> PipelineOptions {
        PipelineOptions {
            sources: self.sources(),
            policy: PolicyOptions {
                audit: self.audit,
                ..self.policy()
            },
            settings: self.settings(),
            build_permits: 2,
            facts: NodeFacts::default(),
            boot_id: format!("boot {}", self.boot),
        }
    }
}

pub(crate) struct Agent {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) workers: Workers,
    /// Changes whose outcome is not known yet.
    pub(crate) submissions: Vec<Submission>,
    /// What the kernel enforced, and what was restored, when it started.
    pub(crate) kernel_at_start: Option<Revision>,
    pub(crate) restored: Arc<PolicySnapshot>,
    /// The revision that the journal ended with before this start, which may have
    /// made one of its own by other options.
    pub(crate) journaled: Revision,
    /// What the kernel enforced was taken over.
    pub(crate) has_adopted: bool,
    /// Whether somebody asked for a regeneration in this life.
    pub(crate) asked: bool,
    /// Revisions that were published while it might enforce them.
    pub(crate) enforceable: BTreeSet<Revision>,
}

/// How many workers there are.
pub(crate) const WORKERS: usize = 4;

impl Agent {
    pub(crate) fn start(
        config: &Config,
        kernel: &FakeKernel,
        store: Store,
        clock: &Arc<ManualClock>,
    ) -> Self {
        let kernel_at_start = kernel.realized().map(|realized| realized.revision);
        let pipeline = Pipeline::start(
            config.options(),
            Box::new(kernel.datapath()),
            store,
            Arc::clone(clock) as Arc<dyn Clock>,
        );
        let workers = pipeline.take_workers().expect("not yet taken");
        let restored = pipeline.repository();
        let told = workers.endpoints[0].endpoint().revisions().realized;
        Self {
            journaled: restored.revision,
            has_adopted: kernel_at_start == Some(told),
            pipeline,
            workers,
            submissions: Vec::new(),
            kernel_at_start,
            restored,
            asked: false,
            enforceable: BTreeSet::new(),
        }
    }

    /// The kernel holds nothing but what this agent's journal knows.
    pub(crate) fn knows_the_kernel(&self) -> bool {
        self.kernel_at_start.is_none() || self.has_adopted
    }

    /// One worker does one step.
    pub(crate) fn work(&mut self, which: usize, clock: &ManualClock) -> Progress {
        let now = clock.now();
        let workers = &mut self.workers;
        match which {
            0 => workers.repository.step(now),
            1 => workers.reaction.step(now),
            2 => workers.endpoints[0].step(now),
            _ => workers.committer.step(),
        }
    }

    /// An end in good order: SIGTERM.
    pub(crate) fn stop(&mut self) {
        self.pipeline.shutdown();
        self.workers.repository.leave();
        self.workers.reaction.leave();
        self.workers.endpoints[0].leave();
    }
}
