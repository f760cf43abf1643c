//! Rows, columns and cells of one direction.

use std::collections::HashMap;
use std::sync::Arc;

use palisade_abi::table::{CELLS_MAX, Cell, action, column};

use super::ResolveError;
use super::classes::{Classes, classes};
use super::gather::{Gathered, KEYS, PORT_KEYS};
use super::paint::Painter;
use crate::identity::IdentityTable;
use crate::policy::{Direction, VerdictTable};

/// Verdicts computed before equal rows and columns are dropped: bounds the work.
const CELLS_RAW_MAX: usize = 16 * CELLS_MAX;
/// Columns have 16-bit numbers; one is that of fragments.
const COLUMNS_MAX: usize = u16::MAX as usize;

/// The table of a direction that is not enforced: should it ever be asked, it
/// allows.
pub(super) fn open_table() -> VerdictTable {
    VerdictTable {
        rows: vec![0],
        columns: Arc::new([
            vec![0; PORT_KEYS],
            vec![0; PORT_KEYS],
            vec![0; PORT_KEYS],
            vec![0; column::OTHER_KEYS],
        ]),
        column_count: 1,
        cells: vec![[Cell::new(action::ALLOW, false, 0)].into()],
    }
}

/// The table of an enforced direction.
pub(super) fn table(
    gathered: &Gathered,
    identities: &IdentityTable,
    direction: Direction,
    audit: bool,
) -> Result<VerdictTable, ResolveError> {
    let direction = direction.as_str();
    let too_many = |what, max| ResolveError::Classes {
        direction,
        what,
        max,
    };
    let port_sets: Vec<_> = gathered
        .ports
        .iter()
        .map(|set| set.ranges.clone())
        .collect();
    let columns = classes(KEYS, &port_sets, COLUMNS_MAX - 1)
        .map_err(|_| too_many("ports", COLUMNS_MAX - 1))?;
    let rows_max = CELLS_RAW_MAX / (columns.members.len() + 1);
    if gathered.peers.len() > rows_max {
        return Err(too_many("peers", rows_max));
    }
    let rows = classes(identities.len(), &gathered.peers, rows_max)
        .map_err(|_| too_many("peers", rows_max))?;
    let mut painter = Painter::new(gathered, &columns, audit);
    let (row_of_class, distinct) = distinct_rows(&rows, &mut painter);
    let (column_of_class, column_count, cells) = distinct_columns(&distinct);
    if cells.len() > CELLS_MAX {
        return Err(ResolveError::Cells {
            direction,
            rows: distinct.len(),
            columns: column_count,
            needed: cells.len(),
            max: CELLS_MAX,
        });
    }
    Ok(VerdictTable {
        rows: rows_by_index(identities, &rows, &row_of_class),
        columns: Arc::new(columns_by_key(&columns, &column_of_class)),
        column_count: small(column_count),
        cells: cells.chunks(column_count).map(Arc::from).collect(),
    })
}

/// Each distinct row once, by the first class that has it.
fn distinct_rows(rows: &Classes, painter: &mut Painter<'_>) -> (Vec<u32>, Vec<Arc<[Cell]>>) {
    let mut known: HashMap<Arc<[Cell]>, u32> = HashMap::new();
    let mut distinct: Vec<Arc<[Cell]>> = Vec::new();
    let row_of_class = rows
        .members
        .iter()
        .map(|members| {
            let row: Arc<[Cell]> = painter.row(&rows.sets, *members).into();
            *known.entry(row).or_insert_with_key(|row| {
                distinct.push(Arc::clone(row));
                small(distinct.len() - 1)
            })
        })
        .collect();
    (row_of_class, distinct)
}

/// The column of each class, their count, and the cells of the distinct ones.
fn distinct_columns(rows: &[Arc<[Cell]>]) -> (Vec<u16>, usize, Vec<Cell>) {
    let classes = rows.first().map_or(0, |row| row.len());
    let mut known: HashMap<Vec<Cell>, u16> = HashMap::new();
    let mut kept: Vec<usize> = Vec::new();
    let column_of_class = (0..classes)
        .map(|class| {
            let content: Vec<Cell> = rows.iter().map(|row| row[class]).collect();
            *known.entry(content).or_insert_with(|| {
                kept.push(class);
                u16::try_from(kept.len() - 1).unwrap_or(u16::MAX)
            })
        })
        .collect();
    let cells = rows
        .iter()
        .flat_map(|row| kept.iter().map(|class| row[*class]))
        .collect();
    (column_of_class, kept.len(), cells)
}

fn rows_by_index(identities: &IdentityTable, rows: &Classes, row_of_class: &[u32]) -> Vec<u32> {
    let live = identities.live();
    let length = live
        .iter()
        .map(|identity| identity.index.0 as usize + 1)
        .max()
        .unwrap_or(0);
    // What is not live has the row of the unknown identity: that is position
    // 0, hence class 0, hence row 0.
    let mut by_index = vec![0; length];
    for run in &rows.runs {
        for identity in &live[run.positions.clone()] {
            by_index[identity.index.0 as usize] = row_of_class[run.class];
        }
    }
    by_index
}

fn columns_by_key(columns: &Classes, column_of_class: &[u16]) -> [Vec<u16>; 4] {
    let mut line = Vec::with_capacity(KEYS + 1);
    for run in &columns.runs {
        line.resize(run.positions.end, column_of_class[run.class]);
    }
    // The class after all others is that of fragments, the key after all others too.
    line.extend(column_of_class.last());
    let class = |number: usize| line[number * PORT_KEYS..(number + 1) * PORT_KEYS].to_vec();
    [class(0), class(1), class(2), line[3 * PORT_KEYS..].to_vec()]
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "counts of rows and columns, bounded by CELLS_RAW_MAX"
)]
fn small(count: usize) -> u32 {
    count as u32
}

const _: () = assert!(column::OTHER_FRAGMENT as usize + 1 == column::OTHER_KEYS);
const _: () = assert!(CELLS_RAW_MAX < u32::MAX as usize);
