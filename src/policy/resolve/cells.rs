//! From items to verdicts: rows of cells.
//!
//! A policy in audit is staged, not weakened: the enforced policies alone give
//! the verdict; where all of them together would deny what those let pass, the
//! packet passes and is reported.

use std::sync::Arc;

use palisade_abi::table::{Cell, FRAGMENT, action};

use super::items::{Items, NOBODY, Ranked, Stance};
use super::paint::{Painted, Painter};
use super::population::{Key, named};
use super::sets::Set;
use crate::policy::row::{Row, Runs, Shelf, zipped};

/// A verdict: its action, and the number of the rule.
type Said = (u32, u32);

/// Whose word it is: place in [`Stance::open`].
const ENFORCED: usize = 0;
const ALL: usize = 1;

/// Makes rows.
#[derive(Debug)]
pub(super) struct RowMaker {
    stance: Stance,
    enforced: Painter,
    /// With the policies in audit; None where there are none.
    all: Option<Painter>,
    /// Denials are reported and passed.
    audit: bool,
}

impl RowMaker {
    pub(super) fn new(stance: Stance, audit: bool) -> Self {
        Self {
            stance,
            enforced: Painter::new(false),
            all: stance.audits.then(|| Painter::new(true)),
            audit,
        }
    }

    /// Whether everyone's items are in every row: policies in audit may see each
    /// verdict differently, whoever decided it.
    pub(super) fn is_merging(&self) -> bool {
        self.all.is_some()
    }

    /// The row of a class, on the shelf.
    pub(super) fn row(&mut self, items: &Items, class: &Key, shelf: &mut Shelf) -> Row {
        if self.is_merging() {
            return self.whole(items, class, shelf, Cell::alone);
        }
        let painted = self.enforced.painted(items, class.items, items.always);
        let painted = with_names(items, class, painted, false);
        shelf.row(&self.part(items, &painted))
    }

    /// What is denied to everyone.
    pub(super) fn denied(&mut self, items: &Items, shelf: &mut Shelf) -> Row {
        if self.is_merging() {
            return Row::default();
        }
        let painted = self.enforced.painted(items, Set::EMPTY, items.denied);
        shelf.row(&self.part(items, &painted))
    }

    /// What becomes of keys that no other row decides about.
    pub(super) fn everyone(&mut self, items: &Items, shelf: &mut Shelf) -> Row {
        if self.is_merging() {
            return Row::default();
        }
        let nobody = Key::of(Set::EMPTY);
        self.whole(items, &nobody, shelf, |cell| cell)
    }

    /// Every item that holds a class, and what becomes of what none decides.
    fn whole(
        &mut self,
        items: &Items,
        class: &Key,
        shelf: &mut Shelf,
        as_it_is: impl Fn(Cell) -> Cell,
    ) -> Row {
        let painted = self.enforced.painted(items, class.items, items.everyone);
        let enforced = with_names(items, class, painted, false);
        let all = self.all.as_mut().map(|all| {
            let painted = all.painted(items, class.items, items.everyone);
            with_names(items, class, painted, true)
        });
        let said = |item| self.by_item(items, ENFORCED, item);
        let cells = match &all {
            None => zipped(&enforced.keys, &[(0, ())], |item, ()| {
                as_it_is(self.cell(said(item), None))
            }),
            Some(all) => zipped(&enforced.keys, &all.keys, |item, of_all| {
                let all = self.by_item(items, ALL, of_all);
                as_it_is(self.cell(said(item), Some(all)))
            }),
        };
        let of_fragments = self.cell(
            self.fragment(items, ENFORCED, &enforced),
            all.as_ref().map(|all| self.fragment(items, ALL, all)),
        );
        shelf.row(&with_fragments(cells, as_it_is(of_fragments)))
    }

    /// What some of the items say, and nothing about the rest.
    fn part(&self, items: &Items, painted: &Painted) -> Runs<Cell> {
        let cell = |item: u32| {
            let Some(ranked) = items.get(item) else {
                return Cell::UNDECIDED;
            };
            let cell = self.cell(self.by_item(items, ENFORCED, item), None);
            if ranked.decides_alone() {
                cell.alone()
            } else {
                cell
            }
        };
        let cells = zipped(&painted.keys, &[(0, ())], |item, ()| cell(item));
        let of_fragments = if painted.all_deny != NOBODY {
            cell(painted.all_deny)
        } else if painted.port_deny == NOBODY && painted.all_allow == NOBODY {
            Cell::UNDECIDED
        } else {
            self.cell(self.fragment(items, ENFORCED, painted), None)
        };
        with_fragments(cells, of_fragments)
    }

    fn cell(&self, enforced: Said, all: Option<Said>) -> Cell {
        match self.stance.enforced {
            true => cell(enforced, all, self.audit),
            // Watched: everything passes, whoever allows it.
            false => cell((action::ALLOW, 0), all, self.audit),
        }
    }

    fn by_item(&self, items: &Items, whose: usize, item: u32) -> Said {
        match items.get(item) {
            Some(Ranked { allows, number, .. }) if *allows => (action::ALLOW, number.0),
            Some(Ranked { number, .. }) => (action::DENY, number.0),
            None if self.stance.open[whose] => (action::ALLOW, 0),
            None => (action::NO_MATCH, 0),
        }
    }

    /// Allows what L3-only rules allow and no deny by port may be meant for.
    fn fragment(&self, items: &Items, whose: usize, painted: &Painted) -> Said {
        if painted.all_deny != NOBODY {
            self.by_item(items, whose, painted.all_deny)
        } else if let Some(deny) = items.get(painted.port_deny) {
            (action::FRAGMENT, deny.number.0)
        } else if painted.all_allow != NOBODY || self.stance.open[whose] {
            self.by_item(items, whose, painted.all_allow)
        } else {
            // Read as `Cell::of_fragment`.
            (action::NO_MATCH, 0)
        }
    }

    /// Keeps little of what is only there to be fast.
    pub(super) fn rest(&mut self) {
        self.enforced.rest();
        if let Some(all) = &mut self.all {
            all.rest();
        }
    }
}

/// With those of fragments, and of the keys behind theirs, which nobody has.
fn with_fragments(mut cells: Runs<Cell>, of_fragments: Cell) -> Runs<Cell> {
    cells.retain(|(start, _)| *start < FRAGMENT);
    if cells.last().is_none_or(|(_, last)| *last != of_fragments) {
        cells.push((FRAGMENT, of_fragments));
    }
    cells
}

/// Adds the items that name a port of these identities.
fn with_names(items: &Items, key: &Key, mut painted: Arc<Painted>, audited: bool) -> Arc<Painted> {
    for meaning in key.named.iter() {
        let item = named(items, key.items, meaning.name, audited);
        if items.order(item) < items.order(painted.get(meaning.key)) {
            Arc::make_mut(&mut painted).put(meaning.key, item);
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
