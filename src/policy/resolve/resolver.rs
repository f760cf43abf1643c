//! The resolver of one endpoint: keeps what it computed, and follows the
//! difference between two snapshots.
//!
//! Everything is computed anew when the policies that select the endpoint or
//! the options change what a direction is made of; else only the identities
//! whose selectors or named ports changed are looked up again. Either way the
//! result equals that of a resolver that has seen nothing before.

use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use palisade_abi::table::BLOCKS_MAX;

use super::direction::{DirectionState, Limits};
use super::gather::gather;
use super::{ResolveError, Subject};
use crate::events::ResourceKey;
use crate::identity::{IdentityIndex, LabelSet};
use crate::policy::{
    Direction, EndpointPolicy, PolicyOptions, PolicySnapshot, Selections, StoredPolicy,
    VerdictTable,
};

/// What one resolution had to do, over both directions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Work {
    /// Directions computed from nothing.
    pub directions: usize,
    /// Times that columns were made again for the ports of named ports.
    pub columns: usize,
    /// Identities looked up.
    pub identities: usize,
    /// Rows painted.
    pub rows: usize,
}

/// Resolves one endpoint again and again. Memory: that of its tables, and of
/// the last snapshot's maps.
#[derive(Debug)]
pub struct Resolver {
    ask: Ask,
    last: Option<Last>,
    work: Work,
}

/// What is resolved, and what fits.
#[derive(Clone, Copy, Debug)]
struct Ask {
    subject: Subject,
    /// Blocks of both directions.
    blocks_max: usize,
}

impl Ask {
    fn limits(self, direction: Direction) -> Limits {
        Limits {
            direction,
            blocks_max: self.blocks_max,
        }
    }
}

/// What the last result was made from, and the machinery to follow.
#[derive(Debug)]
struct Last {
    rules: RuleInputs,
    selections: Selections,
    directions: [DirectionState; 2],
}

/// What decides which items a direction has.
#[derive(Debug)]
struct RuleInputs {
    audit: bool,
    options: Arc<PolicyOptions>,
    host_labels: Arc<LabelSet>,
    policies: OrdMap<ResourceKey, Arc<StoredPolicy>>,
}

impl RuleInputs {
    fn of(snapshot: &PolicySnapshot, audit: bool) -> Self {
        Self {
            audit,
            options: Arc::clone(&snapshot.options),
            host_labels: Arc::clone(&snapshot.host_labels),
            policies: snapshot.policies.clone(),
        }
    }

    /// Whether the items are the same in `snapshot`, selectors aside.
    fn hold(&self, snapshot: &PolicySnapshot) -> bool {
        let selects = |stored: &Arc<StoredPolicy>| stored.selects_host;
        self.options == snapshot.options
            && self.host_labels == snapshot.host_labels
            && self
                .policies
                .diff(&snapshot.policies)
                .all(|item| match item {
                    DiffItem::Add(_, stored) | DiffItem::Remove(_, stored) => !selects(stored),
                    DiffItem::Update { old, new } => !selects(old.1) && !selects(new.1),
                })
    }
}

impl Resolver {
    /// A resolver that has seen nothing.
    #[must_use]
    pub fn new(subject: Subject) -> Self {
        Self::with_blocks(subject, BLOCKS_MAX as usize)
    }

    /// The same where so many blocks fit.
    pub(super) fn with_blocks(subject: Subject, blocks_max: usize) -> Self {
        Self {
            ask: Ask {
                subject,
                blocks_max,
            },
            last: None,
            work: Work::default(),
        }
    }

    /// What the last resolution had to do.
    #[must_use]
    pub fn work(&self) -> Work {
        self.work
    }

    /// The verdicts of the endpoint. `audit`: its own audit switch (the agent's
    /// is in the snapshot). After an error the next one begins from nothing.
    pub fn resolve(
        &mut self,
        snapshot: &PolicySnapshot,
        audit: bool,
    ) -> Result<EndpointPolicy, ResolveError> {
        self.work = Work::default();
        let audit = audit || snapshot.options.audit;
        let last = match self.last.take() {
            Some(last) => last.follow(self.ask, snapshot, audit, &mut self.work)?,
            None => Last::new(self.ask, snapshot, audit, &mut self.work)?,
        };
        last.fits(self.ask.blocks_max)?;
        let last = self.last.insert(last);
        Ok(EndpointPolicy {
            endpoint: self.ask.subject.endpoint(),
            revision: snapshot.revision,
            directions: [0, 1].map(|place| Arc::clone(&last.directions[place].policy)),
            rules: snapshot.rules.clone(),
        })
    }
}

