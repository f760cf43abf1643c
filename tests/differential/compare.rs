//! Runs a case: each step through the policy engine and the datapath, each
//! packet past all three judges.

use palisade::events::{RepositoryChange, SourceName};
use palisade::policy::{
    Applied, EndpointPolicy, PolicySnapshot, Repository, Resolver, Row, documents,
};
use serde_json::Value;
use std::sync::Arc;

use crate::case::{Case, Change, Objects, apply, key};
use crate::flows::{Flows, is_answered};
use crate::kernel::Kernel;
use crate::probes::{Probe, Target};
use crate::random::Random;
use crate::verdict::{self, Expected, HOST, Plain};

/// Packets for each generation.
const PROBES: usize = 300;

/// Two judges that say different things, or something that should have worked.
#[derive(Clone, Debug)]
pub(crate) struct Mismatch {
    /// The step after which it was seen.
    pub(crate) step: usize,
    pub(crate) probe: Option<Probe>,
    /// Which two differ, and in what.
    pub(crate) what: &'static str,
    /// What each said.
    pub(crate) said: String,
}

/// In the name of each mismatch that needs the kernel.
pub(crate) const PROGRAMS: &str = "programs";

/// What was compared.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Count {
    /// Rule sets: one for each step of a case.
    pub(crate) rule_sets: u64,
    /// (rule set, packet) judged by oracle and table.
    pub(crate) pairs: u64,
    /// Of these, judged by the programs too.
    pub(crate) in_kernel: u64,
    /// Reports of the programs that were compared in full.
    pub(crate) events: u64,
    /// Pairs that were dropped by policy.
    pub(crate) dropped: u64,
    /// Pairs that a rule decided, not the lack of one.
    pub(crate) by_rule: u64,
    /// Rule sets that the tables could not hold.
    pub(crate) too_large: u64,
}

impl Count {
    pub(crate) fn add(&mut self, other: Self) {
        self.rule_sets += other.rule_sets;
        self.pairs += other.pairs;
        self.in_kernel += other.in_kernel;
        self.events += other.events;
        self.dropped += other.dropped;
        self.by_rule += other.by_rule;
        self.too_large += other.too_large;
    }
}

/// A fault that is put in on purpose, to see that it is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Plant {
    Nothing,
    /// One cell of the compiled table is wrong.
    Table,
    /// One cell of what is written into the kernel is wrong.
    Kernel,
}

/// Which packets a generation is asked about.
#[derive(Clone, Copy)]
pub(crate) enum Ask<'a> {
    /// Packets near what is named.
    Many,
    /// One, after the last step.
    Last(Option<&'a Probe>),
}

/// The judges.
pub(crate) struct Judges {
    /// None where programs cannot be loaded.
    pub(crate) kernel: Option<Kernel>,
    pub(crate) plant: Plant,
}

/// The policy engine after a step.
struct State {
    snapshot: Arc<PolicySnapshot>,
    policy: EndpointPolicy,
    /// Everything from nothing: what came and went must leave no trace.
    fresh: Option<Arc<PolicySnapshot>>,
}

/// A step, and what is asked about it.
struct Generation<'a> {
    case: &'a Case,
    step: usize,
    state: &'a State,
    probes: &'a [Probe],
}

impl Judges {
    /// Runs a whole case.
    pub(crate) fn run(&mut self, case: &Case, ask: Ask<'_>) -> Result<Count, Mismatch> {
        let mut count = Count::default();
        let mut random = Random::new(!case.seed);
        let mut repository = repository(case);
        let mut resolver = Resolver::new(HOST);
        let mut objects = Objects::new();
        let mut flows = case.flows.then(Flows::default);
        for (number, step) in case.steps.iter().enumerate() {
            let last = number + 1 == case.steps.len();
            for change in step {
                put(&mut repository, case.seed, change).map_err(|said| Mismatch {
                    step: number,
                    probe: None,
                    what: "a valid manifest is refused",
                    said: format!("{said}\n{}", text(change.object(), 0)),
                })?;
            }
            apply(&mut objects, step);
            let kept = flows
                .as_ref()
                .map_or(Vec::new(), |flows| flows.kept.clone());
            let probes: Vec<Probe> = match ask {
                Ask::Many => {
                    let target = Target::new(case, &objects);
                    let new = target.probes(PROBES, &mut random);
                    kept.into_iter().chain(new).collect()
                }
                Ask::Last(probe) if last || case.flows => probe.into_iter().cloned().collect(),
                Ask::Last(_) => Vec::new(),
            };
            count.rule_sets += 1;
            let Some(state) = self.state(case, &repository, &mut resolver, last) else {
                count.too_large += 1;
                continue;
            };
            let generation = Generation {
                case,
                step: number,
                state: &state,
                probes: &probes,
            };
            self.generation(&generation, flows.as_mut(), &mut count)?;
        }
        Ok(count)
    }

