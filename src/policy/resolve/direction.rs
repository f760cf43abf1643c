//! The table of one direction, and what is kept to make the next one.
//!
//! Invariant: a table made from what was kept equals one made from nothing, bit
//! for bit. Rows are numbered by the first identity that has them, columns by
//! the ports alone, and nothing else of a table depends on what came before.

use std::sync::Arc;

use palisade_abi::table::{Cell, action};

use super::cells::RowMaker;
use super::hashing::NumberMap;
use super::holders::Holders;
use super::items::{Items, Stance, Touched, number};
use super::layout::{Borders, Layout};
use super::paint::Ground;
use super::population::{NONE, Population, meanings};
use super::sets::Set;
use super::{ResolveError, Work};
use crate::events::ResourceKey;
use crate::identity::IdentityIndex;
use crate::policy::row::{Identity, Row, Shelf, block_count};
use crate::policy::{
    Direction, DirectionPolicy, PolicySnapshot, Selections, Signature, StoredPolicy, VerdictTable,
};

/// What may be kept although nobody needs it any more, besides as much again
/// as is needed: classes, rows, blocks, nodes of sets.
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
    borders: Borders,
    layout: Layout,
    maker: RowMaker,
    rows: Rows,
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

/// The distinct rows, in no particular order.
#[derive(Debug, Default)]
struct Rows {
    contents: Vec<Row>,
    known: NumberMap<Identity<Cell>, u32>,
    shelf: Shelf<Cell>,
    /// Rows of the last table, and blocks when the shelf was swept last.
    in_table: usize,
    swept: usize,
}

impl Rows {
    /// None yet, on a shelf with blocks of before.
    fn on(shelf: Shelf<Cell>) -> Self {
        Self {
            swept: shelf.len(),
            shelf,
            ..Self::default()
        }
    }

    fn number(&mut self, row: Row) -> u32 {
        *self.known.entry(row.identity()).or_insert_with(|| {
            self.contents.push(row);
            number(self.contents.len() - 1)
        })
    }

    /// Drops what nobody needs when there may be much of it.
    fn tidy(&mut self) {
        if self.shelf.len() > 2 * self.swept + STALE_MAX {
            self.shelf.sweep();
            self.swept = self.shelf.len();
        }
    }

    fn is_worn(&self) -> bool {
        self.contents.len() > 2 * self.in_table + STALE_MAX
    }
}

/// What the next table of a direction shares with the one before.
#[derive(Debug)]
pub(super) struct Before {
    policy: Arc<DirectionPolicy>,
    shelf: Shelf<Cell>,
}

