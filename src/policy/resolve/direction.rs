//! The table of one direction, and what is kept to make the next one.
//!
//! Invariant: a table made from what was kept equals one made from nothing, bit
//! for bit. An identity has a row, which says what the items make of each key,
//! and nothing of a table depends on what came before.

use std::collections::HashSet;
use std::sync::Arc;

use palisade_abi::table::{Cell, action};

use super::cells::RowMaker;
use super::holders::Holders;
use super::items::{Items, Stance, Touched};
use super::population::{Population, meanings};
use super::sets::Set;
use super::{ResolveError, Work};
use crate::events::ResourceKey;
use crate::identity::{DenseMap, IdentityIndex};
use crate::policy::row::{Row, Shelf, block_count};
use crate::policy::{
    Direction, DirectionPolicy, PolicySnapshot, Selections, Signature, StoredPolicy, VerdictTable,
};

/// What may be kept although nobody needs it any more, besides as much again
/// as is needed: blocks, nodes of sets.
const STALE_MAX: usize = 4_096;

/// One direction.
#[derive(Debug)]
pub(super) struct DirectionState {
    limits: Limits,
    audit: bool,
    items: Items,
    stance: Stance,
    /// None where no table is asked.
    tables: Option<Tables>,
    pub(super) policy: Arc<DirectionPolicy>,
}

/// Everything between the items and the table.
#[derive(Debug)]
struct Tables {
    population: Population,
    maker: RowMaker,
    /// The blocks of all rows, and how many there were when it was swept last.
    shelf: Shelf,
    swept: usize,
    /// As the last table has them.
    rows: DenseMap<IdentityIndex, Row>,
    denied: Row,
    everyone: Row,
    /// Nodes of sets after the full computation.
    sets_at_first: usize,
}

/// What is different in the snapshot that is followed.
#[derive(Debug)]
pub(super) struct Changes<'a> {
    /// With what they are now.
    pub(super) policies: Vec<(&'a ResourceKey, Option<&'a StoredPolicy>)>,
    /// Identities that others select, or whose named ports are others.
    pub(super) identities: Vec<IdentityIndex>,
    /// Who is selected by whom, now.
    pub(super) holders: &'a Holders,
}

impl DirectionState {
    /// Computes everything. What is on the shelf already is shared.
    pub(super) fn new(
        limits: Limits,
        snapshot: &PolicySnapshot,
        audit: bool,
        shelf: Shelf,
        work: &mut Work,
    ) -> Result<Self, ResolveError> {
        work.directions += 1;
        let mut items = Items::new(snapshot, limits.direction);
        let stance = items.stance();
        let (tables, table) = if stance.decides() {
            let maker = RowMaker::new(stance, audit);
            let mut tables = Tables::new(maker, shelf);
            tables.settle_all(&mut items, &snapshot.selections, work);
            tables.settle_everyone(&items);
            tables.settle_rows(&items, limits, work)?;
            let table = tables.table();
            (Some(tables), table)
        } else {
            (None, open_table())
        };
        let mut state = Self {
            limits,
            audit,
            items,
            stance,
            tables,
            policy: Arc::new(DirectionPolicy::default()),
        };
        state.policy = Arc::new(state.policy(table));
        Ok(state)
    }

    /// What the next one may share.
    pub(super) fn into_shelf(self) -> Shelf {
        let shelf = self.tables.map(|tables| tables.shelf);
        shelf.unwrap_or_default()
    }

    /// Blocks of the table, or more: those of tables before it.
    pub(super) fn blocks_at_most(&self) -> usize {
        let tables = self.tables.as_ref();
        tables.map_or(0, |tables| tables.shelf.len())
    }

    /// Follows a change. False where it is better to begin anew.
    pub(super) fn follow(
        &mut self,
        snapshot: &PolicySnapshot,
        changes: &Changes<'_>,
        work: &mut Work,
    ) -> Result<bool, ResolveError> {
        let selections = &snapshot.selections;
        let mut touched = Touched::default();
        for (key, stored) in &changes.policies {
            if stored.is_some_and(|stored| !self.items.has_room_for(stored)) {
                return Ok(false);
            }
            self.items.put(key, *stored, selections, &mut touched);
        }
        if self.items.stance() != self.stance || touched.always {
            return Ok(false);
        }
        let Some(tables) = &mut self.tables else {
            return Ok(true);
        };
        if tables.is_worn(&self.items) {
            return Ok(false);
        }
        tables.follow(&mut self.items, selections, changes, &touched, work);
        let mut news = false;
        if touched.everyone {
            news |= tables.settle_everyone(&self.items);
            if tables.maker.is_merging() {
                tables.population.forget_rows();
            }
        }
        news |= tables.settle_rows(&self.items, self.limits, work)?;
        if news {
            let table = tables.table();
            self.policy = Arc::new(self.policy(table));
        }
        let same_names = self.items.enforcing == self.policy.enforcing
            && self.items.auditing == self.policy.auditing;
        if !changes.policies.is_empty() && !same_names {
            self.policy = Arc::new(self.policy(self.policy.table.clone()));
        }
        Ok(true)
    }

    fn policy(&self, table: VerdictTable) -> DirectionPolicy {
        DirectionPolicy {
            enforced: self.stance.enforced,
            watched: self.stance.watched,
            audit: self.audit,
            enforcing: self.items.enforcing.clone(),
            auditing: self.items.auditing.clone(),
            table,
        }
    }
}

