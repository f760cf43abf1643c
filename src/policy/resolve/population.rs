//! The identities of one direction, by the items' peers that hold them.
//!
//! Identities that the same peers hold, with the same named ports, are one
//! class: they have one row.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::gather::number;
use super::names::Meaning;
use super::sets::Set;

/// No class, or no row.
pub(super) const NONE: u32 = u32::MAX;

/// What tells classes apart.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    pub(super) peers: Set,
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
    known: HashMap<Key, u32>,
    /// Classes with identities.
    live: usize,
    /// Ports that named ports stand for, with how many live classes mean them.
    ports: BTreeMap<usize, u32>,
    ports_changed: bool,
    /// Classes that had no row when they came to life; maybe more than once.
    unpainted: Vec<u32>,
    nothing_named: Arc<[Meaning]>,
}

impl Population {
    /// Of the unknown identity alone: what nothing selects.
    pub(super) fn new(stranger: Set) -> Self {
        let mut population = Self {
            class_of: Vec::new(),
            classes: Vec::new(),
            known: HashMap::new(),
            live: 0,
            ports: BTreeMap::new(),
            ports_changed: false,
            unpainted: Vec::new(),
            nothing_named: Arc::from([]),
        };
        let key = population.key(stranger, Vec::new());
        population.put(0, Some(key));
        population
    }

    /// The key of an identity that these peers hold.
    pub(super) fn key(&self, peers: Set, named: Vec<Meaning>) -> Key {
        let named = if named.is_empty() {
            Arc::clone(&self.nothing_named)
        } else {
            named.into()
        };
        Key { peers, named }
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

    /// The keys on the line of ports that names stand for.
    pub(super) fn ports(&self) -> impl Iterator<Item = usize> + '_ {
        self.ports.keys().copied()
    }

    /// Whether those have changed since this was asked last.
    pub(super) fn take_ports_changed(&mut self) -> bool {
        std::mem::take(&mut self.ports_changed)
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

    /// No class has a row any more.
    pub(super) fn forget_rows(&mut self) {
        for class in &mut self.classes {
            class.row = NONE;
        }
        self.unpainted = (0..number(self.classes.len())).collect();
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
            self.ports_changed |= *users == 1;
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
                self.ports_changed = true;
            }
        }
    }
}