impl DirectionState {
    /// Computes everything. What is equal in `before` is shared with it.
    pub(super) fn new(
        limits: Limits,
        snapshot: &PolicySnapshot,
        audit: bool,
        before: Option<Before>,
        work: &mut Work,
    ) -> Result<Self, ResolveError> {
        work.directions += 1;
        let (before, shelf) = before.map_or_else(Default::default, |before| {
            (Some(before.policy), before.shelf)
        });
        let mut items = Items::new(snapshot, limits.direction);
        let stance = items.stance();
        let (tables, mut table) = if stance.decides() {
            let maker = RowMaker::new(stance, audit);
            let mut tables = Tables::new(&mut items, maker, shelf);
            tables.settle_all(&mut items, &snapshot.selections, work);
            tables.lay_out(&mut items, work);
            let table = tables.table(&items, limits, work)?;
            (Some(tables), table)
        } else {
            (None, open_table())
        };
        if let Some(before) = before
            && before.table.columns == table.columns
        {
            table.columns = Arc::clone(&before.table.columns);
        }
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
    pub(super) fn into_before(self) -> Before {
        let shelf = self.tables.map(|tables| tables.rows.shelf);
        Before {
            policy: self.policy,
            shelf: shelf.unwrap_or_default(),
        }
    }

    /// Blocks of the table, or more: those of tables before it.
    pub(super) fn blocks_at_most(&self) -> usize {
        let tables = self.tables.as_ref();
        tables.map_or(0, |tables| tables.rows.shelf.len())
    }

    /// How many columns of ports there are.
    pub(super) fn columns(&self) -> usize {
        self.tables
            .as_ref()
            .map_or(1, |tables| tables.layout.count())
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
        if self.items.stance() != self.stance || touched.names_of_everyone {
            return Ok(false);
        }
        let Some(tables) = &mut self.tables else {
            return Ok(true);
        };
        if tables.is_worn(&self.items) {
            return Ok(false);
        }
        let mut news = tables.follow(&mut self.items, selections, changes, &touched, work);
        if touched.everyone {
            tables.population.forget_rows(|_| false);
            news = true;
        }
        news |= tables.lay_out(&mut self.items, work);
        if news {
            let table = tables.table(&self.items, self.limits, work)?;
            if table != self.policy.table {
                self.policy = Arc::new(self.policy(table));
            }
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
    fn new(items: &mut Items, maker: RowMaker, shelf: Shelf<Cell>) -> Self {
        let mut borders = Borders::default();
        for (range, is_more) in items.ports.take_changes() {
            borders.count(&range, is_more);
        }
        Self {
            population: Population::new(),
            layout: Layout::new(&borders),
            borders,
            maker,
            rows: Rows::on(shelf),
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

    /// Looks up the identities that a change has touched. Whether that changed
    /// anything.
    fn follow(
        &mut self,
        items: &mut Items,
        selections: &Selections,
        changes: &Changes<'_>,
        touched: &Touched,
        work: &mut Work,
    ) -> bool {
        let mut identities = changes.identities.clone();
        for (selector, before) in &touched.selectors {
            if items.of_selector(*selector) != *before {
                identities.extend(changes.holders.of(*selector));
            }
        }
        identities.sort_unstable();
        identities.dedup();
        let mut news = false;
        for index in &identities {
            let signature = selections.by_identity.get(index);
            news |= self.settle(items, selections, *index, signature);
        }
        work.identities += identities.len();
        news
    }

    /// Looks an identity up again. Whether that changed anything.
    fn settle(
        &mut self,
        items: &mut Items,
        selections: &Selections,
        index: IdentityIndex,
        signature: Option<&Signature>,
    ) -> bool {
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
        self.population.put(index.0 as usize, key.or(unknown))
    }

    /// Gives the columns their numbers, if ports have come or gone. Rows that
    /// do not tell apart what has another number now stay. Whether there is
    /// anything new.
    fn lay_out(&mut self, items: &mut Items, work: &mut Work) -> bool {
        let named = self.population.take_port_changes().into_iter();
        let named = named.map(|(key, is_more)| (key..key + 1, is_more));
        let changes: Vec<_> = items
            .ports
            .take_changes()
            .into_iter()
            .chain(named)
            .collect();
        if changes.is_empty() {
            return false;
        }
        for (range, is_more) in &changes {
            self.borders.count(range, *is_more);
        }
        let layout = Layout::new(&self.borders);
        if layout.is_like(&self.layout) {
            return false;
        }
        work.columns += 1;
        self.maker.forget();
        let moves = layout.moves(&self.layout);
        let old = std::mem::replace(&mut self.layout, layout);
        let Some(moves) = moves else {
            self.rows = Rows::on(std::mem::take(&mut self.rows.shelf));
            self.population.forget_rows(|_| false);
            return true;
        };
        let (rows, width) = (&self.rows.contents, old.width());
        self.population.forget_rows(|row| {
            let says = |column: u32| rows[row as usize].get(width, column as usize);
            moves.iter().all(|(was, is)| says(*was) == says(*is))
        });
        true
    }

    fn table(
        &mut self,
        items: &Items,
        limits: Limits,
        work: &mut Work,
    ) -> Result<VerdictTable, ResolveError> {
        self.paint(items, limits, work)?;
        self.maker.rest();
        let (rows, cells) = self.numbered();
        self.rows.in_table = cells.len();
        self.rows.tidy();
        Ok(VerdictTable {
            rows,
            columns: Arc::clone(&self.layout.by_key),
            column_count: number(self.layout.width()),
            cells,
        })
    }

    /// Paints the classes that have no row yet.
    fn paint(
        &mut self,
        items: &Items,
        limits: Limits,
        work: &mut Work,
    ) -> Result<(), ResolveError> {
        let ground = Ground {
            items,
            layout: &self.layout,
        };
        let rows = &mut self.rows;
        // Counted now and then, which bounds the work.
        let mut count_at = rows.shelf.len() + limits.blocks_max;
        for class in self.population.take_unpainted() {
            let key = self.population.key_of(class);
            let row = self.maker.row(ground, key, &mut rows.shelf);
            let row = rows.number(row);
            self.population.set_row(class, row);
            work.rows += 1;
            if rows.shelf.len() > count_at {
                rows.shelf.sweep();
                limits.blocks(rows, self.layout.count())?;
                count_at = rows.shelf.len() + limits.blocks_max;
            }
        }
        Ok(())
    }

    /// The row of each index, and the rows, numbered by the first index that
    /// has them. What nobody has is row 0, that of the unknown identity.
    fn numbered(&self) -> (Vec<u32>, Vec<Row>) {
        let mut numbers = vec![NONE; self.rows.contents.len()];
        let mut cells = Vec::new();
        let by_index = self.population.by_index().iter().map(|class| {
            if *class == NONE {
                return 0;
            }
            let row = self.population.row_of(*class) as usize;
            if numbers[row] == NONE {
                numbers[row] = number(cells.len());
                cells.push(self.rows.contents[row].clone());
            }
            numbers[row]
        });
        (by_index.collect(), cells)
    }

    /// Whether so much is kept for nothing that it is better to begin anew.
    fn is_worn(&self, items: &Items) -> bool {
        let population = &self.population;
        population.kept() > 2 * population.live() + STALE_MAX
            || self.rows.is_worn()
            || items.sets.size() > 4 * (self.sets_at_first + STALE_MAX)
    }
}

/// The table of a direction that nobody asks: should it ever be asked, it
/// allows.
fn open_table() -> VerdictTable {
    VerdictTable {
        rows: vec![0],
        columns: Arc::new(Layout::one()),
        column_count: 1,
        cells: vec![Row::All(Cell::new(action::ALLOW, false, 0))],
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
    fn blocks(self, rows: &Rows, columns: usize) -> Result<(), ResolveError> {
        let (needed, max) = (block_count(&rows.contents), self.blocks_max);
        if needed <= max {
            return Ok(());
        }
        Err(ResolveError::Blocks {
            direction: self.direction.as_str(),
            rows: rows.contents.len(),
            columns,
            at_least: true,
            needed,
            max,
        })
    }
}
