//! From ranks to verdicts: rows of cells.
//!
//! A policy in audit is staged, not weakened: the enforced policies alone give
//! the verdict; where all of them together would deny what those let pass, the
//! packet passes and is reported.

use std::collections::HashMap;
use std::sync::Arc;

use palisade_abi::table::{Cell, action};

use super::columns::Columns;
use super::gather::{Gathered, Ranked};
use super::names::Names;
use super::paint::{NOBODY, Painted, Painter};
use super::population::Key;
use super::sets::Sets;
use crate::policy::row::{Identity, Loose, Maker as _, Part, Row, Shelf};

/// Parts of rows kept from one table to the next.
const DONE_KEPT: usize = 1 << 14;

/// A verdict: its action, and the number of the rule.
type Said = (u32, u32);

/// Whose word it is: place in [`Gathered::open`].
const ENFORCED: usize = 0;
const ALL: usize = 1;

/// What rows are made from.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    pub(super) gathered: &'a Gathered,
    pub(super) names: &'a Names,
    pub(super) columns: &'a Columns,
    pub(super) sets: &'a Sets,
}

/// Ranks by column: of the enforced policies, and of all.
type Ranks<'a> = (&'a Part<u32>, Option<&'a Part<u32>>);

/// Makes rows; the last column of each is that of fragments.
#[derive(Debug)]
pub(super) struct RowMaker {
    enforced: Painter,
    /// With the policies in audit; None where there are none.
    all: Option<Painter>,
    /// Denials are reported and passed.
    audit: bool,
    /// The cells of parts of ranks, which are kept so that their identities
    /// last.
    done: HashMap<(Identity<u32>, Option<Identity<u32>>), Done>,
}

/// Cells, and the ranks that they were made from.
#[derive(Debug)]
struct Done {
    cells: Row,
    _ranks: (Part<u32>, Option<Part<u32>>),
}

impl RowMaker {
    pub(super) fn new(gathered: &Gathered, columns: &Columns, audit: bool) -> Self {
        let audited = gathered.items.iter().any(|item| item.audited);
        let all = audited || !gathered.auditing.is_empty();
        Self {
            enforced: Painter::new(gathered, columns, false),
            all: all.then(|| Painter::new(gathered, columns, true)),
            audit,
            done: HashMap::new(),
        }
    }

    /// The row of a class, on the shelf.
    pub(super) fn row(&mut self, ground: Ground<'_>, key: &Key, shelf: &mut Shelf<Cell>) -> Row {
        let gathered = ground.gathered;
        let enforced = self.enforced.painted(ground.sets, key.peers);
        let enforced = with_names(ground, key, enforced, false);
        let all = self.all.as_mut().map(|all| {
            let painted = all.painted(ground.sets, key.peers);
            with_names(ground, key, painted, true)
        });
        let ranks = (&enforced.columns, all.as_ref().map(|all| &all.columns));
        let cells = self.cells(gathered, ranks, shelf);
        let of_fragments = self.cell(
            gathered,
            fragment(gathered, ENFORCED, &enforced),
            all.as_ref().map(|all| fragment(gathered, ALL, all)),
        );
        let last = ground.columns.count();
        shelf.put(&cells, last + 1, last, of_fragments)
    }

    /// From ranks to verdicts, each shared part once.
    fn cells(&mut self, gathered: &Gathered, ranks: Ranks<'_>, shelf: &mut Shelf<Cell>) -> Row {
        let (enforced, all) = ranks;
        if let Part::All(rank) = enforced {
            let said = by_rank(gathered, ENFORCED, *rank);
            match all {
                None => return Part::All(self.cell(gathered, said, None)),
                Some(Part::All(rank)) => {
                    let all = by_rank(gathered, ALL, *rank);
                    return Part::All(self.cell(gathered, said, Some(all)));
                }
                Some(Part::Block(_)) => {}
            }
        }
        let key = (enforced.identity(), all.map(Part::identity));
        if let Some(done) = self.done.get(&key) {
            return done.cells.clone();
        }
        let count = enforced.parts().or_else(|| all?.parts()).unwrap_or(1);
        let parts = (0..count).map(|digit| {
            let ranks = (enforced.part(digit), all.map(|all| all.part(digit)));
            self.cells(gathered, ranks, shelf)
        });
        let parts = parts.collect();
        let cells = shelf.block(parts);
        if enforced.is_shared() && all.is_none_or(Part::is_shared) {
            let done = Done {
                cells: cells.clone(),
                _ranks: (enforced.clone(), all.cloned()),
            };
            self.done.insert(key, done);
        }
        cells
    }

    fn cell(&self, gathered: &Gathered, enforced: Said, all: Option<Said>) -> Cell {
        match gathered.enforced {
            true => cell(enforced, all, self.audit),
            // Watched: everything passes, whoever allows it.
            false => cell((action::ALLOW, 0), all, self.audit),
        }
    }

    /// Keeps little of what is only there to be fast.
    pub(super) fn rest(&mut self) {
        self.enforced.rest();
        if let Some(all) = &mut self.all {
            all.rest();
        }
        if self.done.len() > DONE_KEPT {
            self.done = HashMap::new();
        }
    }
}

/// Adds the items that name a port of these identities.
fn with_names(
    ground: Ground<'_>,
    key: &Key,
    mut painted: Arc<Painted>,
    audited: bool,
) -> Arc<Painted> {
    let Ground {
        gathered,
        names,
        columns,
        sets,
    } = ground;
    for meaning in key.named.iter() {
        let rank = names.rank(gathered, sets, key.peers, *meaning, audited);
        let (column, width) = (columns.of_key(meaning.key), columns.count() + 1);
        if painted
            .columns
            .get(width, column)
            .is_some_and(|is| rank < is)
        {
            let painted = Arc::make_mut(&mut painted);
            painted.columns = Loose::default().put(&painted.columns, width, column, rank);
        }
        // Denies stand before allows: if one names the port, it is this one.
        let denies = gathered
            .items
            .get(rank as usize)
            .is_some_and(|item| !item.allows);
        if denies && rank < painted.port_deny {
            Arc::make_mut(&mut painted).port_deny = rank;
        }
    }
    painted
}

fn cell(enforced: Said, all: Option<Said>, audit: bool) -> Cell {
    let (verdict, rule) = enforced;
    match all {
        _ if verdict != action::ALLOW => Cell::new(verdict, audit, rule),
        Some((would_be, rule)) if would_be != action::ALLOW => Cell::new(would_be, true, rule),
        Some(_) | None => Cell::new(verdict, false, rule),
    }
}

fn by_rank(gathered: &Gathered, whose: usize, rank: u32) -> Said {
    match gathered.items.get(rank as usize) {
        Some(Ranked { allows, number, .. }) if *allows => (action::ALLOW, number.0),
        Some(Ranked { number, .. }) => (action::DENY, number.0),
        None if gathered.open[whose] => (action::ALLOW, 0),
        None => (action::NO_MATCH, 0),
    }
}

/// Allows what L3-only rules allow and no deny by port may be meant for.
fn fragment(gathered: &Gathered, whose: usize, painted: &Painted) -> Said {
    let by_port = gathered.items.get(painted.port_deny as usize);
    if painted.all_deny != NOBODY {
        by_rank(gathered, whose, painted.all_deny)
    } else if let Some(deny) = by_port {
        (action::FRAGMENT, deny.number.0)
    } else if painted.all_allow != NOBODY || gathered.open[whose] {
        by_rank(gathered, whose, painted.all_allow)
    } else {
        (action::FRAGMENT, 0)
    }
}
