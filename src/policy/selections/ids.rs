//! The numbers of the selectors in use. Plain prefixes have a map of their own:
//! there may be a hundred thousand of them, and a prefix is compared faster
//! than a selector.

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use ipnet::IpNet;

use super::{Selector, SelectorId};
use crate::policy::language::Peer;

/// Selectors and their numbers.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SelectorIds {
    prefixes: OrdMap<IpNet, SelectorId>,
    others: OrdMap<Selector, SelectorId>,
}

/// The prefix that says all of a peer.
fn prefix_of_peer(peer: &Peer) -> Option<IpNet> {
    match peer {
        Peer::Cidr { cidr, except } if except.is_empty() => Some(*cidr),
        Peer::Cidr { .. }
        | Peer::Entity(_)
        | Peer::CidrGroup { .. }
        | Peer::Endpoints(_)
        | Peer::Nodes(_)
        | Peer::Services(_) => None,
    }
}

/// The prefix that says all of a selector.
pub(super) fn prefix_of(selector: &Selector) -> Option<IpNet> {
    match selector {
        Selector::Peer(peer) => prefix_of_peer(peer),
        Selector::Address(_) => None,
    }
}

impl SelectorIds {
    /// The number of a selector in use.
    #[must_use]
    pub fn get(&self, selector: &Selector) -> Option<SelectorId> {
        match prefix_of(selector) {
            Some(prefix) => self.of_prefix(prefix),
            None => self.others.get(selector).copied(),
        }
    }
    /// The number of a peer in use.
    #[must_use]
    pub fn of_peer(&self, peer: &Peer) -> Option<SelectorId> {
        match prefix_of_peer(peer) {
            Some(prefix) => self.of_prefix(prefix),
            None => self.others.get(&Selector::Peer(peer.clone())).copied(),
        }
    }
    /// The number of a plain prefix in use.
    pub(super) fn of_prefix(&self, prefix: IpNet) -> Option<SelectorId> {
        self.prefixes.get(&prefix).copied()
    }

    pub(super) fn insert(&mut self, selector: Selector, id: SelectorId) {
        match prefix_of(&selector) {
            Some(prefix) => self.prefixes.insert(prefix, id),
            None => self.others.insert(selector, id),
        };
    }

    pub(super) fn remove(&mut self, selector: &Selector) {
        match prefix_of(selector) {
            Some(prefix) => self.prefixes.remove(&prefix),
            None => self.others.remove(selector),
        };
    }

    /// All of them, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (Selector, SelectorId)> {
        let plain = |prefix: &IpNet| {
            Selector::Peer(Peer::Cidr {
                cidr: *prefix,
                except: Vec::new(),
            })
        };
        let prefixes = self.prefixes.iter();
        let prefixes = prefixes.map(move |(prefix, id)| (plain(prefix), *id));
        let others = self.others.iter();
        prefixes.chain(others.map(|(selector, id)| (selector.clone(), *id)))
    }

    /// Whether a selector has another number in `after`.
    pub(in crate::policy) fn are_others_in(&self, after: &Self) -> bool {
        fn renumbered<K>(item: &DiffItem<'_, '_, K, SelectorId>) -> bool {
            match item {
                DiffItem::Update { .. } => true,
                DiffItem::Add(..) | DiffItem::Remove(..) => false,
            }
        }
        let mut prefixes = self.prefixes.diff(&after.prefixes);
        let mut others = self.others.diff(&after.others);
        prefixes.any(|item| renumbered(&item)) || others.any(|item| renumbered(&item))
    }
}

impl FromIterator<(Selector, SelectorId)> for SelectorIds {
    fn from_iter<I: IntoIterator<Item = (Selector, SelectorId)>>(pairs: I) -> Self {
        let mut ids = Self::default();
        for (selector, id) in pairs {
            ids.insert(selector, id);
        }
        ids
    }
}
