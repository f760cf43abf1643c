//! The identities of one direction, by the items that hold them.
//!
//! Identities that the same items hold, with the same named ports, are one
//! class: they have one row.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::hashing::NumberMap;
use super::items::{Items, NOBODY, number};
use super::ports::{PortName, position};
use super::sets::Set;
use crate::policy::language::NamedPort;

/// No class, or no row.
pub(super) const NONE: u32 = u32::MAX;

/// What the name of a port of an egress rule means to an identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Meaning {
    /// Number of the name.
    pub(super) name: u32,
    /// The port, as a key of the line.
    pub(super) key: usize,
}

/// What tells classes apart.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    /// The items that hold it, but for those for everyone.
    pub(super) items: Set,
    /// What names of ports mean to it, of those that matter to it.
    pub(super) named: Arc<[Meaning]>,
}

/// Identities that no item tells apart.
#[derive(Debug)]
struct Class {
    key: Key,
    /// How many live identities are of it.
    identities: u32,
    row: u32,
}

/// All identities, by index.
#[derive(Debug)]
pub(super) struct Population {
    class_of: Vec<u32>,
    classes: Vec<Class>,
    known: NumberMap<Key, u32>,
    /// Classes with identities.
    live: usize,
    /// Ports that named ports stand for, with how many live classes mean them.
    ports: BTreeMap<usize, u32>,
    /// Those that have come into use (true) or gone out of it.
    port_changes: Vec<(usize, bool)>,
    /// Classes that had no row when they came to life; maybe more than once.
    unpainted: Vec<u32>,
    nothing_named: Arc<[Meaning]>,
}

impl Population {
    /// Of the unknown identity alone: what nothing selects.
    pub(super) fn new() -> Self {
        let mut population = Self {
            class_of: Vec::new(),
            classes: Vec::new(),
            known: NumberMap::default(),
            live: 0,
            ports: BTreeMap::new(),
            port_changes: Vec::new(),
            unpainted: Vec::new(),
            nothing_named: Arc::from([]),
        };
        let key = population.key(Set::EMPTY, Vec::new());
        population.put(0, Some(key));
        population
    }

    /// The key of an identity that these items hold.
    pub(super) fn key(&self, items: Set, named: Vec<Meaning>) -> Key {
        let named = if named.is_empty() {
            Arc::clone(&self.nothing_named)
        } else {
            named.into()
        };
        Key { items, named }
    }

    /// Gives an index to an identity, or to nobody. Whether that is news.
    pub(super) fn put(&mut self, index: usize, key: Option<Key>) -> bool {
        let class = key.map_or(NONE, |key| self.class(key));
        if self.class_of.len() <= index {
            if class == NONE {
                return false;
            }
            self.class_of.resize(index + 1, NONE);
        }
        let before = std::mem::replace(&mut self.class_of[index], class);
        if before == class {
            return false;
        }
        self.join(class);
        self.leave(before);
        while self.class_of.last() == Some(&NONE) {
            self.class_of.pop();
        }
        true
    }

    /// The class of each index; NONE where nobody is.
    pub(super) fn by_index(&self) -> &[u32] {
        &self.class_of
    }

    /// How many classes have identities.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Keys that names have come to stand for, or ceased to, since this was
    /// asked last.
    pub(super) fn take_port_changes(&mut self) -> Vec<(usize, bool)> {
        std::mem::take(&mut self.port_changes)
    }

    /// What a class is.
    pub(super) fn key_of(&self, class: u32) -> &Key {
        &self.classes[class as usize].key
    }

    /// The row of a class; NONE until it is painted.
    pub(super) fn row_of(&self, class: u32) -> u32 {
        self.classes[class as usize].row
    }

    /// Gives a class its row.
    pub(super) fn set_row(&mut self, class: u32, row: u32) {
        self.classes[class as usize].row = row;
    }

    /// The classes that have identities and no row, each once.
    pub(super) fn take_unpainted(&mut self) -> Vec<u32> {
        let mut unpainted = std::mem::take(&mut self.unpainted);
        unpainted.sort_unstable();
        unpainted.dedup();
        unpainted.retain(|class| {
            let class = &self.classes[*class as usize];
            class.identities > 0 && class.row == NONE
        });
        unpainted
    }

    /// The classes whose row is not `right` have none any more.
    pub(super) fn forget_rows(&mut self, right: impl Fn(u32) -> bool) {
        for (place, class) in (0..).zip(&mut self.classes) {
            if class.row != NONE && !right(class.row) {
                class.row = NONE;
                self.unpainted.push(place);
            }
        }
    }

    /// Classes kept, with identities or without.
    pub(super) fn kept(&self) -> usize {
        self.classes.len()
    }

    fn class(&mut self, key: Key) -> u32 {
        if let Some(class) = self.known.get(&key) {
            return *class;
        }
        let class = number(self.classes.len());
        self.known.insert(key.clone(), class);
        self.classes.push(Class {
            key,
            identities: 0,
            row: NONE,
        });
        class
    }

    fn join(&mut self, place: u32) {
        let Some(class) = self.classes.get_mut(place as usize) else {
            return;
        };
        class.identities += 1;
        if class.identities > 1 {
            return;
        }
        self.live += 1;
        if class.row == NONE {
            self.unpainted.push(place);
        }
        for meaning in class.key.named.iter() {
            let users = self.ports.entry(meaning.key).or_insert(0);
            *users += 1;
            if *users == 1 {
                self.port_changes.push((meaning.key, true));
            }
        }
    }

    fn leave(&mut self, class: u32) {
        let Some(class) = self.classes.get_mut(class as usize) else {
            return;
        };
        class.identities -= 1;
        if class.identities > 0 {
            return;
        }
        self.live -= 1;
        for meaning in class.key.named.iter() {
            let Some(users) = self.ports.get_mut(&meaning.key) else {
                continue;
            };
            *users -= 1;
            if *users == 0 {
                self.ports.remove(&meaning.key);
                self.port_changes.push((meaning.key, false));
            }
        }
    }
}

/// What an identity that these items hold makes of its named ports: those that
/// an item of theirs names.
pub(super) fn meanings(items: &Items, own: Set, ports: &[NamedPort]) -> Vec<Meaning> {
    let meaning = |port: &NamedPort| {
        let name = items.ports.name_number(&PortName {
            protocol: port.protocol,
            name: port.name.clone(),
        })?;
        let key = position(port.protocol, port.port);
        (named(items, own, name, true) != NOBODY).then_some(Meaning { name, key })
    };
    let mut meanings: Vec<Meaning> = ports.iter().filter_map(meaning).collect();
    meanings.sort_unstable();
    meanings.dedup();
    meanings
}

/// The first item that names the port and holds who has these of its own.
pub(super) fn named(items: &Items, own: Set, name: u32, audited: bool) -> u32 {
    let holds = items.of_name(name).filter(|item| {
        let counts = audited || items.get(*item).is_some_and(|item| !item.audited);
        counts && items.holds(own, *item)
    });
    holds
        .min_by_key(|item| items.order(*item))
        .unwrap_or(NOBODY)
}
