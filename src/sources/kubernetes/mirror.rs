//! What the server holds, as far as it was heard, and which changes follow.
//! No I/O.
//!
//! A kind is at any time one of: unheard, listing, held, absent, unneeded. Deletions follow
//! only from the server's word, from the end of a list, and from `Absent`.

use std::collections::{BTreeMap, BTreeSet};

use super::heard::{Heard, What};
use super::lobby::Known;
use super::needs::{Needs, Order, Scope};
use crate::events::{Origin, RepositoryChange, Resource, ResourceKey, ResourceKind, SourceName};

/// How far a kind is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Stage {
    /// No list has come to its end yet.
    #[default]
    Unheard,
    /// A list came to its end; the watch runs, as far as is known.
    InSync,
    /// A list came to its end once; another one runs.
    Relisting,
    /// There is nothing to watch.
    Absent(&'static str),
    /// No policy for this node needs it.
    Unneeded,
}

/// One kind.
#[derive(Debug, Default)]
pub(super) struct KindMirror {
    pub(super) stage: Stage,
    held: BTreeSet<ResourceKey>,
    /// Of a list that runs: what it held so far.
    listed: Option<BTreeSet<ResourceKey>>,
    /// What failed last, until the kind is heard again.
    pub(super) trouble: Option<String>,
    /// What is asked for now, and what the last whole list was asked for as.
    pub(super) order: Order,
    heard: Order,
}

impl KindMirror {
    /// Objects that the server holds.
    pub(super) fn objects(&self) -> usize {
        self.held.len()
    }

    /// Whether this much of what the server holds was heard once, since it was
    /// ordered.
    pub(super) fn knows(&self, scope: Scope) -> bool {
        match self.stage {
            Stage::Unheard => false,
            Stage::InSync | Stage::Relisting => {
                self.heard == self.order && self.order.scope >= scope
            }
            Stage::Absent(_) => true,
            Stage::Unneeded => scope == Scope::Nothing,
        }
    }

    /// Whether what is held is what the server holds, as much of it as is needed.
    pub(super) fn is_in_sync(&self) -> bool {
        self.stage != Stage::Relisting && self.knows(self.order.scope) && self.trouble.is_none()
    }
}

/// All kinds.
#[derive(Debug)]
pub(super) struct Mirror {
    kinds: BTreeMap<ResourceKind, KindMirror>,
}

impl Mirror {
    /// Kinds of which nothing was heard.
    pub(super) fn new(kinds: impl IntoIterator<Item = ResourceKind>) -> Self {
        let kinds = kinds.into_iter();
        Self {
            kinds: kinds.map(|kind| (kind, KindMirror::default())).collect(),
        }
    }

    /// The changes that follow from what was heard, in their order.
    pub(super) fn take(&mut self, heard: Heard) -> Vec<RepositoryChange> {
        let mirror = self.kinds.entry(heard.kind).or_default();
        match heard.what {
            What::Begins => {
                mirror.listed = Some(BTreeSet::new());
                if mirror.stage == Stage::InSync {
                    mirror.stage = Stage::Relisting;
                }
                Vec::new()
            }
            What::Object(trimmed) => match trimmed.body {
                Some(body) => vec![mirror.put(trimmed.key, body)],
                None => mirror.drop_key(trimmed.key),
            },
            What::Gone(trimmed) => mirror.drop_key(trimmed.key),
            What::Whole(order) => {
                let listed = mirror.listed.take().unwrap_or_default();
                let gone: Vec<_> = mirror.held.difference(&listed).cloned().collect();
                mirror.held = listed;
                mirror.stage = Stage::InSync;
                mirror.heard = order;
                mirror.trouble = None;
                gone.into_iter().map(deletion).collect()
            }
            What::Follows => {
                mirror.trouble = None;
                Vec::new()
            }
            What::Absent(why) => mirror.forget(Stage::Absent(why)),
            What::Unneeded => mirror.forget(Stage::Unneeded),
            What::Trouble(message) => {
                mirror.trouble = Some(message);
                Vec::new()
            }
            What::Tick => Vec::new(),
        }
    }

    /// Whether each kind was whole once, as it was ordered: only then may anything be
    /// deleted that an earlier life of the agent knew.
    pub(super) fn was_whole(&self) -> bool {
        let mut kinds = self.kinds.values();
        kinds.all(|mirror| mirror.knows(mirror.order.scope))
    }

    /// Whether everything that is needed was heard.
    pub(super) fn knows(&self, needs: Needs) -> bool {
        self.unknown(needs).next().is_none()
    }

    /// Kinds that are needed and were not heard whole.
    pub(super) fn unknown(&self, needs: Needs) -> impl Iterator<Item = ResourceKind> {
        let kinds = self.kinds.iter();
        let unknown = kinds.filter(move |(kind, mirror)| {
            let scope = needs.must_know(**kind);
            scope > Scope::Nothing && !mirror.knows(scope)
        });
        unknown.map(|(kind, _)| *kind)
    }

    /// How much of each kind was heard.
    pub(super) fn known(&self) -> Known {
        let kinds = self.kinds.iter().map(|(kind, mirror)| {
            let scopes = [Scope::All, Scope::Own].into_iter();
            let known = scopes.into_iter().find(|scope| mirror.knows(*scope));
            (*kind, known.unwrap_or_default())
        });
        kinds.collect()
    }

    /// Notes that from now on this is asked for.
    pub(super) fn order(&mut self, kind: ResourceKind, order: Order) {
        self.kinds.entry(kind).or_default().order = order;
    }

    /// Everything that the server holds.
    pub(super) fn keys(&self) -> BTreeSet<ResourceKey> {
        let kinds = self.kinds.values();
        kinds.flat_map(|kind| kind.held.iter().cloned()).collect()
    }

    /// Each kind, for `status`.
    pub(super) fn kinds(&self) -> impl Iterator<Item = (ResourceKind, &KindMirror)> {
        self.kinds.iter().map(|(kind, mirror)| (*kind, mirror))
    }
}

impl KindMirror {
    fn put(&mut self, key: ResourceKey, body: serde_json::Value) -> RepositoryChange {
        if let Some(listed) = &mut self.listed {
            listed.insert(key.clone());
        }
        self.held.insert(key.clone());
        RepositoryChange::Upsert(Resource {
            key,
            source: SourceName::Kubernetes,
            origin: Origin::default(),
            body: body.into(),
        })
    }

    fn forget(&mut self, stage: Stage) -> Vec<RepositoryChange> {
        self.stage = stage;
        self.trouble = None;
        self.listed = None;
        let gone = std::mem::take(&mut self.held);
        gone.into_iter().map(deletion).collect()
    }

    fn drop_key(&mut self, key: ResourceKey) -> Vec<RepositoryChange> {
        if let Some(listed) = &mut self.listed {
            listed.remove(&key);
        }
        if self.held.remove(&key) {
            vec![deletion(key)]
        } else {
            Vec::new()
        }
    }
}

fn deletion(key: ResourceKey) -> RepositoryChange {
    RepositoryChange::Delete {
        key,
        source: SourceName::Kubernetes,
    }
}
