//! Everyone that two sides can tell apart: the addresses that objects speak of,
//! and the rest of the world cut along the prefixes that rules name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::types::PeerSet;
use crate::policy::oracle::{Book, Side, Who};

/// Peers of which each is judged as any other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Peer {
    pub(super) place: Place,
    /// One of them.
    pub(super) address: IpAddr,
}

/// Where peers are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Place {
    /// In a prefix and in no longer one that is listed.
    Within(IpNet),
    /// An address that an object speaks of.
    Known(IpAddr),
}

/// All peers of both sides.
pub(super) struct Everyone {
    pub(super) peers: Vec<Peer>,
    /// The listed prefixes by the one around them; those with nobody of their
    /// own as well.
    within: BTreeMap<IpNet, Vec<IpNet>>,
    empty: BTreeSet<IpNet>,
}

/// All addresses of both families.
const ALL: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
];

impl Everyone {
    pub(super) fn new(books: &[Book<'_>; 2]) -> Self {
        let mut listed: BTreeSet<IpNet> = ALL.into_iter().collect();
        let mut known: BTreeSet<IpAddr> = BTreeSet::new();
        for book in books {
            listed.extend(book.listed_prefixes());
            known.extend(book.known_addresses());
        }
        let mut everyone = Self {
            peers: Vec::new(),
            within: BTreeMap::new(),
            empty: BTreeSet::new(),
        };
        for address in &known {
            everyone.peers.push(Peer {
                place: Place::Known(*address),
                address: *address,
            });
        }
        // Prefixes and addresses sort so that what is around comes first.
        let mut holes: BTreeMap<IpNet, Vec<IpNet>> = BTreeMap::new();
        let mut around: Vec<IpNet> = Vec::new();
        let single = known.into_iter().map(IpNet::from);
        let all: BTreeSet<(IpNet, bool)> = listed
            .iter()
            .map(|prefix| (*prefix, true))
            .chain(single.map(|prefix| (prefix, false)))
            .collect();
        for (prefix, is_listed) in all {
            while around.last().is_some_and(|outer| !outer.contains(&prefix)) {
                around.pop();
            }
            if let Some(outer) = around.last() {
                holes.entry(*outer).or_default().push(prefix);
                if is_listed {
                    everyone.within.entry(*outer).or_default().push(prefix);
                }
            }
            if is_listed {
                around.push(prefix);
            }
        }
        for prefix in listed {
            let holes = holes.remove(&prefix).unwrap_or_default();
            match outside_of(prefix, &holes) {
                Some(address) => everyone.peers.push(Peer {
                    place: Place::Within(prefix),
                    address,
                }),
                None => {
                    everyone.empty.insert(prefix);
                }
            }
        }
        everyone
    }

    /// Names of some peers; `whos`: what both sides say of each.
    pub(super) fn names(&self, places: &BTreeSet<Place>, whos: &[[Who; 2]]) -> Vec<PeerSet> {
        let mut names = Vec::new();
        for all in ALL {
            self.world(all, false, places, &mut names);
        }
        let mut others: BTreeMap<(String, Vec<String>), Vec<IpNet>> = BTreeMap::new();
        for (peer, who) in self.peers.iter().zip(whos) {
            if let Place::Known(address) = peer.place
                && places.contains(&peer.place)
            {
                let addresses = others.entry(kind(who)).or_default();
                addresses.push(address.into());
            }
        }
        names.extend(
            others
                .into_iter()
                .map(|((kind, labels), prefixes)| PeerSet {
                    kind,
                    prefixes,
                    except: Vec::new(),
                    labels,
                }),
        );
        names
    }

    /// The largest prefixes of the world that are meant, with what they leave out.
    fn world(
        &self,
        prefix: IpNet,
        around: bool,
        places: &BTreeSet<Place>,
        names: &mut Vec<PeerSet>,
    ) {
        let meant = places.contains(&Place::Within(prefix));
        let nobody = self.empty.contains(&prefix);
        let inside = meant || (nobody && around);
        if meant && !around {
            let mut except = Vec::new();
            self.left_out(prefix, places, &mut except);
            names.push(PeerSet {
                kind: "world".to_owned(),
                prefixes: vec![prefix],
                except,
                labels: Vec::new(),
            });
        }
        for child in self.within.get(&prefix).into_iter().flatten() {
            self.world(*child, inside, places, names);
        }
    }

    fn left_out(&self, prefix: IpNet, places: &BTreeSet<Place>, except: &mut Vec<IpNet>) {
        for child in self.within.get(&prefix).into_iter().flatten() {
            if places.contains(&Place::Within(*child)) || self.empty.contains(child) {
                self.left_out(*child, places, except);
            } else {
                except.push(*child);
            }
        }
    }
}

/// The first address of a prefix that lies in none of the holes, which are
/// sorted and do not overlap.
fn outside_of(prefix: IpNet, holes: &[IpNet]) -> Option<IpAddr> {
    let mut first = number(prefix.network());
    for hole in holes {
        if first < number(hole.network()) {
            break;
        }
        first = number(hole.broadcast()).checked_add(1)?;
    }
    if first > number(prefix.broadcast()) {
        return None;
    }
    Some(match prefix {
        IpNet::V4(_) => Ipv4Addr::from(u32::try_from(first).ok()?).into(),
        IpNet::V6(_) => Ipv6Addr::from(first).into(),
    })
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The kind of a peer, and the labels that name it.
fn kind(who: &[Who; 2]) -> (String, Vec<String>) {
    let words = who.each_ref().map(|who| match who.side {
        Side::Host => "host",
        Side::RemoteNode => "remote-node",
        Side::Workload => "workload",
        Side::World => "world",
    });
    let kind = if words[0] == words[1] {
        words[0].to_owned()
    } else {
        format!("{} then {}", words[0], words[1])
    };
    let named = match who[1].side {
        Side::World => &who[0],
        Side::Host | Side::RemoteNode | Side::Workload => &who[1],
    };
    let labels = match named.side {
        Side::Host | Side::World => Vec::new(),
        Side::RemoteNode | Side::Workload => {
            let mut labels = named.labels.to_strings();
            labels.retain(|label| !label.starts_with("reserved:") && !label.starts_with("cidr"));
            labels
        }
    };
    (kind, labels)
}