impl Last {
    fn new(
        ask: Ask,
        snapshot: &PolicySnapshot,
        audit: bool,
        work: &mut Work,
    ) -> Result<Self, ResolveError> {
        let mut of = |direction| {
            let gathered = gather(snapshot, ask.subject, direction);
            let selections = &snapshot.selections;
            DirectionState::new(
                ask.limits(direction),
                gathered,
                audit,
                selections,
                None,
                work,
            )
        };
        Ok(Self {
            directions: [of(Direction::Ingress)?, of(Direction::Egress)?],
            rules: RuleInputs::of(snapshot, audit),
            selections: snapshot.selections.clone(),
        })
    }

    fn follow(
        self,
        ask: Ask,
        snapshot: &PolicySnapshot,
        audit: bool,
        work: &mut Work,
    ) -> Result<Self, ResolveError> {
        let same_items = self.rules.hold(snapshot) && self.same_selectors(&snapshot.selections);
        let changed = changed(&self.selections, &snapshot.selections);
        let audit_stays = self.rules.audit == audit;
        let mut of = |mut state: DirectionState, direction| {
            let gathered = (!same_items).then(|| gather(snapshot, ask.subject, direction));
            let gathered = gathered.filter(|gathered| *gathered != state.gathered);
            let selections = &snapshot.selections;
            if gathered.is_none() && audit_stays && !state.is_worn() {
                state.update(selections, &changed, work)?;
                return Ok(state);
            }
            let (old, before) = state.into_before();
            let gathered = gathered.unwrap_or(old);
            DirectionState::new(
                ask.limits(direction),
                gathered,
                audit,
                selections,
                Some(before),
                work,
            )
        };
        let [ingress, egress] = self.directions;
        Ok(Self {
            directions: [
                of(ingress, Direction::Ingress)?,
                of(egress, Direction::Egress)?,
            ],
            rules: RuleInputs::of(snapshot, audit),
            selections: snapshot.selections.clone(),
        })
    }

    /// Both directions share the blocks of a slot. They are counted only where
    /// there may be too many.
    fn fits(&self, max: usize) -> Result<(), ResolveError> {
        let [ingress, egress] = &self.directions;
        if ingress.blocks_at_most() + egress.blocks_at_most() <= max {
            return Ok(());
        }
        let tables = [ingress, egress].map(|state| &state.policy.table);
        let blocks = tables.map(VerdictTable::block_count);
        let needed = blocks[0] + blocks[1];
        if needed <= max {
            return Ok(());
        }
        let larger = Direction::BOTH[usize::from(blocks[1] > blocks[0])];
        let table = tables[larger as usize];
        Err(ResolveError::Blocks {
            direction: larger.as_str(),
            rows: table.cells.len(),
            columns: table.column_count as usize,
            at_least: false,
            needed,
            max,
        })
    }

    fn same_selectors(&self, selections: &Selections) -> bool {
        self.selections.ids.diff(&selections.ids).next().is_none()
    }
}

/// The identities of which something changed that decides about their row.
fn changed(old: &Selections, new: &Selections) -> Vec<IdentityIndex> {
    let signatures = old.by_identity.diff(&new.by_identity).map(index);
    let ports = old.named_ports.diff(&new.named_ports).map(index);
    let mut changed: Vec<IdentityIndex> = signatures.chain(ports).collect();
    changed.sort_unstable();
    changed.dedup();
    changed
}

fn index<V>(item: DiffItem<'_, '_, IdentityIndex, V>) -> IdentityIndex {
    match item {
        DiffItem::Add(index, _) | DiffItem::Remove(index, _) => *index,
        DiffItem::Update { new, .. } => *new.0,
    }
}
