//! Stable numbers of rule items.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use palisade_abi::table::RULES_MAX;
use serde::{Deserialize, Serialize};

use crate::policy::{RuleCatalogue, RuleEntry, RuleNumber, RuleRef};

const FIRST: u32 = 1;
const LAST: u32 = RULES_MAX - 1;

/// The numbers in use. A released number is not reused before the cursor has
/// gone around, so that old counters and events do not name the wrong rule.
#[derive(Clone, Debug, Default)]
pub(super) struct RuleNumbers {
    by_ref: OrdMap<RuleRef, RuleNumber>,
    catalogue: RuleCatalogue,
    next: u32,
}

/// The numbers as the journal's snapshot holds them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RuleNumbersRecord {
    pub numbers: Vec<(RuleRef, RuleNumber)>,
    pub next: u32,
}

impl RuleNumbers {
    pub(super) const MAX: usize = (LAST - FIRST + 1) as usize;

    pub(super) fn len(&self) -> usize {
        self.by_ref.len()
    }
    pub(super) fn catalogue(&self) -> RuleCatalogue {
        self.catalogue.clone()
    }
    /// The number of an item; 0 if it has none.
    pub(super) fn of(&self, rule: &RuleRef) -> RuleNumber {
        self.by_ref.get(rule).copied().unwrap_or_default()
    }
    pub(super) fn contains(&self, rule: &RuleRef) -> bool {
        self.by_ref.contains_key(rule)
    }

    /// Gives a number to each that has none, and notes what is known of it; the
    /// caller has checked that they fit.
    pub(super) fn acquire(&mut self, rules: &BTreeMap<RuleRef, Arc<RuleEntry>>) {
        for (rule, entry) in rules {
            if let Some(number) = self.by_ref.get(rule) {
                if self.catalogue.get(number) != Some(entry) {
                    self.catalogue.insert(*number, Arc::clone(entry));
                }
                continue;
            }
            if self.by_ref.len() >= Self::MAX {
                continue;
            }
            let mut number = self.next.clamp(FIRST, LAST);
            while self.catalogue.contains_key(&RuleNumber(number)) {
                number = after(number);
            }
            self.next = after(number);
            self.by_ref.insert(rule.clone(), RuleNumber(number));
            self.catalogue.insert(RuleNumber(number), Arc::clone(entry));
        }
    }

    pub(super) fn release<'a>(&mut self, rules: impl IntoIterator<Item = &'a RuleRef>) {
        for rule in rules {
            if let Some(number) = self.by_ref.remove(rule) {
                self.catalogue.remove(&number);
            }
        }
    }

    /// Releases all that `keep` does not hold (after an import).
    pub(super) fn retain(&mut self, keep: &BTreeSet<RuleRef>) {
        let gone: Vec<RuleRef> = self
            .by_ref
            .keys()
            .filter(|rule| !keep.contains(rule))
            .cloned()
            .collect();
        self.release(&gone);
    }

    pub(super) fn export(&self) -> RuleNumbersRecord {
        RuleNumbersRecord {
            numbers: self
                .by_ref
                .iter()
                .map(|(rule, number)| (rule.clone(), *number))
                .collect(),
            next: self.next,
        }
    }

    pub(super) fn import(record: RuleNumbersRecord) -> Self {
        let mut numbers = Self {
            next: record.next,
            ..Self::default()
        };
        for (rule, number) in record.numbers {
            let fits =
                (FIRST..=LAST).contains(&number.0) && !numbers.catalogue.contains_key(&number);
            if fits && !numbers.by_ref.contains_key(&rule) {
                // What else is known of it comes with its policy.
                let entry = RuleEntry {
                    rule: rule.clone(),
                    log: None,
                    file: String::new(),
                    line: None,
                };
                numbers.catalogue.insert(number, Arc::new(entry));
                numbers.by_ref.insert(rule, number);
            }
        }
        numbers
    }
}

fn after(number: u32) -> u32 {
    if number >= LAST { FIRST } else { number + 1 }
}
