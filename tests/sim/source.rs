//! A source of objects: what it holds, and what it has not told yet. It may tell
//! twice, late and in another order, or be silent for long.

use std::collections::{BTreeMap, BTreeSet};

use palisade::clock::Moment;
use palisade::events::{RepositoryChange, ResourceKey, SourceName};
use serde_json::Value;

use crate::ledger::Ledger;
use crate::objects;
use crate::random::Random;

#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: SourceName,
    /// What lies in the directory, or in the cluster.
    pub(crate) holds: BTreeMap<ResourceKey, Value>,
    /// What was not told yet in this life of the agent, in the order of telling.
    inbox: Vec<RepositoryChange>,
    /// Whether it said that this was all.
    pub(crate) in_sync: bool,
    silent_until: Moment,
}

impl Source {
    pub(crate) fn new(name: SourceName) -> Self {
        Self {
            name,
            holds: BTreeMap::new(),
            inbox: Vec::new(),
            in_sync: false,
            silent_until: Moment::default(),
        }
    }

    /// The agent started anew: everything is listed again, in any order.
    pub(crate) fn begin(&mut self, now: Moment, random: &mut Random) {
        self.in_sync = false;
        self.inbox.clear();
        self.list(random);
        if random.chance(15) {
            self.be_silent(now, random);
        }
    }

    pub(crate) fn be_silent(&mut self, now: Moment, random: &mut Random) {
        let seconds = *random.pick(&[1, 60, 200]);
        self.silent_until = now.after(std::time::Duration::from_secs(seconds));
    }

    fn list(&mut self, random: &mut Random) {
        for (key, body) in &self.holds {
            let resource = objects::resource(key, body, self.name);
            let place = random.below(self.inbox.len() + 1);
            self.inbox.insert(place, RepositoryChange::Upsert(resource));
        }
    }

    /// Tells everything again, and what is gone: a watch that was broken.
    pub(crate) fn list_again(&mut self, ledger: &Ledger, random: &mut Random) {
        self.inbox.clear();
        self.list(random);
        let owned: BTreeSet<ResourceKey> = self.holds.keys().cloned().collect();
        for key in ledger.vanished(self.name, &owned) {
            self.inbox.push(RepositoryChange::Delete {
                key,
                source: self.name,
            });
        }
        self.silent_until = Moment::default();
    }

    /// Somebody writes or removes an object.
    pub(crate) fn edit(&mut self, random: &mut Random) {
        let key = random.pick(&objects::keys()).clone();
        if self.holds.contains_key(&key) && random.chance(35) {
            self.holds.remove(&key);
            return self.send(
                RepositoryChange::Delete {
                    key,
                    source: self.name,
                },
                random,
            );
        }
        let body = objects::version(&key, random);
        self.put(key, body, random);
    }

    fn put(&mut self, key: ResourceKey, body: Value, random: &mut Random) {
        let resource = objects::resource(&key, &body, self.name);
        self.holds.insert(key, body);
        self.send(RepositoryChange::Upsert(resource), random);
    }

    /// Whoever wrote what is invalid corrects it.
    pub(crate) fn correct(&mut self, random: &mut Random) {
        for (key, body) in self.holds.clone() {
            if !objects::is_valid(&body) {
                let valid = objects::valid(&key, random);
                self.put(key, valid, random);
            }
        }
    }

    fn send(&mut self, change: RepositoryChange, random: &mut Random) {
        if random.chance(10) {
            self.inbox.push(change.clone());
        }
        let place = if random.chance(15) {
            random.below(self.inbox.len() + 1)
        } else {
            self.inbox.len()
        };
        self.inbox.insert(place, change);
    }

    pub(crate) fn is_silent(&self, now: Moment) -> bool {
        self.silent_until > now
    }

    pub(crate) fn is_done(&self) -> bool {
        self.inbox.is_empty() && self.in_sync
    }

    /// The next thing that it tells; None when that was all.
    pub(crate) fn next(&mut self) -> Option<RepositoryChange> {
        (!self.inbox.is_empty()).then(|| self.inbox.remove(0))
    }
}
