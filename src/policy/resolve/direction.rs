//! The table of one direction, and what is kept to make the next one.
//!
//! Invariant: a table made from what was kept equals one made from nothing, bit
//! for bit. Rows are numbered by the first identity that has them, columns by
//! their first port, and nothing else of a table depends on what came before.

use std::collections::HashMap;
use std::sync::Arc;

use palisade_abi::table::{Cell, action};

use super::cells::{Ground, RowMaker};
use super::columns::Columns;
use super::gather::{Gathered, number};
use super::names::Names;
use super::population::{NONE, Population};
use super::reach::Reach;
use super::{ResolveError, Work};
use crate::identity::IdentityIndex;
use crate::policy::row::{Identity, Row, Shelf, block_count};
use crate::policy::{Direction, DirectionPolicy, Selections, VerdictTable};

/// What may be kept although nobody needs it any more, besides as much again
/// as is needed: classes, rows, blocks, nodes of sets.
const STALE_MAX: usize = 4_096;

/// One direction.
#[derive(Debug)]
pub(super) struct DirectionState {
    limits: Limits,
    audit: bool,
    pub(super) gathered: Gathered,
    /// None where no table is asked.
    tables: Option<Tables>,
    pub(super) policy: Arc<DirectionPolicy>,
}

/// Everything between the items and the table.
#[derive(Debug)]
struct Tables {
    names: Names,
    reach: Reach,
    population: Population,
    columns: Columns,
    maker: RowMaker,
    rows: Rows,
    /// Nodes of sets after the full computation.
    sets_at_first: usize,
}

/// The distinct rows, in no particular order.
#[derive(Debug, Default)]
struct Rows {
    contents: Vec<Row>,
    known: HashMap<Identity<Cell>, u32>,
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
        gathered: Gathered,
        audit: bool,
        selections: &Selections,
        before: Option<Before>,
        work: &mut Work,
    ) -> Result<Self, ResolveError> {
        work.directions += 1;
        let (before, shelf) = before.map_or_else(Default::default, |before| {
            (Some(before.policy), before.shelf)
        });
        let (tables, mut table) = if gathered.decides() {
            let mut tables = Tables::new(&gathered, audit, selections, shelf, work);
            let table = tables.table(&gathered, audit, limits, work)?;
            (Some(tables), table)
        } else {
            (None, open_table())
        };
        if let Some(before) = before
            && before.table.columns == table.columns
        {
            table.columns = Arc::clone(&before.table.columns);
        }
        Ok(Self {
            limits,
            audit,
            policy: Arc::new(policy(&gathered, audit, table)),
            gathered,
            tables,
        })
    }

    /// What the next one is made from: its items, and what it may share.
    pub(super) fn into_before(self) -> (Gathered, Before) {
        let shelf = self.tables.map(|tables| tables.rows.shelf);
        let before = Before {
            policy: self.policy,
            shelf: shelf.unwrap_or_default(),
        };
        (self.gathered, before)
    }

    /// Blocks of the table, or more: those of tables before it.
    pub(super) fn blocks_at_most(&self) -> usize {
        let tables = self.tables.as_ref();
        tables.map_or(0, |tables| tables.rows.shelf.len())
    }

    /// Follows a change of these identities.
    pub(super) fn update(
        &mut self,
        selections: &Selections,
        changed: &[IdentityIndex],
        work: &mut Work,
    ) -> Result<(), ResolveError> {
        let Some(tables) = &mut self.tables else {
            return Ok(());
        };
        let mut news = false;
        for index in changed {
            news |= tables.settle(&self.gathered, selections, *index);
        }
        work.identities += changed.len();
        if !news {
            return Ok(());
        }
        let limits = self.limits;
        let table = tables.table(&self.gathered, self.audit, limits, work)?;
        if table != self.policy.table {
            self.policy = Arc::new(policy(&self.gathered, self.audit, table));
        }
        Ok(())
    }

    /// Whether so much is kept for nothing that it is better to begin anew.
    pub(super) fn is_worn(&self) -> bool {
        self.tables.as_ref().is_some_and(Tables::is_worn)
    }
}

