//! What etcd holds, as far as it was heard, and which changes follow. No I/O.
//!
//! Invariants: a key is gone only when etcd said so, or when a list that came to
//! its end does not hold it. The first list, where nothing is held, is told as it
//! comes: nothing follows from it before the source is in sync. Any other list
//! changes nothing before its end. Then no address is for a moment what its number
//! means to somebody else: a number takes another meaning after the addresses that
//! leave it, and before those that come to it.

use std::collections::{BTreeMap, BTreeSet};

use super::heard::{Entry, Heard};
use super::keys::Name;
use super::translate::{Meaning, Own, Translated, translate};
use crate::events::{RepositoryChange, ResourceKey, ResourceKind, SourceName};
use crate::policy::documents::Positions;

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Stage {
    /// No list has come to its end yet.
    #[default]
    Unheard,
    /// A list came to its end; the watch runs, as far as is known.
    InSync,
    /// A list came to its end once; another one runs.
    Relisting,
}

/// What is held of a key.
#[derive(Clone, PartialEq, Debug)]
struct Held {
    kind: ResourceKind,
    /// None: none of its values could be read so far.
    resource: Option<(ResourceKey, Meaning)>,
    /// Why its newest value cannot be read; the one before stays.
    problem: Option<String>,
}

/// A change, with the places of its fields.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Told {
    pub(super) change: RepositoryChange,
    pub(super) positions: Option<Positions>,
}

/// Everything under the watched prefix.
#[derive(Debug)]
pub(super) struct Mirror {
    own: Own,
    pub(super) stage: Stage,
    held: BTreeMap<String, Held>,
    /// Of a list that runs, and is not told as it comes: what it held so far.
    listed: Option<BTreeMap<String, Vec<u8>>>,
    /// What failed last, until etcd is heard again.
    pub(super) trouble: Option<String>,
}

impl Mirror {
    /// `restored`: what an earlier life of the agent took from etcd.
    pub(super) fn new(
        own: Own,
        restored: impl IntoIterator<Item = (String, ResourceKey, Meaning)>,
    ) -> Self {
        let held = restored.into_iter().map(|(at, key, meaning)| {
            let held = Held {
                kind: key.kind,
                resource: Some((key, meaning)),
                problem: None,
            };
            (at, held)
        });
        Self {
            own,
            stage: Stage::default(),
            held: held.collect(),
            listed: None,
            trouble: None,
        }
    }

    /// The changes that follow from what was heard, in their order.
    pub(super) fn take(&mut self, heard: Heard) -> Vec<Told> {
        match heard {
            Heard::Begins => {
                let is_told_at_once = self.stage == Stage::Unheard && self.held.is_empty();
                self.listed = (!is_told_at_once).then(BTreeMap::new);
                if self.stage == Stage::InSync {
                    self.stage = Stage::Relisting;
                }
                Vec::new()
            }
            Heard::Entry(Entry { key, value }) => match &mut self.listed {
                Some(listed) => {
                    listed.insert(key, value);
                    Vec::new()
                }
                None => self.put(&key, &value).into_iter().collect(),
            },
            Heard::Gone(key) => match &mut self.listed {
                Some(listed) => {
                    listed.remove(&key);
                    Vec::new()
                }
                None => self.drop_key(&key).into_iter().collect(),
            },
            Heard::Whole => {
                self.stage = Stage::InSync;
                self.trouble = None;
                let listed = self.listed.take();
                listed.map_or_else(Vec::new, |listed| self.settle(&listed))
            }
            Heard::Follows => {
                self.trouble = None;
                Vec::new()
            }
            Heard::Trouble(message) => {
                self.trouble = Some(message);
                Vec::new()
            }
            Heard::Published(_) | Heard::Tick => Vec::new(),
        }
    }

    fn put(&mut self, key: &str, value: &[u8]) -> Option<Told> {
        let name = Name::of(key)?;
        let kind = match &name {
            Ok(name) => name.kind(),
            Err(_) => kind_of_broken(key),
        };
        let read = name.and_then(|name| translate(&self.own, key, name, value));
        let held = self.held.entry(key.to_owned()).or_insert(Held {
            kind,
            resource: None,
            problem: None,
        });
        match read {
            Ok(Some(Translated {
                resource,
                positions,
                meaning,
            })) => {
                held.problem = None;
                held.resource = Some((resource.key.clone(), meaning));
                let change = RepositoryChange::Upsert(resource);
                Some(Told { change, positions })
            }
            // Our own word; what somebody else said there before is gone.
            Ok(None) => self.drop_key(key),
            Err(problem) => {
                held.problem = Some(problem);
                None
            }
        }
    }

    fn drop_key(&mut self, key: &str) -> Option<Told> {
        let (resource, _) = self.held.remove(key)?.resource?;
        Some(deletion(resource))
    }

