//! Takes the times.

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use palisade::datapath::kernel::KernelDatapath;
use palisade::datapath::{Datapath as _, DatapathSettings, Generation};
use palisade::events::{EndpointId, RepositoryChange, SourceName};
use palisade::policy::{
    Applied, Direction, EndpointPolicy, PolicyOptions, PolicySnapshot, Repository, Resolver,
    Subject, VerdictTable, Work,
};

use crate::world::{self, Size};

const HOST: Subject = Subject::Host(EndpointId(1));
/// How often each is done; the median counts.
const WHOLE_RUNS: usize = 3;
const CHANGE_RUNS: usize = 51;

/// Where the time went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// From text to an object; nothing where that is not measured.
    pub(crate) read: Duration,
    pub(crate) apply: Duration,
    pub(crate) snapshot: Duration,
    pub(crate) resolve: Duration,
    /// Written to the inactive slot and read back.
    pub(crate) stage: Duration,
    /// The flip, and the wait for packets in flight.
    pub(crate) commit: Duration,
}

impl Cost {
    /// Of the control plane: without the kernel.
    pub(crate) fn all(self) -> Duration {
        self.apply + self.snapshot + self.resolve
    }

    /// From text to enforced.
    pub(crate) fn whole(self) -> Duration {
        self.read + self.all() + self.stage + self.commit
    }
}

#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) cost: Cost,
    pub(crate) work: Work,
}

#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) size: Size,
    pub(crate) identities: usize,
    /// Rows and blocks of ingress and egress.
    pub(crate) tables: [[usize; 2]; 2],
    /// The first is the one from nothing.
    pub(crate) lines: Vec<Line>,
}

impl Report {
    pub(crate) fn whole(&self) -> Duration {
        self.lines
            .first()
            .map_or(Duration::ZERO, |line| line.cost.all())
    }
}

pub(crate) fn timed<T>(span: &mut Duration, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    *span += started.elapsed();
    result
}

/// The control plane of one node, without queues, disk and kernel.
pub(crate) struct Plane {
    repository: Repository,
    resolver: Resolver,
    datapath: Option<KernelDatapath>,
}

impl Plane {
    pub(crate) fn new(datapath: Option<KernelDatapath>) -> Self {
        let options = PolicyOptions {
            node_name: world::NODE.to_owned(),
            ..PolicyOptions::default()
        };
        Self {
            repository: Repository::new(options),
            resolver: Resolver::new(HOST),
            datapath,
        }
    }

    pub(crate) fn take(&mut self, changes: &[RepositoryChange]) -> (Cost, EndpointPolicy) {
        self.take_each(changes.iter())
    }

    /// The same; waiting for the next change counts as reading.
    pub(crate) fn take_each(
        &mut self,
        mut changes: impl Iterator<Item: Borrow<RepositoryChange>>,
    ) -> (Cost, EndpointPolicy) {
        let mut cost = Cost::default();
        while let Some(change) = timed(&mut cost.read, || changes.next()) {
            timed(&mut cost.apply, || {
                if let Applied::Refused(refusal) = self.repository.apply(change.borrow()) {
                    panic!("{refusal}");
                }
            });
        }
        let snapshot = timed(&mut cost.snapshot, || self.repository.snapshot());
        let policy = timed(&mut cost.resolve, || self.resolve(&snapshot));
        if let Some(datapath) = &mut self.datapath {
            let generation = Generation {
                revision: snapshot.revision,
                endpoints: vec![Arc::new(policy.clone())],
                ipcache4: snapshot.ipcache4.clone(),
                ipcache6: snapshot.ipcache6.clone(),
                settings: Arc::new(DatapathSettings::default()),
            };
            timed(&mut cost.stage, || {
                datapath.matches_current(&generation).expect("compared");
                datapath.stage(&generation).expect("staged");
            });
            timed(&mut cost.commit, || datapath.commit().expect("committed"));
        }
        (cost, policy)
    }

    /// What the last tables cost.
    pub(crate) fn work(&self) -> Work {
        self.resolver.work()
    }

    pub(crate) fn identities(&self) -> usize {
        self.repository.snapshot().identities.len()
    }

