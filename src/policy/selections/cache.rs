//! The selectors in use, counted, and whom they select: kept up to date by what
//! changes.
//!
//! A selector is a set of terms. A term that comes or goes touches the
//! identities that it may select; an identity that comes or changes is asked
//! for the terms that may select it. Neither walks over all of the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use ipnet::IpNet;

use super::anchor::{Anchor, anchors, is_about_prefixes, scope};
use super::expansion::{Contribution, Term, own_term};
use super::ids::prefix_of;
use super::matching::{Candidate, has_prefixes};
use super::mention::{Mention, Things, is_about_nodes, means, meant, mention};
use super::touched::{Touched, taken};
use super::{Selections, Selector, SelectorId, Signature};
use crate::events::{ResourceKey, ResourceKind};
use crate::identity::{DenseMap, IdentityIndex, IdentityTable, LiveIdentity};
use crate::policy::PolicyOptions;
use crate::policy::language::{Entity, Peer};

/// A selector in use.
#[derive(Clone, Debug)]
struct Used {
    users: u32,
    /// None where its one term says everything.
    more: Option<Arc<More>>,
}

/// What a selector has besides a term of its own.
#[derive(Clone, Debug)]
struct More {
    selector: Selector,
    /// How many of the groups and services that it means give each term.
    terms: OrdMap<Term, u32>,
    except: Vec<IpNet>,
}

impl More {
    fn of(selector: &Selector) -> Option<Arc<Self>> {
        let mut except = match selector {
            Selector::Peer(Peer::Cidr { except, .. } | Peer::CidrGroup { except, .. }) => {
                except.clone()
            }
            Selector::Peer(_) | Selector::Address(_) => Vec::new(),
        };
        if except.is_empty() && own_term(selector).is_some() {
            return None;
        }
        except.sort();
        except.dedup();
        Some(Arc::new(Self {
            selector: selector.clone(),
            terms: OrdMap::new(),
            except,
        }))
    }
}

/// The selectors in use.
#[derive(Clone, Debug, Default)]
pub(in crate::policy) struct SelectorCache {
    pub(in crate::policy) selections: Selections,
    used: DenseMap<SelectorId, Used>,
    id_next: u32,
    /// Terms for prefixes, but for selectors that are a prefix themselves; true:
    /// whoever owns the address.
    by_prefix: OrdSet<(IpNet, SelectorId, bool)>,
    /// How many terms for prefixes have each length, by family.
    lengths: [BTreeMap<u8, u32>; 2],
    /// Terms for labels, by a label that must be there.
    by_anchor: OrdSet<(Anchor, SelectorId, Term)>,
    /// Terms that may select without any label.
    wide: OrdSet<(SelectorId, Term)>,
    mentions: OrdSet<(Mention, SelectorId)>,
    /// Selectors in use that mean each group.
    group_users: OrdMap<String, u32>,
    /// Terms that ask for labels of prefixes.
    about_prefixes: u32,
    /// Selectors that tell nodes apart by their labels.
    about_nodes: u32,
    /// Selectors with exceptions.
    excepting: u32,
    /// Room for the signature that is being made; else empty.
    found: Vec<SelectorId>,
}

impl SelectorCache {
    /// Whether a selector tells nodes apart by their labels.
    pub(in crate::policy) fn tells_nodes_apart(&self) -> bool {
        self.about_nodes > 0
    }
    /// Whether the prefixes around an identity change what selects it.
    pub(in crate::policy) fn asks_for_prefixes(&self) -> bool {
        self.about_prefixes > 0
    }

    /// One user more of a selector.
    pub(in crate::policy) fn acquire(
        &mut self,
        selector: &Selector,
        things: Things<'_>,
        touched: &mut Touched,
    ) {
        if let Some(id) = self.selections.ids.get(selector) {
            if let Some(used) = self.used.get_mut(&id) {
                used.users += 1;
            }
            return;
        }
        let id = self.next_id();
        let more = More::of(selector);
        let except = more.iter().flat_map(|more| &more.except);
        except.for_each(|prefix| touched.acquire(*prefix));
        self.excepting += u32::from(excepts(more.as_deref()));
        self.selections.ids.insert(selector.clone(), id);
        self.used.insert(id, Used { users: 1, more });
        self.about_nodes += u32::from(is_about_nodes(selector));
        if let Some(prefix) = prefix_of(selector) {
            self.count_prefix(prefix, true, touched);
        } else if let Some(term) = own_term(selector) {
            self.add_new_term(id, &term, touched);
        } else if let Some(mention) = mention(selector) {
            for key in meant(selector, &mention, things) {
                let contribution = Contribution::of(&key, things.objects, things.slices);
                self.contribute(id, &key, None, contribution.as_ref(), touched);
            }
            self.mentions.insert((mention, id));
        }
    }

