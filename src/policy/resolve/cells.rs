//! From items to verdicts: rows of cells.
//!
//! A policy in audit is staged, not weakened: the enforced policies alone give
//! the verdict; where all of them together would deny what those let pass, the
//! packet passes and is reported.

use std::sync::Arc;

use palisade_abi::table::{Cell, action};

use super::hashing::NumberMap;
use super::items::{NOBODY, Ranked, Stance};
use super::paint::{Ground, Painted, Painter};
use super::population::{Key, named};
use crate::policy::row::{Identity, Maker as _, Part, Row, Shelf};

/// Parts of rows kept from one table to the next.
const DONE_KEPT: usize = 1 << 14;

/// A verdict: its action, and the number of the rule.
type Said = (u32, u32);

/// Whose word it is: place in [`Stance::open`].
const ENFORCED: usize = 0;
const ALL: usize = 1;

/// Items by column: of the enforced policies, and of all.
type Items<'a> = (&'a Part<u32>, Option<&'a Part<u32>>);

/// Makes rows.
#[derive(Debug)]
pub(super) struct RowMaker {
    stance: Stance,
    enforced: Painter,
    /// With the policies in audit; None where there are none.
    all: Option<Painter>,
    /// Denials are reported and passed.
    audit: bool,
    /// The cells of parts of rows of items, which are kept so that their
    /// identities last.
    done: NumberMap<(Identity<u32>, Option<Identity<u32>>), Done>,
}

/// Cells, and the items that they were made from.
#[derive(Debug)]
struct Done {
    cells: Row,
    _items: (Part<u32>, Option<Part<u32>>),
}

impl RowMaker {
    pub(super) fn new(stance: Stance, audit: bool) -> Self {
        Self {
            stance,
            enforced: Painter::new(false),
            all: stance.audits.then(|| Painter::new(true)),
            audit,
            done: NumberMap::default(),
        }
    }

    /// The row of a class, on the shelf.
    pub(super) fn row(&mut self, ground: Ground<'_>, key: &Key, shelf: &mut Shelf<Cell>) -> Row {
        let enforced = self.enforced.painted(ground, key.items);
        let enforced = with_names(ground, key, enforced, false);
        let all = self.all.as_mut().map(|all| {
            let painted = all.painted(ground, key.items);
            with_names(ground, key, painted, true)
        });
        let items = (&enforced.columns, all.as_ref().map(|all| &all.columns));
        let cells = self.cells(ground, items, shelf);
        let of_fragments = self.cell(
            self.fragment(ground, ENFORCED, &enforced),
            all.as_ref().map(|all| self.fragment(ground, ALL, all)),
        );
        let (width, fragment) = (ground.layout.width(), ground.layout.fragment());
        shelf.put(&cells, width, fragment, of_fragments)
    }

    /// From items to verdicts, each shared part once.
    fn cells(&mut self, ground: Ground<'_>, items: Items<'_>, shelf: &mut Shelf<Cell>) -> Row {
        let (enforced, all) = items;
        if let Part::All(item) = enforced {
            let said = self.by_item(ground, ENFORCED, *item);
            match all {
                None => return Part::All(self.cell(said, None)),
                Some(Part::All(item)) => {
                    let all = self.by_item(ground, ALL, *item);
                    return Part::All(self.cell(said, Some(all)));
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
            let items = (enforced.part(digit), all.map(|all| all.part(digit)));
            self.cells(ground, items, shelf)
        });
        let parts = parts.collect();
        let cells = shelf.block(parts);
        if enforced.is_shared() && all.is_none_or(Part::is_shared) {
            let done = Done {
                cells: cells.clone(),
                _items: (enforced.clone(), all.cloned()),
            };
            self.done.insert(key, done);
        }
        cells
    }

    fn cell(&self, enforced: Said, all: Option<Said>) -> Cell {
        match self.stance.enforced {
            true => cell(enforced, all, self.audit),
            // Watched: everything passes, whoever allows it.
            false => cell((action::ALLOW, 0), all, self.audit),
        }
    }

    fn by_item(&self, ground: Ground<'_>, whose: usize, item: u32) -> Said {
        match ground.items.get(item) {
            Some(Ranked { allows, number, .. }) if *allows => (action::ALLOW, number.0),
            Some(Ranked { number, .. }) => (action::DENY, number.0),
            None if self.stance.open[whose] => (action::ALLOW, 0),
            None => (action::NO_MATCH, 0),
        }
    }

    /// Allows what L3-only rules allow and no deny by port may be meant for.
    fn fragment(&self, ground: Ground<'_>, whose: usize, painted: &Painted) -> Said {
        if painted.all_deny != NOBODY {
            self.by_item(ground, whose, painted.all_deny)
        } else if let Some(deny) = ground.items.get(painted.port_deny) {
            (action::FRAGMENT, deny.number.0)
        } else if painted.all_allow != NOBODY || self.stance.open[whose] {
            self.by_item(ground, whose, painted.all_allow)
        } else {
            (action::FRAGMENT, 0)
        }
    }

    /// Columns have other numbers.
    pub(super) fn forget(&mut self) {
        self.enforced.forget();
        if let Some(all) = &mut self.all {
            all.forget();
        }
        self.done = NumberMap::default();
    }

    /// Keeps little of what is only there to be fast.
    pub(super) fn rest(&mut self) {
        self.enforced.rest();
        if let Some(all) = &mut self.all {
            all.rest();
        }
        if self.done.len() > DONE_KEPT {
            self.done = NumberMap::default();
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
    let items = ground.items;
    for meaning in key.named.iter() {
        let item = named(items, key.items, meaning.name, audited);
        let (column, width) = (ground.layout.of(meaning.key), ground.layout.width());
        let is = painted.columns.get(width, column);
        if is.is_some_and(|is| items.order(item) < items.order(is)) {
            Arc::make_mut(&mut painted).put(meaning.key, item, ground);
        }
        // Denies stand before allows: if one names the port, it is this one.
        let denies = items.get(item).is_some_and(|item| !item.allows);
        if denies && items.order(item) < items.order(painted.port_deny) {
            Arc::make_mut(&mut painted).port_deny = item;
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
