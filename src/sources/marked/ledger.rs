//! Which addresses the agent may reach whatever policy says, and why: they are what
//! a name of a source means now, a connection to them lives, or they are asked for
//! names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use palisade_abi::control::ENDPOINTS_MAX;
use palisade_abi::proto;
use parking_lot::Mutex;
use socket2::SockRef;

use crate::datapath::{ControlDoor, ControlEndpoint, ControlMark};
use crate::limits::CONTROL_ADDRESSES_PER_NAME_MAX;

/// What the sources share: the mark, and the list of where it leads. Any thread.
pub struct Marked {
    mark: ControlMark,
    /// The operator has named no flows for the degraded state: sources stand in.
    unmarked_while_degraded: bool,
    door: Arc<dyn ControlDoor>,
    behind: Behind,
    state: Mutex<State>,
    /// The kernel refuses the mark; told once.
    refused: AtomicBool,
}

/// Tells the addresses with which connections to a name may leave the node.
pub type Behind = Box<dyn Fn() -> BTreeSet<SocketAddr> + Send + Sync>;

#[derive(Default)]
struct State {
    users: u64,
    /// What each user's names mean.
    named: BTreeMap<(u64, String), BTreeSet<SocketAddr>>,
    /// Connections that live or are being made.
    open: BTreeMap<SocketAddr, usize>,
    name_servers: BTreeSet<SocketAddr>,
    behind: BTreeSet<SocketAddr>,
}

impl State {
    /// The list: first what must stay, at most as much as there is room for.
    fn wanted(&self, unmarked_while_degraded: bool) -> Vec<ControlEndpoint> {
        let source = |address: &SocketAddr| ControlEndpoint {
            address: *address,
            proto: proto::TCP,
            unmarked_while_degraded,
        };
        let asked = |address: &SocketAddr| {
            [proto::UDP, proto::TCP].map(|proto| ControlEndpoint {
                address: *address,
                proto,
                unmarked_while_degraded: false,
            })
        };
        let open = self.open.keys().map(source);
        let asked = self.name_servers.iter().flat_map(asked);
        let named = self.named.values().flatten().map(source);
        let mut seen = BTreeSet::new();
        let behind = self.behind.iter().map(source);
        let all = open.chain(asked).chain(behind).chain(named);
        let mut wanted: Vec<_> = all
            .filter(|endpoint| seen.insert((endpoint.address, endpoint.proto)))
            .collect();
        let max = ENDPOINTS_MAX as usize;
        if wanted.len() > max {
            tracing::warn!(
                "the sources' names mean {} addresses, {max} are let through whatever policy says",
                wanted.len()
            );
            wanted.truncate(max);
        }
        wanted
    }
}

impl std::fmt::Debug for Marked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Marked({})", self.mark)
    }
}

impl Marked {
    /// `unmarked_while_degraded`: while tail calls miss, others reach the sources too.
    /// `behind`: what stands behind addresses that are translated on the way.
    #[must_use]
    pub fn new(
        mark: ControlMark,
        unmarked_while_degraded: bool,
        door: Arc<dyn ControlDoor>,
        behind: Behind,
    ) -> Arc<Self> {
        Arc::new(Self {
            mark,
            unmarked_while_degraded,
            door,
            behind,
            state: Mutex::default(),
            refused: AtomicBool::new(false),
        })
    }

    /// Marks a socket. Where the kernel refuses, the socket is used without: policy
    /// decides about it then.
    pub(super) fn put_on(&self, socket: SockRef<'_>) {
        let Err(error) = socket.set_mark(self.mark.of_socket()) else {
            return;
        };
        if !self.refused.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the agent's sockets get no mark ({error}): policy decides whether it reaches its \
                 sources; run it with CAP_NET_ADMIN, or allow them in a policy"
            );
        }
    }

    /// Changes the list. A list that the kernel refuses is no reason not to connect.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        state.behind = self.behind_names(&state);
        let wanted = state.wanted(self.unmarked_while_degraded);
        if let Err(error) = self.door.replace(&wanted) {
            tracing::warn!(
                "where the agent's own traffic may lead could not be written, policy decides about \
                 it: {error}"
            );
        }
    }

    /// What stands behind the names, while there are any.
    fn behind_names(&self, state: &State) -> BTreeSet<SocketAddr> {
        if state.named.is_empty() {
            return BTreeSet::new();
        }
        let all = (self.behind)().into_iter();
        all.take(CONTROL_ADDRESSES_PER_NAME_MAX).collect()
    }

    /// Takes up what has changed behind the names.
    pub(in crate::sources) fn look_behind(&self) {
        let is_as_listed = {
            let state = self.state.lock();
            self.behind_names(&state) == state.behind
        };
        if !is_as_listed {
            self.change(|_| {});
        }
    }

    /// These are asked for names from now on.
    pub(super) fn ask(&self, name_servers: BTreeSet<SocketAddr>) {
        self.change(|state| state.name_servers = name_servers);
    }

    /// A user of names; what they mean is on the list while it lives.
    pub(super) fn user(self: &Arc<Self>) -> User {
        let mut state = self.state.lock();
        state.users += 1;
        User {
            number: state.users,
            marked: Arc::clone(self),
        }
    }
}

/// Who names sources, for instance one client with its configuration.
#[derive(Debug)]
pub(super) struct User {
    number: u64,
    pub(super) marked: Arc<Marked>,
}

impl User {
    fn key(&self, name: &str) -> (u64, String) {
        (self.number, name.to_owned())
    }

    /// The name means these addresses now.
    pub(super) fn means(&self, name: &str, addresses: &BTreeSet<SocketAddr>) {
        let first = addresses.iter().take(CONTROL_ADDRESSES_PER_NAME_MAX);
        let addresses = first.copied().collect();
        self.marked.change(|state| {
            state.named.insert(self.key(name), addresses);
        });
    }

    /// What it meant when it was last known.
    pub(super) fn meant(&self, name: &str) -> BTreeSet<SocketAddr> {
        let state = self.marked.state.lock();
        state
            .named
            .get(&self.key(name))
            .cloned()
            .unwrap_or_default()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let number = self.number;
        self.marked
            .change(|state| state.named.retain(|(user, _), _| *user != number));
    }
}

/// A connection that is made or lives; its address is on the list.
#[derive(Debug)]
pub(super) struct Open {
    marked: Arc<Marked>,
    address: SocketAddr,
}

impl Open {
    pub(super) fn new(marked: &Arc<Marked>, address: SocketAddr) -> Self {
        marked.change(|state| *state.open.entry(address).or_default() += 1);
        Self {
            marked: Arc::clone(marked),
            address,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.marked.change(|state| {
            if let Some(count) = state.open.get_mut(&self.address) {
                *count -= 1;
                if *count == 0 {
                    state.open.remove(&self.address);
                }
            }
        });
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
pub(in crate::sources) mod tests;