impl Tables {
    fn new(
        gathered: &Gathered,
        audit: bool,
        selections: &Selections,
        shelf: Shelf<Cell>,
        work: &mut Work,
    ) -> Self {
        let reach = Reach::new(gathered);
        let names = Names::new(gathered);
        let columns = Columns::new(&gathered.ports, std::iter::empty());
        let mut tables = Self {
            population: Population::new(reach.stranger()),
            maker: RowMaker::new(gathered, &columns, audit),
            names,
            reach,
            columns,
            rows: Rows::on(shelf),
            sets_at_first: 0,
        };
        for index in selections.by_identity.keys() {
            tables.settle(gathered, selections, *index);
        }
        work.identities += selections.by_identity.len();
        tables.sets_at_first = tables.reach.sets.size();
        tables
    }

    /// Looks an identity up again. Whether that changed anything.
    fn settle(
        &mut self,
        gathered: &Gathered,
        selections: &Selections,
        index: IdentityIndex,
    ) -> bool {
        let signature = selections.by_identity.get(&index);
        let key = signature.map(|signature| {
            let peers = self.reach.peers(signature);
            let named = selections.named_ports.get(&index);
            let named = named.filter(|_| !self.names.is_empty());
            let meanings = named.map_or_else(Vec::new, |ports| {
                let sets = &self.reach.sets;
                self.names.meanings(gathered, sets, peers, ports)
            });
            self.population.key(peers, meanings)
        });
        // The unknown identity is always there.
        let unknown = (index == IdentityIndex(0)).then(|| {
            let stranger = self.reach.stranger();
            self.population.key(stranger, Vec::new())
        });
        self.population.put(index.0 as usize, key.or(unknown))
    }

    fn table(
        &mut self,
        gathered: &Gathered,
        audit: bool,
        limits: Limits,
        work: &mut Work,
    ) -> Result<VerdictTable, ResolveError> {
        if self.population.take_ports_changed() {
            self.columns = Columns::new(&gathered.ports, self.population.ports());
            self.maker = RowMaker::new(gathered, &self.columns, audit);
            self.rows = Rows::on(std::mem::take(&mut self.rows.shelf));
            self.population.forget_rows();
            work.columns += 1;
        }
        self.paint(gathered, limits, work)?;
        self.maker.rest();
        let signatures_max = 2 * self.population.by_index().len() + STALE_MAX;
        self.reach.forget_beyond(signatures_max);
        let (rows, cells) = self.numbered();
        self.rows.in_table = cells.len();
        self.rows.tidy();
        Ok(VerdictTable {
            rows,
            columns: Arc::clone(&self.columns.by_key),
            column_count: number(self.columns.count() + 1),
            cells,
        })
    }

    /// Paints the classes that have no row yet.
    fn paint(
        &mut self,
        gathered: &Gathered,
        limits: Limits,
        work: &mut Work,
    ) -> Result<(), ResolveError> {
        let ground = Ground {
            gathered,
            names: &self.names,
            columns: &self.columns,
            sets: &self.reach.sets,
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
                limits.blocks(rows, self.columns.count() + 1)?;
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

    fn is_worn(&self) -> bool {
        let population = &self.population;
        population.kept() > 2 * population.live() + STALE_MAX
            || self.rows.is_worn()
            || self.reach.sets.size() > 4 * (self.sets_at_first + STALE_MAX)
    }
}

fn policy(gathered: &Gathered, audit: bool, table: VerdictTable) -> DirectionPolicy {
    DirectionPolicy {
        enforced: gathered.enforced,
        watched: gathered.watched,
        audit,
        enforcing: gathered.enforcing.clone(),
        auditing: gathered.auditing.clone(),
        table,
    }
}

/// The table of a direction that nobody asks: should it ever be asked, it
/// allows.
fn open_table() -> VerdictTable {
    VerdictTable {
        rows: vec![0],
        columns: Arc::new(Columns::one()),
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