    /// One user less of a selector.
    pub(in crate::policy) fn release(
        &mut self,
        selector: &Selector,
        things: Things<'_>,
        touched: &mut Touched,
    ) {
        let Some(id) = self.selections.ids.get(selector) else {
            return;
        };
        let users = self.used.get(&id).map_or(0, |used| used.users);
        if users != 1 {
            if let Some(used) = self.used.get_mut(&id) {
                used.users -= 1;
            }
            return;
        }
        if let Some(prefix) = prefix_of(selector) {
            self.count_prefix(prefix, false, touched);
        } else if let Some(term) = own_term(selector) {
            self.remove_last_term(id, &term, touched);
        } else if let Some(mention) = mention(selector) {
            for key in meant(selector, &mention, things) {
                let contribution = Contribution::of(&key, things.objects, things.slices);
                self.contribute(id, &key, contribution.as_ref(), None, touched);
            }
            self.mentions.remove(&(mention, id));
        }
        self.about_nodes -= u32::from(is_about_nodes(selector));
        self.selections.ids.remove(selector);
        if let Some(used) = self.used.remove(&id) {
            self.excepting -= u32::from(excepts(used.more.as_deref()));
            let except = used.more.iter().flat_map(|more| &more.except);
            except.for_each(|prefix| touched.release(*prefix));
        }
    }

    fn next_id(&mut self) -> SelectorId {
        while self.used.contains_key(&SelectorId(self.id_next)) {
            self.id_next = self.id_next.wrapping_add(1);
        }
        let id = SelectorId(self.id_next);
        self.id_next = self.id_next.wrapping_add(1);
        id
    }

    /// A group or service has changed.
    pub(in crate::policy) fn thing_changed(
        &mut self,
        key: &ResourceKey,
        old: Option<&Contribution>,
        new: Option<&Contribution>,
        touched: &mut Touched,
    ) {
        let mut ids = Vec::new();
        for mention in [Mention::Named(key.clone()), Mention::Any(key.kind)] {
            let first = (mention.clone(), SelectorId(0));
            let last = (mention, SelectorId(u32::MAX));
            ids.extend(self.mentions.range(first..=last).map(|(_, id)| *id));
        }
        let was = self.lists(key, old);
        for id in ids {
            let Some(more) = self.used.get(&id).and_then(|used| used.more.as_ref()) else {
                continue;
            };
            let selector = more.selector.clone();
            let of = |thing: Option<&Contribution>| {
                thing.is_some_and(|thing| means(&selector, key, thing))
            };
            let old = old.filter(|thing| of(Some(thing)));
            let new = new.filter(|thing| of(Some(thing)));
            self.change_terms(id, key, old, new, touched);
        }
        let is = self.lists(key, new);
        self.tell_groups(key, was.as_ref(), is.as_ref(), touched);
    }

    /// What the group lists, if it is in use.
    fn lists(&self, key: &ResourceKey, thing: Option<&Contribution>) -> Option<Contribution> {
        let in_use = key.kind == ResourceKind::CiliumCIDRGroup
            && self
                .group_users
                .get(&key.name)
                .is_some_and(|users| *users > 0);
        thing.filter(|_| in_use).cloned()
    }

    fn tell_groups(
        &self,
        key: &ResourceKey,
        old: Option<&Contribution>,
        new: Option<&Contribution>,
        touched: &mut Touched,
    ) {
        for (term, is_new) in difference(terms_of(old), terms_of(new)) {
            if let Term::Prefix(prefix) = term {
                touched.groups.push((key.name.clone(), *prefix, is_new));
            }
        }
    }

    /// A selector begins or ceases to mean a group or service.
    fn contribute(
        &mut self,
        id: SelectorId,
        key: &ResourceKey,
        old: Option<&Contribution>,
        new: Option<&Contribution>,
        touched: &mut Touched,
    ) {
        let was = self.lists(key, old.or(new));
        self.change_terms(id, key, old, new, touched);
        let is = self.lists(key, old.or(new));
        self.tell_groups(key, was.as_ref(), is.as_ref(), touched);
    }

    fn change_terms(
        &mut self,
        id: SelectorId,
        key: &ResourceKey,
        old: Option<&Contribution>,
        new: Option<&Contribution>,
        touched: &mut Touched,
    ) {
        if key.kind == ResourceKind::CiliumCIDRGroup {
            let users = self.group_users.get(&key.name).copied().unwrap_or(0);
            let users = users + u32::from(new.is_some()) - u32::from(old.is_some());
            self.group_users.insert(key.name.clone(), users);
        }
        for (term, is_new) in difference(terms_of(old), terms_of(new)) {
            if is_new {
                self.add_term(id, term, touched);
            } else {
                self.remove_term(id, term, touched);
            }
        }
    }

