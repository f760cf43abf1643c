//! What stands on the list, and when it goes.

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