impl Tables {
    fn new(maker: RowMaker, shelf: Shelf) -> Self {
        Self {
            population: Population::new(),
            maker,
            swept: shelf.len(),
            shelf,
            rows: DenseMap::default(),
            denied: Row::default(),
            everyone: Row::default(),
            sets_at_first: 0,
        }
    }

    fn settle_all(&mut self, items: &mut Items, selections: &Selections, work: &mut Work) {
        for (index, signature) in selections.by_identity.iter() {
            self.settle(items, selections, index, Some(signature));
        }
        work.identities += selections.by_identity.len();
        self.sets_at_first = items.sets.size();
    }

    /// Looks up the identities that a change has touched.
    fn follow(
        &mut self,
        items: &mut Items,
        selections: &Selections,
        changes: &Changes<'_>,
        touched: &Touched,
        work: &mut Work,
    ) {
        let mut identities = changes.identities.clone();
        for (selector, before) in &touched.selectors {
            if items.of_selector(*selector) != *before {
                identities.extend(changes.holders.of(*selector));
            }
        }
        identities.sort_unstable();
        identities.dedup();
        for index in &identities {
            let signature = selections.by_identity.get(index);
            self.settle(items, selections, *index, signature);
        }
        work.identities += identities.len();
    }

    /// Looks an identity up again.
    fn settle(
        &mut self,
        items: &mut Items,
        selections: &Selections,
        index: IdentityIndex,
        signature: Option<&Signature>,
    ) {
        let key = signature.map(|signature| {
            let own = items.of_signature(signature);
            let named = selections.named_ports.get(&index);
            let named = named.filter(|_| items.uses_names());
            let meanings = named.map_or_else(Vec::new, |ports| meanings(items, own, ports));
            self.population.key(own, meanings)
        });
        // The unknown identity is always there.
        let unknown =
            (index == IdentityIndex(0)).then(|| self.population.key(Set::EMPTY, Vec::new()));
        self.population.put(index.0, key.or(unknown));
    }

    /// Paints everyone's rows. Whether one is another.
    fn settle_everyone(&mut self, items: &Items) -> bool {
        let denied = self.maker.denied(items, &mut self.shelf);
        let everyone = self.maker.everyone(items, &mut self.shelf);
        let pairs = [(&self.denied, &denied), (&self.everyone, &everyone)];
        let news = pairs
            .iter()
            .any(|(was, is)| was.identity() != is.identity());
        (self.denied, self.everyone) = (denied, everyone);
        news
    }

    /// Paints the classes that have no row yet, and gives identities the rows of
    /// their classes. Whether a row has changed.
    fn settle_rows(
        &mut self,
        items: &Items,
        limits: Limits,
        work: &mut Work,
    ) -> Result<bool, ResolveError> {
        self.paint(items, limits, work)?;
        self.maker.rest();
        let mut news = false;
        for index in self.population.take_moved() {
            let place = IdentityIndex(index);
            let (was, is) = (self.rows.get(&place), self.population.row_of(index));
            if was.map(Row::identity) == is.map(Row::identity) {
                continue;
            }
            news = true;
            work.given += 1;
            match is {
                Some(row) => drop(self.rows.insert(place, row.clone())),
                None => drop(self.rows.remove(&place)),
            }
        }
        if self.shelf.len() > 2 * self.swept + STALE_MAX {
            self.shelf.sweep();
            self.swept = self.shelf.len();
        }
        Ok(news)
    }

    fn table(&self) -> VerdictTable {
        VerdictTable {
            rows: self.rows.clone(),
            denied: self.denied.clone(),
            everyone: self.everyone.clone(),
        }
    }

    fn paint(
        &mut self,
        items: &Items,
        limits: Limits,
        work: &mut Work,
    ) -> Result<(), ResolveError> {
        let shelf = &mut self.shelf;
        // Counted now and then, which bounds the work.
        let mut count_at = shelf.len() + limits.blocks_max;
        for class in self.population.take_unpainted() {
            let key = self.population.key_of(class);
            let row = self.maker.row(items, key, shelf);
            self.population.set_row(class, row);
            work.rows += 1;
            if shelf.len() > count_at {
                shelf.sweep();
                limits.blocks(&self.population)?;
                count_at = shelf.len() + limits.blocks_max;
            }
        }
        Ok(())
    }

    /// Whether so much is kept for nothing that it is better to begin anew.
    fn is_worn(&self, items: &Items) -> bool {
        items.sets.size() > 4 * (self.sets_at_first + STALE_MAX)
    }
}

/// The table of a direction that nobody asks: should it ever be asked, it
/// allows.
fn open_table() -> VerdictTable {
    VerdictTable {
        rows: std::iter::once((
            IdentityIndex(0),
            Row::All(Cell::new(action::ALLOW, false, 0)),
        ))
        .collect(),
        ..VerdictTable::default()
    }
}

/// What fits, of one direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) direction: Direction,
    /// Blocks of both directions.
    pub(super) blocks_max: usize,
}

impl Limits {
    /// Refuses rows that are far too many, before there are more of them.
    fn blocks(self, population: &Population) -> Result<(), ResolveError> {
        let (needed, max) = (block_count(population.rows()), self.blocks_max);
        if needed <= max {
            return Ok(());
        }
        Err(ResolveError::Blocks {
            direction: self.direction.as_str(),
            rows: population
                .rows()
                .map(Row::identity)
                .collect::<HashSet<_>>()
                .len(),
            at_least: true,
            needed,
            max,
        })
    }
}
