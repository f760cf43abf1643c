//! The sweep of conntrack beside packets: it takes what is dead and nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};

use palisade::datapath::kernel::CtOccupancy;
use palisade::policy::Direction;

use crate::classes::{allowing, own};
use crate::frames::{Ip, L4, SYN, frame, ip, tcp, udp};
use crate::host::Host;
use crate::lifetimes::flows;

const OPEN: &str = r#"toPorts: [{ports: [{port: "7001"}]}]"#;
/// Room for all flows of a test.
const ENTRIES: u32 = 65_536;
/// More than one batch of the walk in each map.
const FLOWS: u16 = 6_000;

fn peer(v4: bool, number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    if v4 {
        Ipv4Addr::new(10, 98, high, low).into()
    } else {
        Ipv6Addr::new(0xfd98, 0, 0, 0, 0, 0, 0, number).into()
    }
}

/// The host's packet to a peer, or the peer's to the host.
fn packet(direction: Direction, v4: bool, number: u16, l4: &L4) -> Vec<u8> {
    let (own, peer) = (own(v4), peer(v4, number));
    let (from, to) = match direction {
        Direction::Egress => (own, peer),
        Direction::Ingress => (peer, own),
    };
    frame(&ip(from, to, &Ip::default(), l4))
}

/// Opens flows to all peers of both families.
fn open(host: &mut Host, l4: &L4) {
    for v4 in [true, false] {
        for number in 0..FLOWS {
            let asked = packet(Direction::Egress, v4, number, l4);
            assert!(host.flood(Direction::Egress, &asked), "a call is allowed");
        }
    }
}

fn sweep(host: &Host) -> Vec<CtOccupancy> {
    host.inspector().sweeper().sweep().expect("a sweep")
}

/// What a sweep found of a map, all of it seen from one side.
fn of(found: &[CtOccupancy], name: &str) -> CtOccupancy {
    let map = found.iter().find(|it| it.map == name);
    let map = *map.expect("a map of conntrack");
    assert!(
        map.max >= ENTRIES && map.one_sided == map.entries,
        "{map:?}"
    );
    map
}

/// Some flows live and as many are dead: some of these have made room already.
fn leaves_what_lives(host: &Host, lives: usize) {
    let found = sweep(host);
    for name in ["pal_ct4", "pal_ct6"] {
        let map = of(&found, name);
        assert_eq!(map.entries, lives, "{map:?}");
        assert!(map.removed > lives / 2 && map.removed <= lives, "{map:?}");
    }
    for map in sweep(host) {
        assert_eq!((map.entries, map.removed), (lives, 0), "{map:?}");
    }
    assert_eq!(flows(host).len(), 2 * lives);
}

#[test]
fn a_sweep_removes_what_is_dead_and_nothing_else() {
    let Some(mut host) = Host::with_conntrack(ENTRIES) else {
        return;
    };
    let some = usize::from(FLOWS);
    // Other protocols are over at once.
    host.lifetimes([1_000, 1_000, 1_000, 0]);
    host.apply(&allowing(OPEN));
    open(&mut host, &udp(60_000, 7_001));
    open(&mut host, &tcp(60_000, 7_001, SYN));
    leaves_what_lives(&host, some);
    let left = flows(&host);
    assert!(
        left.iter()
            .all(|flow| flow.proto == 6 && flow.expires_s > 0)
    );
    // Unanswered calls too.
    host.lifetimes([1_000, 0, 1_000, 1_000]);
    host.apply(&allowing(OPEN));
    open(&mut host, &udp(60_001, 7_001));
    open(&mut host, &tcp(60_000, 7_001, SYN));
    leaves_what_lives(&host, some);
    let left = flows(&host);
    assert!(
        left.iter()
            .all(|flow| flow.proto == 17 && flow.expires_s > 0)
    );
}

/// Flows that are dead are opened anew while one sweep follows the other: each
/// answer must find its flow.
#[test]
fn a_sweep_takes_no_flow_that_a_packet_has_opened_again() {
    let Some(mut host) = Host::with_conntrack(ENTRIES) else {
        return;
    };
    // Only the answer's own flow lets it in.
    let outwards = allowing(OPEN).replacen(OPEN, "{}", 1);
    let (question, answer) = (udp(60_002, 7_001), udp(7_001, 60_002));
    host.lifetimes([0; 4]);
    host.apply(&outwards);
    open(&mut host, &question);
    host.lifetimes([1_000; 4]);
    host.apply(&outwards);
    let sweeper = host.inspector().sweeper();
    let stop = AtomicBool::new(false);
    let removed = std::thread::scope(|scope| {
        let sweeps = scope.spawn(|| {
            let mut removed = 0;
            while !stop.load(Ordering::Relaxed) {
                for map in sweeper.sweep().expect("a sweep") {
                    removed += map.removed;
                }
            }
            removed
        });
        open(&mut host, &question);
        stop.store(true, Ordering::Relaxed);
        sweeps.join().expect("the sweeper")
    });
    let mut unanswered = 0;
    for v4 in [true, false] {
        for number in 0..FLOWS {
            let answered = packet(Direction::Ingress, v4, number, &answer);
            unanswered += usize::from(!host.flood(Direction::Ingress, &answered));
        }
    }
    assert_eq!(unanswered, 0, "{removed} removed");
}
