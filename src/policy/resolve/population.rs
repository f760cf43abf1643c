//! The identities of one direction, by the items that hold them.
//!
//! Identities that the same items hold, with the same named ports, are one
//! class: they have one row.

use std::sync::Arc;

use super::hashing::NumberMap;
use super::items::{Items, NOBODY, number};
use super::ports::{PortName, position};
use super::sets::Set;
use crate::policy::language::NamedPort;
use crate::policy::row::Row;

/// What the name of a port of an egress rule means to an identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Meaning {
    /// Number of the name.
    pub(super) name: u32,
    /// The port, as a key.
    pub(super) key: u32,
}

/// What tells classes apart.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    /// The items that hold it, but for those for everyone.
    pub(super) items: Set,
    /// What names of ports mean to it, of those that matter to it.
    pub(super) named: Arc<[Meaning]>,
}

impl Key {
    /// Of who has these items, and no named port.
    pub(super) fn of(items: Set) -> Self {
        Self {
            items,
            named: Arc::from([]),
        }
    }
}

/// Identities that no item tells apart.
#[derive(Debug)]
struct Class {
    key: Key,
    /// At least one, but for classes that are free to be another.
    identities: Vec<u32>,
    row: Option<Row>,
}

/// The class of an identity, and its place in it.
#[derive(Clone, Copy, Debug)]
struct Member {
    class: u32,
    place: u32,
}

/// All identities, by index.
#[derive(Debug)]
pub(super) struct Population {
    members: Vec<Option<Member>>,
    classes: Vec<Class>,
    known: NumberMap<Key, u32>,
    free: Vec<u32>,
    /// Classes that had no row once; maybe more than once.
    unpainted: Vec<u32>,
    /// Identities that may have another row now; maybe more than once.
    moved: Vec<u32>,
    nothing_named: Arc<[Meaning]>,
}

impl Population {
    /// Of the unknown identity alone: what nothing selects.
    pub(super) fn new() -> Self {
        let mut population = Self {
            members: Vec::new(),
            classes: Vec::new(),
            known: NumberMap::default(),
            free: Vec::new(),
            unpainted: Vec::new(),
            moved: Vec::new(),
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

    /// Gives an index to an identity, or to nobody.
    pub(super) fn put(&mut self, index: u32, key: Option<Key>) {
        if self.members.len() <= index as usize {
            self.members.resize(index as usize + 1, None);
        }
        let before = self.members[index as usize];
        if key.as_ref() == before.map(|before| &self.classes[before.class as usize].key) {
            return;
        }
        // A class that both have in common would not have gone meanwhile.
        self.members[index as usize] = key.map(|key| self.join(index, key));
        if let Some(before) = before {
            self.leave(before);
        }
        self.moved.push(index);
    }

    /// The class of an identity, if it is one.
    pub(super) fn class_of(&self, index: u32) -> Option<u32> {
        let member = self.members.get(index as usize)?;
        member.map(|member| member.class)
    }

    /// What a class is.
    pub(super) fn key_of(&self, class: u32) -> &Key {
        &self.classes[class as usize].key
    }

    /// Gives a class its row.
    pub(super) fn set_row(&mut self, class: u32, row: Row) {
        let class = &mut self.classes[class as usize];
        class.row = Some(row);
        self.moved.extend(&class.identities);
    }

    /// The classes that have no row, each once.
    pub(super) fn take_unpainted(&mut self) -> Vec<u32> {
        let mut unpainted = std::mem::take(&mut self.unpainted);
        unpainted.sort_unstable();
        unpainted.dedup();
        unpainted.retain(|class| {
            let class = &self.classes[*class as usize];
            !class.identities.is_empty() && class.row.is_none()
        });
        unpainted
    }

    /// The identities that may have another row than when this was asked last.
    /// All have a row, if they are live.
    pub(super) fn take_moved(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.moved)
    }

    /// The row of an identity, if it is live.
    pub(super) fn row_of(&self, index: u32) -> Option<&Row> {
        let class = self.class_of(index)?;
        self.classes[class as usize].row.as_ref()
    }

    /// The rows of all classes that have one.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.classes.iter().filter_map(|class| class.row.as_ref())
    }

    /// No class has a row any more.
    pub(super) fn forget_rows(&mut self) {
        for (class, number) in self.classes.iter_mut().zip(0..) {
            if class.row.take().is_some() {
                self.unpainted.push(number);
            }
        }
    }

    fn join(&mut self, index: u32, key: Key) -> Member {
        let class = match self.known.get(&key) {
            Some(class) => *class,
            None => self.found(key),
        };
        let identities = &mut self.classes[class as usize].identities;
        identities.push(index);
        Member {
            class,
            place: number(identities.len() - 1),
        }
    }

    /// A new class.
    fn found(&mut self, key: Key) -> u32 {
        let class = Class {
            key: key.clone(),
            identities: Vec::new(),
            row: None,
        };
        let place = self.free.pop().unwrap_or(number(self.classes.len()));
        match self.classes.get_mut(place as usize) {
            Some(free) => *free = class,
            None => self.classes.push(class),
        }
        self.known.insert(key, place);
        self.unpainted.push(place);
        place
    }

    fn leave(&mut self, member: Member) {
        let class = &mut self.classes[member.class as usize];
        class.identities.swap_remove(member.place as usize);
        if let Some(moved) = class.identities.get(member.place as usize) {
            self.members[*moved as usize] = Some(member);
        }
        if !class.identities.is_empty() {
            return;
        }
        class.row = None;
        self.known.remove(&class.key);
        self.free.push(member.class);
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