    /// From what is held to what was listed.
    fn settle(&mut self, listed: &BTreeMap<String, Vec<u8>>) -> Vec<Told> {
        let before = self.numbers();
        let numbered = self.numbered();
        let mut told: Vec<(u8, Told)> = Vec::new();
        for (key, value) in listed {
            if let Some(change) = self.put(key, value) {
                told.push((0, change));
            }
        }
        let now = self.numbers();
        let renamed: BTreeSet<u32> = before
            .iter()
            .filter(|(number, labels)| now.get(*number).is_some_and(|it| it != *labels))
            .map(|(number, _)| *number)
            .collect();
        let mut first_let_go = Vec::new();
        for (rank, change) in &mut told {
            let RepositoryChange::Upsert(resource) = &change.change else {
                continue;
            };
            let held = self.held.get(&resource.origin.file);
            let meaning = held.and_then(|held| held.resource.as_ref()).map(|it| &it.1);
            *rank = match meaning {
                Some(Meaning::Number { number, .. }) => 4 * u8::from(renamed.contains(number)),
                Some(Meaning::Address { number }) => {
                    let was = numbered.get(&resource.origin.file);
                    let is_renamed = renamed.contains(number);
                    // Neither number may be believed before the other is told.
                    if is_renamed && was.is_some_and(|was| was != number && renamed.contains(was)) {
                        first_let_go.push((2, deletion(resource.key.clone())));
                    }
                    1 + 4 * u8::from(is_renamed)
                }
                Some(Meaning::Other) | None => 7,
            };
        }
        told.append(&mut first_let_go);
        let gone: Vec<String> = self
            .held
            .keys()
            .filter(|key| !listed.contains_key(*key))
            .cloned()
            .collect();
        for key in gone {
            let held = self.held.remove(&key);
            let Some((resource, meaning)) = held.and_then(|held| held.resource) else {
                continue;
            };
            let rank = match meaning {
                Meaning::Address { .. } => 2,
                Meaning::Number { .. } => 6,
                Meaning::Other => 8,
            };
            told.push((rank, deletion(resource)));
        }
        told.sort_by_key(|(rank, _)| *rank);
        told.into_iter().map(|(_, told)| told).collect()
    }

    /// Addresses by their keys, with the numbers that they have.
    fn numbered(&self) -> BTreeMap<String, u32> {
        let held = self.held.iter().filter_map(|(key, held)| {
            let Some((_, Meaning::Address { number })) = held.resource else {
                return None;
            };
            Some((key.clone(), number))
        });
        held.collect()
    }

    /// Numbers with their labels.
    fn numbers(&self) -> BTreeMap<u32, String> {
        let meanings = self.held.values().filter_map(|held| held.resource.as_ref());
        meanings
            .filter_map(|(_, meaning)| match meaning {
                Meaning::Number { number, labels } => Some((*number, labels.clone())),
                Meaning::Address { .. } | Meaning::Other => None,
            })
            .collect()
    }

    /// Whether everything was heard once: only then may anything be deleted that
    /// an earlier life of the agent knew.
    pub(super) fn was_whole(&self) -> bool {
        self.stage != Stage::Unheard
    }

    /// Whether what is held is what etcd holds.
    pub(super) fn is_in_sync(&self) -> bool {
        self.stage == Stage::InSync && self.trouble.is_none()
    }

    /// Every object that etcd holds.
    pub(super) fn keys(&self) -> BTreeSet<ResourceKey> {
        let held = self.held.values().filter_map(|held| held.resource.as_ref());
        held.map(|(key, _)| key.clone()).collect()
    }

    /// Objects of each kind, for `status`.
    pub(super) fn counts(&self) -> BTreeMap<ResourceKind, usize> {
        let mut counts = BTreeMap::new();
        for held in self.held.values().filter(|held| held.resource.is_some()) {
            *counts.entry(held.kind).or_default() += 1;
        }
        counts
    }

    /// Keys whose newest value cannot be read, and whether an older one stays.
    pub(super) fn broken(&self) -> impl Iterator<Item = (&str, &str, bool)> {
        self.held.iter().filter_map(|(key, held)| {
            let problem = held.problem.as_deref()?;
            Some((key.as_str(), problem, held.resource.is_some()))
        })
    }
}

/// By its prefix.
fn kind_of_broken(key: &str) -> ResourceKind {
    if key.starts_with(super::keys::POLICIES) {
        ResourceKind::CiliumClusterwideNetworkPolicy
    } else if key.starts_with(super::keys::NODES) {
        ResourceKind::CiliumNode
    } else {
        ResourceKind::CiliumIdentity
    }
}

fn deletion(key: ResourceKey) -> Told {
    let source = SourceName::Etcd;
    Told {
        change: RepositoryChange::Delete { key, source },
        positions: None,
    }
}