    fn state(
        &self,
        case: &Case,
        repository: &Repository,
        resolver: &mut Resolver,
        last: bool,
    ) -> Option<State> {
        let snapshot = repository.snapshot();
        let mut policy = resolver.resolve(&snapshot, case.audit).ok()?;
        if self.plant == Plant::Table {
            spoil(&mut policy, case.seed);
        }
        let fresh = (last && case.steps.len() > 1).then(|| {
            let case = case.flattened();
            let mut fresh = self::repository(&case);
            for change in &case.steps[0] {
                // Refused before, if at all.
                drop(put(&mut fresh, case.seed, change));
            }
            fresh.snapshot()
        });
        Some(State {
            snapshot,
            policy,
            fresh,
        })
    }

    fn generation(
        &mut self,
        generation: &Generation<'_>,
        mut flows: Option<&mut Flows>,
        count: &mut Count,
    ) -> Result<(), Mismatch> {
        let Generation {
            case,
            step,
            state,
            probes,
        } = generation;
        let mismatch = |probe: Option<&Probe>, what, said| Mismatch {
            step: *step,
            probe: probe.cloned(),
            what,
            said,
        };
        self.commit(case, state)
            .map_err(|said| mismatch(None, "the datapath of the programs refuses", said))?;
        let plain = tables(case, state, probes, count)
            .map_err(|(probe, what, said)| mismatch(Some(probe), what, said))?;
        let mut missing = 0;
        for (probe, Plain { answer, own }) in probes.iter().zip(plain) {
            let differ = |(what, said)| mismatch(Some(probe), what, said);
            let Some(kernel) = &mut self.kernel else {
                continue;
            };
            if let Some(flows) = &mut flows
                && (own || !flows.admits(probe))
            {
                continue;
            }
            let expected = verdict::expected(&answer, probe, own);
            let found = programs(kernel, state, probe, &expected).map_err(differ)?;
            if flows.is_some() {
                follows(kernel, probe, &expected).map_err(differ)?;
            }
            count.in_kernel += 1;
            count.events += found.events;
            missing += found.missing;
        }
        let lost = self.kernel.as_mut().map_or(0, Kernel::lost);
        // Only a flow's first packet is reported.
        if missing != lost && flows.is_none() {
            let said = format!("{missing} events are missing, {lost} were counted as lost");
            let probe = (probes.len() == 1).then(|| &probes[0]);
            return Err(mismatch(probe, "events of the programs", said));
        }
        Ok(())
    }

    fn commit(&mut self, case: &Case, state: &State) -> Result<(), String> {
        let Some(kernel) = &mut self.kernel else {
            return Ok(());
        };
        let mut written = state.policy.clone();
        if self.plant == Plant::Kernel {
            spoil(&mut written, case.seed);
        }
        kernel
            .commit(&state.snapshot, &written, case.flows)
            .map_err(|error| error.to_string())
    }
}

