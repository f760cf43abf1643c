//! What policies and nodes need: identities for prefixes, numbers for rules,
//! entries of the ipcache. Counted, so that what nobody needs is given back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::numbers::RuleNumbers;
use crate::events::Resource;
use crate::identity::{
    Allocated, IdentityAllocator, IdentityKey, Ipcache, IpcacheClaim, IpcacheSource, LabelSet,
    Reserved,
};
use crate::policy::language::{Peer, Peers, Policy, Rule, RuleSubject};
use crate::policy::{FailsafeEntry, RuleEntry, RuleRef};

/// What one policy needs on this node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Effects {
    pub(super) prefixes: BTreeSet<IpNet>,
    pub(super) rules: BTreeMap<RuleRef, Arc<RuleEntry>>,
    pub(super) selects_host: bool,
}

/// Whether a rule selects the host endpoint with these labels.
pub(in crate::policy) fn selects_host(rule: &Rule, host_labels: &LabelSet) -> bool {
    match &rule.subject {
        RuleSubject::Node(selector) => selector.matches(host_labels),
        RuleSubject::Endpoint(_) => false,
    }
}

impl Effects {
    /// Those of a policy. Policies for other nodes need nothing here.
    pub(super) fn of_policy(resource: &Resource, policy: &Policy, host_labels: &LabelSet) -> Self {
        let Resource { key, origin, .. } = resource;
        let mut effects = Self::default();
        for rule in &policy.rules {
            if !selects_host(rule, host_labels) {
                continue;
            }
            effects.selects_host = true;
            for item in &rule.items {
                let reference = RuleRef {
                    resource: Some(key.clone()),
                    section: item.section,
                    index: item.index,
                };
                let entry = RuleEntry {
                    rule: reference.clone(),
                    log: rule.log.clone(),
                    file: origin.file.clone(),
                    line: origin.item_lines.get(&item.path).copied(),
                };
                effects.rules.insert(reference, Arc::new(entry));
                effects.add_prefixes(&item.peers);
            }
        }
        effects
    }

    fn add_prefixes(&mut self, peers: &Peers) {
        let Peers::Select(peers) = peers else {
            return;
        };
        for peer in peers {
            match peer {
                Peer::Cidr { cidr, except } => {
                    self.prefixes.insert(*cidr);
                    self.prefixes.extend(except);
                }
                Peer::Entity(entity) => self.prefixes.extend(entity.prefix()),
                Peer::CidrGroup { .. }
                | Peer::Endpoints(_)
                | Peer::Nodes(_)
                | Peer::Services(_) => {}
            }
        }
    }

    /// Those of the failsafe list.
    pub(super) fn of_failsafe(entries: &[FailsafeEntry]) -> Self {
        Self {
            prefixes: entries
                .iter()
                .filter_map(|entry| entry.peer)
                .map(|peer| peer.trunc())
                .collect(),
            rules: (0..entries.len())
                .map(|index| {
                    let entry = RuleEntry::failsafe(index);
                    (entry.rule.clone(), Arc::new(entry))
                })
                .collect(),
            selects_host: false,
        }
    }
}

/// The items of `old` that `new` does not have.
fn gone_rules<'a>(old: &'a Effects, new: &'a Effects) -> impl Iterator<Item = &'a RuleRef> {
    old.rules
        .keys()
        .filter(|rule| !new.rules.contains_key(rule))
}

/// More than fits, with the numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct DoesNotFit {
    pub(super) what: &'static str,
    pub(super) needed: usize,
    pub(super) max: usize,
}

/// All effects together.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    /// Users of each prefix.
    prefixes: BTreeMap<IpNet, u32>,
    pub(super) numbers: RuleNumbers,
    pub(super) allocator: IdentityAllocator,
    pub(super) ipcache: Ipcache,
    /// Prefixes of failsafe entries: nodes within have identities of their own.
    node_prefixes: Vec<(IpNet, Allocated)>,
    pub(super) identity_changes: u64,
}

