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
pub(in crate::sources) mod tests {
    use super::*;
    use crate::datapath::DatapathError;

    /// A list on paper.
    #[derive(Default)]
    pub(in crate::sources) struct Notes(Mutex<Vec<ControlEndpoint>>);

    impl ControlDoor for Notes {
        fn replace(&self, wanted: &[ControlEndpoint]) -> Result<(), DatapathError> {
            *self.0.lock() = wanted.to_vec();
            Ok(())
        }
    }

    impl Notes {
        fn listed(&self) -> Vec<String> {
            let mut listed: Vec<_> = self.0.lock().iter().map(ToString::to_string).collect();
            listed.sort();
            listed
        }
    }

    pub(in crate::sources) fn marked() -> (Arc<Marked>, Arc<Notes>) {
        let notes = Arc::new(Notes::default());
        let door = Arc::clone(&notes) as Arc<dyn ControlDoor>;
        let behind = Box::new(BTreeSet::new);
        (Marked::new(ControlMark::DEFAULT, true, door, behind), notes)
    }

    fn addresses(all: &[&str]) -> BTreeSet<SocketAddr> {
        let parsed = all.iter().map(|it| it.parse().expect("an address"));
        parsed.collect()
    }

    #[test]
    fn an_address_that_is_no_longer_named_goes_after_its_connections() {
        let (marked, notes) = marked();
        let user = marked.user();
        user.means("api", &addresses(&["192.0.2.1:6443", "192.0.2.2:6443"]));
        let one = Open::new(&marked, "192.0.2.1:6443".parse().expect("an address"));
        let two = Open::new(&marked, "192.0.2.1:6443".parse().expect("an address"));
        user.means("api", &addresses(&["192.0.2.3:6443"]));
        let both = ["tcp/192.0.2.1:6443", "tcp/192.0.2.3:6443"];
        assert_eq!(notes.listed(), both);
        drop(one);
        assert_eq!(notes.listed(), both, "one connection is left");
        drop(two);
        assert_eq!(notes.listed(), ["tcp/192.0.2.3:6443"]);
    }

    #[test]
    fn what_a_user_named_goes_with_it() {
        let (marked, notes) = marked();
        let (old, new) = (marked.user(), marked.user());
        old.means("api", &addresses(&["192.0.2.1:6443"]));
        new.means("api", &addresses(&["[2001:db8::1]:443"]));
        drop(old);
        assert_eq!(notes.listed(), ["tcp/[2001:db8::1]:443"]);
        assert_eq!(new.meant("api"), addresses(&["[2001:db8::1]:443"]));
        assert_eq!(new.meant("other"), BTreeSet::new());
    }

    #[test]
    fn what_stands_behind_a_name_is_listed_with_it() {
        let notes = Arc::new(Notes::default());
        let servers = Arc::new(Mutex::new(addresses(&["192.0.2.9:6443"])));
        let told = Arc::clone(&servers);
        let behind = Box::new(move || told.lock().clone());
        let door = Arc::clone(&notes) as Arc<dyn ControlDoor>;
        let marked = Marked::new(ControlMark::DEFAULT, true, door, behind);
        marked.look_behind();
        assert_eq!(notes.listed(), [""; 0], "nothing is named");
        let user = marked.user();
        user.means("api", &addresses(&["198.51.100.1:443"]));
        let service = "tcp/198.51.100.1:443".to_owned();
        assert_eq!(notes.listed(), ["tcp/192.0.2.9:6443", &service]);
        *servers.lock() = addresses(&["192.0.2.7:6443"]);
        marked.look_behind();
        assert_eq!(notes.listed(), ["tcp/192.0.2.7:6443", &service]);
        drop(user);
        assert_eq!(notes.listed(), [""; 0]);
    }

    #[test]
    fn name_servers_are_asked_by_both_protocols_and_never_without_the_mark() {
        let (marked, notes) = marked();
        marked.ask(addresses(&["192.0.2.53:53"]));
        assert_eq!(notes.listed(), ["tcp/192.0.2.53:53", "udp/192.0.2.53:53"]);
        assert!(notes.0.lock().iter().all(|it| !it.unmarked_while_degraded));
    }

    #[test]
    fn too_many_addresses_keep_the_connections_that_live() {
        let (marked, notes) = marked();
        let user = marked.user();
        let live: SocketAddr = "203.0.113.9:6443".parse().expect("an address");
        let _open = Open::new(&marked, live);
        for name in 0..20u8 {
            let all = (0..CONTROL_ADDRESSES_PER_NAME_MAX + 5)
                .map(|at| SocketAddr::from(([10, 0, name, u8::try_from(at).unwrap_or(0)], 443)));
            user.means(&format!("name{name}"), &all.collect());
        }
        let listed = notes.0.lock();
        assert_eq!(listed.len(), ENDPOINTS_MAX as usize);
        assert_eq!(listed[0].address, live);
    }
}