/// Oracle against table, and against the oracle on a fresh repository.
fn tables<'p>(
    case: &Case,
    state: &State,
    probes: &'p [Probe],
    count: &mut Count,
) -> Result<Vec<Plain>, (&'p Probe, &'static str, String)> {
    let audit = case.audit || case.options.audit;
    let plain = verdict::of_oracle(&state.snapshot, audit, probes);
    for (probe, Plain { answer, .. }) in probes.iter().zip(&plain) {
        let table = verdict::of_table(&state.snapshot, &state.policy, probe);
        if *answer != table {
            let said = format!("oracle  {answer:?}\ntable   {table:?}");
            return Err((probe, "oracle and table", said));
        }
        count.pairs += 1;
        count.dropped += u64::from(!answer.passes());
        count.by_rule += u64::from(answer.rule.is_some());
    }
    if let Some(fresh) = &state.fresh {
        let fresh = verdict::of_oracle(fresh, audit, probes);
        let pairs = plain.iter().zip(&fresh);
        for (probe, (plain, fresh)) in probes.iter().zip(pairs) {
            if plain.answer != fresh.answer {
                let said = format!("oracle  {:?}\nfresh   {:?}", plain.answer, fresh.answer);
                return Err((probe, "the same objects with and without a past", said));
            }
        }
    }
    Ok(plain)
}

/// What the frames of one probe told.
#[derive(Default)]
struct Found {
    events: u64,
    missing: u64,
}

/// Oracle against programs.
fn programs(
    kernel: &mut Kernel,
    state: &State,
    probe: &Probe,
    expected: &Expected,
) -> Result<Found, (&'static str, String)> {
    let snapshot = &state.snapshot;
    let mut found = Found::default();
    for (number, seen) in kernel.judge(probe).iter().enumerate() {
        match verdict::holds(snapshot, probe, expected, seen) {
            Ok(true) => found.events += u64::from(seen.event.is_some()),
            Ok(false) => found.missing += 1,
            Err(what) => {
                let shown = verdict::show(snapshot, seen);
                let said = format!(
                    "oracle  {expected:?}\nkernel  {shown}\n\
                     frame   {number}, they differ in {what}"
                );
                return Err(("oracle and programs", said));
            }
        }
    }
    Ok(found)
}

/// What answers a packet that has passed, passes.
fn follows(
    kernel: &mut Kernel,
    probe: &Probe,
    expected: &Expected,
) -> Result<(), (&'static str, String)> {
    if !expected.passes() || !is_answered(probe) || kernel.answer(probe).passes {
        return Ok(());
    }
    let said = format!("oracle  {expected:?}\nkernel  drops the answer");
    Err(("answers and programs", said))
}

fn repository(case: &Case) -> Repository {
    let mut repository = Repository::new(case.options.clone());
    repository.apply(&RepositoryChange::LocalAddresses(case.local.clone()));
    repository
}

/// From the text of a manifest into the repository.
fn put(repository: &mut Repository, seed: u64, change: &Change) -> Result<(), String> {
    let text = text(change.object(), seed);
    let reading = documents::read("case", text.as_bytes(), SourceName::Manifests);
    let [document] = &reading.documents[..] else {
        return Err(format!("{}: not read: {reading:?}", key(change.object())));
    };
    let resource = document.resource.clone();
    let applied = repository.apply(&match change {
        Change::Put(_) => RepositoryChange::Upsert(resource),
        Change::Delete(_) => RepositoryChange::Delete {
            key: resource.key,
            source: resource.source,
        },
    });
    match applied {
        Applied::Changed(_) | Applied::Unchanged => Ok(()),
        Applied::Refused(refusal) => Err(refusal.to_string()),
    }
}

/// Half of the seeds write YAML, half JSON.
fn text(object: &Value, seed: u64) -> String {
    if seed.is_multiple_of(2) {
        serde_yaml_ng::to_string(object).expect("YAML")
    } else {
        object.to_string()
    }
}

/// Makes one run of keys wrong.
fn spoil(policy: &mut EndpointPolicy, seed: u64) {
    use palisade_abi::table::{Cell, action};
    for direction in &mut policy.directions {
        let table = &mut Arc::make_mut(direction).table;
        let indexes: Vec<_> = table.rows.iter().map(|(index, _)| index).collect();
        if indexes.is_empty() {
            continue;
        }
        let mut random = Random::new(seed);
        let index = indexes[random.below(indexes.len())];
        let mut runs = table.row(index).map_or_else(Vec::new, Row::runs);
        let place = random.below(runs.len());
        let is = runs[place].1;
        let wrong = match is.action() {
            action::ALLOW => action::NO_MATCH,
            _ => action::ALLOW,
        };
        runs[place].1 = Cell::new(wrong, false, is.rule());
        table.rows.insert(index, Row::of(&runs));
    }
}