    /// Rows and blocks of ingress, as they were last.
    pub(crate) fn ingress(&mut self) -> [usize; 2] {
        let snapshot = self.repository.snapshot();
        size_of(&self.resolve(&snapshot).direction(Direction::Ingress).table)
    }

    /// After all that: the tables are those of a resolver that has seen nothing.
    pub(crate) fn check(&mut self) {
        let snapshot = self.repository.snapshot();
        let followed = self.resolve(&snapshot);
        self.resolver = Resolver::new(HOST);
        assert!(followed == self.resolve(&snapshot), "the tables differ");
    }

    fn resolve(&mut self, snapshot: &PolicySnapshot) -> EndpointPolicy {
        match self.resolver.resolve(snapshot, false) {
            Ok(policy) => policy,
            Err(error) => panic!("{error}"),
        }
    }
}

pub(crate) fn run(size: Size, mut datapath: Option<KernelDatapath>) -> Report {
    let all: Vec<RepositoryChange> = world::objects(size)
        .into_iter()
        .chain(world::policies(size))
        .collect();
    let mut plane = Plane::new(None);
    let mut costs = Vec::new();
    let mut tables = [[0; 2]; 2];
    for run in 1..=WHOLE_RUNS {
        let last = run == WHOLE_RUNS;
        plane = Plane::new(datapath.take_if(|_| last));
        let (cost, policy) = plane.take(&all);
        tables = Direction::BOTH.map(|direction| size_of(&policy.direction(direction).table));
        costs.push(cost);
    }
    let mut lines = vec![Line {
        name: "all from nothing",
        cost: whole(costs),
        work: plane.resolver.work(),
    }];
    lines.extend(
        changes(size)
            .into_iter()
            .map(|(name, there, back)| repeated(&mut plane, name, [&there, &back])),
    );
    plane.check();
    Report {
        size,
        identities: plane.repository.snapshot().identities.len(),
        tables,
        lines,
    }
}

/// What is done again and again, and undone each time.
fn changes(size: Size) -> Vec<(&'static str, RepositoryChange, RepositoryChange)> {
    let gone = |change: &RepositoryChange| RepositoryChange::Delete {
        key: world::key(change),
        source: SourceName::Manifests,
    };
    let more = world::pod(size.pods, 7);
    let policy = world::policy(size.policies + 6);
    let group = world::group_prefixes();
    let mut all = vec![
        ("one pod's labels", world::pod(3, 8), world::pod(3, 3)),
        ("one pod more, one less", more.clone(), gone(&more)),
        (
            "one member of a CIDR group",
            world::group(4, group + 1),
            world::group(4, group),
        ),
        (
            "one other node's labels",
            world::node(9, 0),
            world::node(9, 4),
        ),
        ("one policy more, one less", policy.clone(), gone(&policy)),
    ];
    if size.pairs > 0 {
        let pair = |number: usize| world::pairs(usize::MAX, number..number + 1);
        let (one, other) = (pair(size.pairs - 1), pair(0));
        all.push(("one rule of a pair of another's", one, other));
    }
    all
}

/// The median of a change there and back, and the work of the last.
fn repeated(plane: &mut Plane, name: &'static str, way: [&RepositoryChange; 2]) -> Line {
    let mut costs = Vec::new();
    let mut work = Work::default();
    for change in std::iter::repeat_n(way, CHANGE_RUNS).flatten() {
        let (cost, _) = plane.take(std::slice::from_ref(change));
        costs.push(cost);
        work = plane.resolver.work();
    }
    Line {
        name,
        cost: median(costs),
        work,
    }
}

/// The median; the kernel saw the last one only.
fn whole(costs: Vec<Cost>) -> Cost {
    let last = costs.last().copied().unwrap_or_default();
    Cost {
        stage: last.stage,
        commit: last.commit,
        ..median(costs)
    }
}

pub(crate) fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort_by_key(|cost| cost.whole());
    costs[costs.len() / 2]
}

/// Rows and blocks.
fn size_of(table: &VerdictTable) -> [usize; 2] {
    [table.different_rows().0.len(), table.block_count()]
}
