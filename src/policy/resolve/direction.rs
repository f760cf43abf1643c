//! The table of one direction, and what is kept to make the next one.
//!
//! Invariant: a table made from what was kept equals one made from nothing, bit
//! for bit. Rows are numbered by the first identity that has them, columns by
//! their first port, and nothing else of a table depends on what came before.

use std::collections::HashMap;
use std::sync::Arc;

use palisade_abi::table::{BLOCKS_MAX, Cell, action};

use super::cells::{Ground, RowMaker};
use super::columns::{COLUMNS_MAX, Columns};
use super::gather::{Gathered, number};
use super::names::Names;
use super::population::{NONE, Population};
use super::reach::Reach;
use super::{ResolveError, Work};
use crate::identity::IdentityIndex;
use crate::policy::row::{Identity, Row, Shelf, runs};
use crate::policy::{Direction, DirectionPolicy, Selections, VerdictTable};

/// Verdicts computed before equal rows are dropped: bounds the work.
const CELLS_RAW_MAX: usize = 1 << 28;
/// What may be kept although nobody needs it any more, besides as much again
/// as is needed: classes, nodes of sets.
const STALE_MAX: usize = 4_096;

/// One direction.
#[derive(Debug)]
pub(super) struct DirectionState {
    direction: Direction,
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
}

impl Rows {
    fn number(&mut self, cells: &[Cell]) -> u32 {
        let row = self.shelf.row(cells.len(), &runs(cells));
        *self.known.entry(row.identity()).or_insert_with(|| {
            self.contents.push(row);
            number(self.contents.len() - 1)
        })
    }
}

impl DirectionState {
    /// Computes everything. What is equal in `before` is shared with it.
    pub(super) fn new(
        direction: Direction,
        gathered: Gathered,
        audit: bool,
        selections: &Selections,
        before: Option<&DirectionPolicy>,
        work: &mut Work,
    ) -> Result<Self, ResolveError> {
        work.directions += 1;
        let (tables, mut table) = if gathered.decides() {
            let limits = Limits(direction);
            let mut tables = Tables::new(&gathered, audit, selections, limits, work)?;
            let table = tables.table(&gathered, audit, limits, work)?;
            (Some(tables), table)
        } else {
            (None, open_table())
        };
        if let Some(before) = before {
            share(&before.table, &mut table);
        }
        Ok(Self {
            direction,
            audit,
            policy: Arc::new(policy(&gathered, audit, table)),
            gathered,
            tables,
        })
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
        let limits = Limits(self.direction);
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
        limits: Limits,
        work: &mut Work,
    ) -> Result<Self, ResolveError> {
        let reach = Reach::new(gathered);
        let names = Names::new(gathered);
        let columns = limits.columns(gathered, std::iter::empty())?;
        let mut tables = Self {
            population: Population::new(reach.stranger()),
            maker: RowMaker::new(gathered, &columns, audit),
            names,
            reach,
            columns,
            rows: Rows::default(),
            sets_at_first: 0,
        };
        for index in selections.by_identity.keys() {
            tables.settle(gathered, selections, *index);
        }
        work.identities += selections.by_identity.len();
        tables.sets_at_first = tables.reach.sets.size();
        Ok(tables)
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
            self.columns = limits.columns(gathered, self.population.ports())?;
            self.maker = RowMaker::new(gathered, &self.columns, audit);
            self.rows = Rows::default();
            self.population.forget_rows();
            work.columns += 1;
        }
        limits.peers(gathered, &self.population, &self.columns)?;
        self.paint(gathered, work);
        self.maker.rest();
        let signatures_max = 2 * self.population.by_index().len() + STALE_MAX;
        self.reach.forget_beyond(signatures_max);
        let (rows, cells) = self.numbered();
        let table = VerdictTable {
            rows,
            columns: Arc::clone(&self.columns.by_key),
            column_count: number(self.columns.count() + 1),
            cells,
        };
        if self.rows.shelf.len() > BLOCKS_MAX as usize {
            self.rows.shelf.sweep();
            limits.blocks(&table)?;
        }
        Ok(table)
    }

    /// Paints the classes that have no row yet.
    fn paint(&mut self, gathered: &Gathered, work: &mut Work) {
        let ground = Ground {
            gathered,
            names: &self.names,
            columns: &self.columns,
            sets: &self.reach.sets,
        };
        for class in self.population.take_unpainted() {
            let row = self.maker.row(ground, self.population.key_of(class));
            let row = self.rows.number(&row);
            self.population.set_row(class, row);
            work.rows += 1;
        }
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
            || self.rows.shelf.len() > 2 * BLOCKS_MAX as usize
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

/// Lets `table` have what it has in common with `before` from there.
fn share(before: &VerdictTable, table: &mut VerdictTable) {
    if before.columns == table.columns {
        table.columns = Arc::clone(&before.columns);
    }
    for (old, new) in before.cells.iter().zip(&mut table.cells) {
        if old == new {
            *new = old.clone();
        }
    }
}

/// What fits, of one direction.
#[derive(Clone, Copy)]
struct Limits(Direction);

impl Limits {
    fn too_many(self, what: &'static str, max: usize) -> ResolveError {
        ResolveError::Classes {
            direction: self.0.as_str(),
            what,
            max,
        }
    }

    fn columns(
        self,
        gathered: &Gathered,
        singles: impl Iterator<Item = usize>,
    ) -> Result<Columns, ResolveError> {
        Columns::new(&gathered.ports, singles).map_err(|_| self.too_many("ports", COLUMNS_MAX - 1))
    }

    fn peers(
        self,
        gathered: &Gathered,
        population: &Population,
        columns: &Columns,
    ) -> Result<(), ResolveError> {
        let max = CELLS_RAW_MAX / (columns.count() + 1);
        if gathered.peers.len() > max || population.live() > max {
            return Err(self.too_many("peers", max));
        }
        Ok(())
    }

    fn blocks(self, table: &VerdictTable) -> Result<(), ResolveError> {
        let needed = table.block_count();
        if needed > BLOCKS_MAX as usize {
            return Err(ResolveError::Blocks {
                direction: self.0.as_str(),
                rows: table.cells.len(),
                columns: table.column_count as usize,
                needed,
                max: BLOCKS_MAX as usize,
            });
        }
        Ok(())
    }
}

const _: () = assert!(CELLS_RAW_MAX < u32::MAX as usize);
