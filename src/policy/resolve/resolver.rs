//! The resolver of one endpoint: keeps what it computed, and follows the
//! difference between two snapshots.
//!
//! Only the identities are looked up again whose selectors or named ports
//! changed, or that a changed item selects. Everything is computed anew when the
//! options or the labels of the host change, or when a direction begins or
//! ceases to be enforced. Either way the result equals that of a resolver that
//! has seen nothing before.

use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use palisade_abi::table::BLOCKS_MAX;

use super::direction::{Changes, DirectionState, Limits};
use super::holders::Holders;
use super::{ResolveError, Subject};
use crate::events::ResourceKey;
use crate::identity::LabelSet;
use crate::policy::{
    Direction, EndpointPolicy, PolicyOptions, PolicySnapshot, Selections, StoredPolicy,
    VerdictTable,
};

/// What one resolution had to do, over both directions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Work {
    /// Directions computed from nothing.
    pub directions: usize,
    /// Identities looked up.
    pub identities: usize,
    /// Rows painted.
    pub rows: usize,
    /// Identities that got another row, or lost it.
    pub given: usize,
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
    audit: bool,
    options: Arc<PolicyOptions>,
    host_labels: Arc<LabelSet>,
    policies: OrdMap<ResourceKey, Arc<StoredPolicy>>,
    selections: Selections,
    holders: Holders,
    directions: [DirectionState; 2],
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
            None => Last::new(self.ask, snapshot, audit, None, &mut self.work)?,
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
        before: Option<[DirectionState; 2]>,
        work: &mut Work,
    ) -> Result<Self, ResolveError> {
        let [ingress, egress] = before.map_or_else(Default::default, |both| both.map(Some));
        let mut of = |direction, before: Option<DirectionState>| {
            let shelf = before.map(DirectionState::into_shelf);
            let (limits, shelf) = (ask.limits(direction), shelf.unwrap_or_default());
            DirectionState::new(limits, snapshot, audit, shelf, work)
        };
        let directions = [
            of(Direction::Ingress, ingress)?,
            of(Direction::Egress, egress)?,
        ];
        let holders = Holders::new(&snapshot.selections);
        Ok(Self::of(snapshot, audit, holders, directions))
    }

    fn of(
        snapshot: &PolicySnapshot,
        audit: bool,
        holders: Holders,
        directions: [DirectionState; 2],
    ) -> Self {
        Self {
            audit,
            options: Arc::clone(&snapshot.options),
            host_labels: Arc::clone(&snapshot.host_labels),
            policies: snapshot.policies.clone(),
            selections: snapshot.selections.clone(),
            holders,
            directions,
        }
    }

    fn follow(
        self,
        ask: Ask,
        snapshot: &PolicySnapshot,
        audit: bool,
        work: &mut Work,
    ) -> Result<Self, ResolveError> {
        if !self.can_follow(snapshot, audit) {
            return Self::new(ask, snapshot, audit, Some(self.directions), work);
        }
        let mut holders = self.holders;
        let changes = Changes {
            identities: holders.follow(&self.selections, &snapshot.selections),
            policies: changed_policies(&self.policies, &snapshot.policies),
            holders: &holders,
        };
        let mut of = |mut state: DirectionState, direction| {
            if state.follow(snapshot, &changes, work)? {
                return Ok(state);
            }
            let shelf = state.into_shelf();
            DirectionState::new(ask.limits(direction), snapshot, audit, shelf, work)
        };
        let [ingress, egress] = self.directions;
        let directions = [
            of(ingress, Direction::Ingress)?,
            of(egress, Direction::Egress)?,
        ];
        Ok(Self::of(snapshot, audit, holders, directions))
    }

    /// Whether what was kept means in `snapshot` what it meant before.
    fn can_follow(&self, snapshot: &PolicySnapshot, audit: bool) -> bool {
        self.audit == audit
            && self.options == snapshot.options
            && self.host_labels == snapshot.host_labels
            && !self.selections.ids.are_others_in(&snapshot.selections.ids)
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
            rows: table.different_rows().0.len(),
            at_least: false,
            needed,
            max,
        })
    }
}

/// The policies that select the endpoint, or did, and are others now.
fn changed_policies<'a>(
    old: &'a OrdMap<ResourceKey, Arc<StoredPolicy>>,
    new: &'a OrdMap<ResourceKey, Arc<StoredPolicy>>,
) -> Vec<(&'a ResourceKey, Option<&'a StoredPolicy>)> {
    let selects = |stored: &Arc<StoredPolicy>| stored.selects_host;
    let changed = old.diff(new).filter_map(|item| match item {
        DiffItem::Add(key, stored) => selects(stored).then_some((key, Some(&**stored))),
        DiffItem::Remove(key, stored) => selects(stored).then_some((key, None)),
        DiffItem::Update { old, new } => {
            (selects(old.1) || selects(new.1)).then_some((new.0, Some(&**new.1)))
        }
    });
    changed.collect()
}
