//! Tells the feeds how much to ask for: more at once, less when it has not been
//! needed for a while, so that a policy that is replaced costs no new lists.

use std::collections::BTreeMap;

use tokio::sync::watch;

use super::kinds::WATCHED;
use super::mirror::Mirror;
use super::needs::{Needs, Order};
use crate::clock::{Clock, Moment, SystemClock};
use crate::events::ResourceKind;
use crate::limits::KUBERNETES_LINGER;

/// The orders, by kind.
#[derive(Debug)]
pub(super) struct Orders {
    senders: BTreeMap<ResourceKind, watch::Sender<Order>>,
    /// Kinds of which less is needed than is asked for, since when.
    lingering: BTreeMap<ResourceKind, Moment>,
    clock: SystemClock,
}

impl Default for Orders {
    fn default() -> Self {
        let kinds = WATCHED.iter().map(|watched| watched.kind);
        Self {
            senders: kinds
                .map(|kind| (kind, watch::channel(Order::default()).0))
                .collect(),
            lingering: BTreeMap::new(),
            clock: SystemClock::default(),
        }
    }
}

impl Orders {
    /// The orders for one kind.
    pub(super) fn of(&self, kind: ResourceKind) -> watch::Receiver<Order> {
        let sender = self.senders.get(&kind);
        sender.map_or_else(super::needs::all, watch::Sender::subscribe)
    }

    /// Gives orders for what is needed.
    pub(super) fn give(&mut self, needs: Needs, mirror: &mut Mirror) {
        let now = self.clock.now();
        for (kind, sender) in &self.senders {
            let before = *sender.borrow();
            let scope = needs.scope(*kind);
            if scope >= before.scope {
                self.lingering.remove(kind);
            }
            if scope < before.scope {
                let since = *self.lingering.entry(*kind).or_insert(now);
                if now.since(since) < KUBERNETES_LINGER {
                    continue;
                }
                self.lingering.remove(kind);
            }
            if scope == before.scope {
                continue;
            }
            let number = before.number.wrapping_add(1);
            let order = Order { scope, number };
            mirror.order(*kind, order);
            sender.send_replace(order);
        }
    }
}