    fn add_term(&mut self, id: SelectorId, term: &Term, touched: &mut Touched) {
        let Some(terms) = self.terms_given(id) else {
            return;
        };
        let givers = terms.entry(term.clone()).or_insert(0);
        *givers += 1;
        if *givers == 1 {
            self.add_new_term(id, term, touched);
        }
    }

    /// The terms that groups and services give a selector.
    fn terms_given(&mut self, id: SelectorId) -> Option<&mut OrdMap<Term, u32>> {
        let more = self.used.get_mut(&id)?.more.as_mut()?;
        Some(&mut Arc::make_mut(more).terms)
    }

    fn add_new_term(&mut self, id: SelectorId, term: &Term, touched: &mut Touched) {
        match term {
            Term::Prefix(prefix) | Term::Address(prefix) => {
                let whoever = matches!(term, Term::Address(_));
                self.by_prefix.insert((*prefix, id, whoever));
                self.count_prefix(*prefix, true, touched);
            }
            Term::Entity(entity) => {
                touched.terms.insert(term.clone());
                if let Some(prefix) = entity.prefix() {
                    touched.acquire(prefix);
                }
                self.wide.insert((id, term.clone()));
            }
            Term::Labels(selector) | Term::Workloads(selector) => {
                touched.terms.insert(term.clone());
                self.about_prefixes += u32::from(is_about_prefixes(selector));
                match anchors(selector) {
                    None => {
                        self.wide.insert((id, term.clone()));
                    }
                    Some(anchors) => {
                        for anchor in anchors {
                            self.by_anchor.insert((anchor, id, term.clone()));
                        }
                    }
                }
            }
        }
    }

    fn remove_term(&mut self, id: SelectorId, term: &Term, touched: &mut Touched) {
        let Some(terms) = self.terms_given(id) else {
            return;
        };
        match terms.get_mut(term) {
            Some(givers) if *givers > 1 => *givers -= 1,
            Some(_) => {
                terms.remove(term);
                self.remove_last_term(id, term, touched);
            }
            None => {}
        }
    }

    fn remove_last_term(&mut self, id: SelectorId, term: &Term, touched: &mut Touched) {
        match term {
            Term::Prefix(prefix) | Term::Address(prefix) => {
                let whoever = matches!(term, Term::Address(_));
                self.by_prefix.remove(&(*prefix, id, whoever));
                self.count_prefix(*prefix, false, touched);
            }
            Term::Entity(entity) => {
                touched.terms.insert(term.clone());
                if let Some(prefix) = entity.prefix() {
                    touched.release(prefix);
                }
                self.wide.remove(&(id, term.clone()));
            }
            Term::Labels(selector) | Term::Workloads(selector) => {
                touched.terms.insert(term.clone());
                self.about_prefixes -= u32::from(is_about_prefixes(selector));
                match anchors(selector) {
                    None => {
                        self.wide.remove(&(id, term.clone()));
                    }
                    Some(anchors) => {
                        for anchor in anchors {
                            self.by_anchor.remove(&(anchor, id, term.clone()));
                        }
                    }
                }
            }
        }
    }

    /// A selector more or less selects what is within a prefix.
    fn count_prefix(&mut self, prefix: IpNet, is_more: bool, touched: &mut Touched) {
        touched.selected.push(prefix);
        let lengths = &mut self.lengths[usize::from(prefix.addr().is_ipv6())];
        let users = lengths.entry(prefix.prefix_len()).or_default();
        if is_more {
            touched.acquire(prefix);
            *users += 1;
            return;
        }
        touched.release(prefix);
        *users -= 1;
        if *users == 0 {
            lengths.remove(&prefix.prefix_len());
        }
    }

    /// The identities that what has come and gone may select.
    pub(in crate::policy) fn add_scopes(
        &self,
        table: &IdentityTable,
        options: &PolicyOptions,
        touched: &mut Touched,
    ) {
        table.within_any(&taken(&mut touched.selected), &mut touched.identities);
        for term in std::mem::take(&mut touched.terms) {
            if !term.is_anchored() {
                let mut found = BTreeSet::new();
                scope(&term, table, &mut found);
                touched.identities.extend(found);
                continue;
            }
            // An anchor is one label of several: most that have it are not meant.
            // Terms that ask for labels of prefixes have none: those labels may
            // have gone with the term.
            let mut found = BTreeSet::new();
            scope(&term, table, &mut found);
            found.retain(|index| {
                table.live_at(*index).is_some_and(|identity| {
                    let labels = &table.own_labels(identity);
                    term.selects(&Candidate { identity, labels }, options)
                })
            });
            touched.identities.extend(found);
        }
        let relabelled = taken(&mut touched.relabelled);
        if self.asks_for_prefixes() {
            table.within_any(&relabelled, &mut touched.identities);
        }
    }