impl Ledger {
    /// With what the failsafe list needs; it is small and always fits.
    pub(super) fn new(
        failsafe: &[FailsafeEntry],
        numbers: RuleNumbers,
        allocator: IdentityAllocator,
    ) -> Self {
        let mut ledger = Self {
            prefixes: BTreeMap::new(),
            numbers,
            allocator,
            ipcache: Ipcache::default(),
            node_prefixes: Vec::new(),
            identity_changes: 0,
        };
        let effects = Effects::of_failsafe(failsafe);
        for prefix in &effects.prefixes {
            let key = IdentityKey::RemoteNode(prefix.trunc());
            if let Some(allocated) = ledger.allocator.allocate(key) {
                ledger.node_prefixes.push((prefix.trunc(), allocated));
            }
        }
        ledger
            .node_prefixes
            .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.prefix_len()));
        ledger.acquire(&effects);
        ledger
    }

    /// Replaces the effects of one policy by others, or says what does not fit
    /// and changes nothing. What both need keeps its numbers.
    pub(super) fn replace(&mut self, old: &Effects, new: &Effects) -> Result<(), DoesNotFit> {
        let gone: Vec<IpNet> = old.prefixes.difference(&new.prefixes).copied().collect();
        let come: Vec<IpNet> = new.prefixes.difference(&old.prefixes).copied().collect();
        self.check(old, new, &gone, &come)?;
        self.numbers.release(gone_rules(old, new));
        for prefix in gone {
            self.release_prefix(prefix);
        }
        self.acquire(&Effects {
            prefixes: come.into_iter().collect(),
            rules: new.rules.clone(),
            selects_host: new.selects_host,
        });
        Ok(())
    }

    fn check(
        &self,
        old: &Effects,
        new: &Effects,
        gone: &[IpNet],
        come: &[IpNet],
    ) -> Result<(), DoesNotFit> {
        let freed = gone_rules(old, new)
            .filter(|rule| self.numbers.contains(rule))
            .count();
        let more = new
            .rules
            .keys()
            .filter(|rule| !self.numbers.contains(rule))
            .count();
        let needed = self.numbers.len() - freed + more;
        if needed > RuleNumbers::MAX {
            return Err(DoesNotFit {
                what: "rule items",
                needed,
                max: RuleNumbers::MAX,
            });
        }
        let freed = gone
            .iter()
            .filter(|prefix| prefix.prefix_len() > 0 && self.prefixes.get(prefix) == Some(&1))
            .count();
        let more = come
            .iter()
            .filter(|prefix| prefix.prefix_len() > 0 && !self.prefixes.contains_key(prefix))
            .count();
        let room = self.allocator.free() + freed;
        if more > room {
            let live = self.prefixes.len() - freed;
            return Err(DoesNotFit {
                what: "CIDR prefixes",
                needed: live + more,
                max: live + room,
            });
        }
        Ok(())
    }

    pub(super) fn acquire(&mut self, effects: &Effects) {
        self.numbers.acquire(&effects.rules);
        for prefix in &effects.prefixes {
            let users = self.prefixes.entry(*prefix).or_insert(0);
            *users += 1;
            if *users > 1 {
                continue;
            }
            if let Some(allocated) = self.allocator.allocate(IdentityKey::Cidr(*prefix)) {
                self.ipcache.claim(*prefix, generated(allocated));
            }
            self.identity_changes += 1;
        }
    }

    fn release_prefix(&mut self, prefix: IpNet) {
        let Some(users) = self.prefixes.get_mut(&prefix) else {
            return;
        };
        *users -= 1;
        if *users > 0 {
            return;
        }
        self.prefixes.remove(&prefix);
        if let Some(allocated) = self.allocator.release(IdentityKey::Cidr(prefix)) {
            self.ipcache.withdraw(prefix, &generated(allocated));
        }
        self.identity_changes += 1;
    }

    /// Gives back identities of a record that nobody needs any more.
    pub(super) fn sweep(&mut self) {
        let stale: Vec<IdentityKey> = self
            .allocator
            .iter()
            .map(|(key, _)| key)
            .filter(|key| match key {
                IdentityKey::Cidr(prefix) => !self.prefixes.contains_key(prefix),
                IdentityKey::RemoteNode(prefix) => {
                    self.node_prefixes.iter().all(|(known, _)| known != prefix)
                }
            })
            .collect();
        for key in stale {
            self.allocator.release(key);
        }
    }

    /// Says that an address is the node's own, or another node's.
    pub(super) fn claim_node(&mut self, address: IpAddr, claim: NodeClaim<'_>) {
        let claim = self.node_claim(address, claim);
        self.ipcache.claim(address.into(), claim);
    }

    /// Takes it back.
    pub(super) fn withdraw_node(&mut self, address: IpAddr, claim: NodeClaim<'_>) {
        let claim = self.node_claim(address, claim);
        self.ipcache.withdraw(address.into(), &claim);
    }

    fn node_claim(&self, address: IpAddr, claim: NodeClaim<'_>) -> IpcacheClaim {
        let allocated = if claim.own {
            Allocated::reserved(Reserved::Host)
        } else {
            self.node_prefixes
                .iter()
                .find(|(prefix, _)| prefix.contains(&address))
                .map_or(
                    Allocated::reserved(Reserved::RemoteNode),
                    |(_, allocated)| *allocated,
                )
        };
        IpcacheClaim {
            source: claim.source,
            identity: allocated.number,
            index: allocated.index,
            owner: Arc::from(claim.owner),
        }
    }
}

/// Who says that an address is a node's.
#[derive(Clone, Copy)]
pub(super) struct NodeClaim<'a> {
    pub(super) own: bool,
    pub(super) source: IpcacheSource,
    pub(super) owner: &'a str,
}

fn generated(allocated: Allocated) -> IpcacheClaim {
    IpcacheClaim {
        source: IpcacheSource::Generated,
        identity: allocated.number,
        index: allocated.index,
        owner: Arc::from(""),
    }
}