    /// Asks again which selectors select an identity; whether they are others.
    pub(in crate::policy) fn select(
        &mut self,
        index: IdentityIndex,
        table: &IdentityTable,
        options: &PolicyOptions,
    ) -> bool {
        let Some(identity) = table.live_at(index) else {
            return self.selections.by_identity.remove(&index).is_some();
        };
        let mut found = std::mem::take(&mut self.found);
        self.signature(identity, table, options, &mut found);
        let same = self.selections.by_identity.get(&index).map(|old| &**old) == Some(&*found);
        if !same {
            let signature = Signature::from(&*found);
            self.selections.by_identity.insert(index, signature);
        }
        found.clear();
        self.found = found;
        !same
    }

    /// The selectors that select an identity, sorted, into the empty `found`.
    fn signature(
        &self,
        identity: &LiveIdentity,
        table: &IdentityTable,
        options: &PolicyOptions,
        found: &mut Vec<SelectorId>,
    ) {
        let own = table.own_labels(identity);
        let all = if self.asks_for_prefixes() {
            table.labels(identity)
        } else {
            Arc::clone(&own)
        };
        let candidate = Candidate {
            identity,
            labels: &all,
        };
        for (id, term) in &self.wide {
            if term.selects(&candidate, options) {
                found.push(*id);
            }
        }
        let is_anchored = !self.by_anchor.is_empty();
        for label in own.iter().filter(|_| is_anchored) {
            for anchor in [
                Anchor::Key(label.key.clone()),
                Anchor::Value(label.key.clone(), label.value.clone()),
            ] {
                let first = (anchor, SelectorId(0), Term::Entity(Entity::All));
                let anchored = self
                    .by_anchor
                    .range(first.clone()..)
                    .take_while(|(anchor, _, _)| *anchor == first.0)
                    .filter(|(_, _, term)| term.selects(&candidate, options));
                found.extend(anchored.map(|(_, id, _)| *id));
            }
        }
        if let Some(prefix) = identity.key.prefix() {
            let is_asked = has_prefixes(identity, options);
            let lengths = &self.lengths[usize::from(prefix.addr().is_ipv6())];
            for (length, _) in lengths.range(..=prefix.prefix_len()) {
                let Ok(around) = IpNet::new(prefix.addr(), *length).map(|net| net.trunc()) else {
                    continue;
                };
                if is_asked {
                    found.extend(self.selections.ids.of_prefix(around));
                }
                if self.by_prefix.is_empty() {
                    continue;
                }
                let last = (around, SelectorId(u32::MAX), true);
                let around = self.by_prefix.range((around, SelectorId(0), false)..=last);
                found.extend(
                    around
                        .filter(|(_, _, whoever)| *whoever || is_asked)
                        .map(|(_, id, _)| *id),
                );
            }
            if self.excepting > 0 {
                found.retain(|id| {
                    let more = self.used.get(id).and_then(|used| used.more.as_ref());
                    more.is_none_or(|more| !is_within(prefix, &more.except))
                });
            }
        }
        found.sort_unstable();
        found.dedup();
    }
}

fn excepts(more: Option<&More>) -> bool {
    more.is_some_and(|more| !more.except.is_empty())
}

/// Whether one of `nets`, sorted, contains `prefix`.
fn is_within(prefix: IpNet, nets: &[IpNet]) -> bool {
    /// Fewer are looked through faster than searched.
    const FEW: usize = 32;
    if nets.len() <= FEW {
        return nets.iter().any(|net| net.contains(&prefix));
    }
    (0..=prefix.prefix_len()).any(|length| {
        let around = IpNet::new(prefix.addr(), length).map(|net| net.trunc());
        around.is_ok_and(|net| nets.binary_search(&net).is_ok())
    })
}

fn terms_of(contribution: Option<&Contribution>) -> &[Term] {
    contribution.map_or(&[], |contribution| &contribution.terms)
}

/// What only one of two sorted lists has; true: the new one.
fn difference<'a>(old: &'a [Term], new: &'a [Term]) -> Vec<(&'a Term, bool)> {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    let mut found = Vec::new();
    loop {
        match (old.peek(), new.peek()) {
            (None, None) => return found,
            (Some(left), Some(right)) if left == right => {
                old.next();
                new.next();
            }
            (Some(left), right) if right.is_none_or(|right| left < right) => {
                found.push((*left, false));
                old.next();
            }
            (_, Some(right)) => {
                found.push((*right, true));
                new.next();
            }
            (Some(left), None) => {
                found.push((*left, false));
                old.next();
            }
        }
    }
}
