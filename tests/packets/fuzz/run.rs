//! The packet fuzzer: changed captures through the real programs, in both
//! directions, under several policies. What the programs do must be what the
//! plain reading of frame and policy allows, with one counter and one report.
//!
//! `PALISADE_PACKET_FUZZ_SECONDS=n` sets the length, `PALISADE_PACKET_FUZZ_SEED=n`
//! the seed; `cargo xtask fuzz packets` sets them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use palisade::policy::Direction;
use palisade_abi::event::{Event, kind};
use palisade_abi::reason;

use crate::host::{As, Expect, HOST4, HOST6, Host, Sent};
use crate::mutate::{Capture, Draft, captures, ends_are_known};
use crate::random::Random;
use crate::reading::{Flow, Ip, Opened, Reader, Reading, What, is_ours, is_own};

/// Length of the run among the other tests.
const SHORT: Duration = Duration::from_secs(6);
const SEED: u64 = 1;
/// Frames under one policy.
const FRAMES: usize = 400;
/// VLAN ids that are allowed.
const VLANS: [u16; 1] = [5];

/// Rules by port, type and protocol; for one peer by address alone.
const MANY: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: many}
spec:
  nodeSelector: {}
  ingress:
  - toPorts: [{ports: [{port: "7001"}, {protocol: GRE}, {protocol: IGMP}, {protocol: AH}]}]
  - icmps: [{fields: [{type: 8}, {type: 3}, {family: IPv6, type: 128}]}]
  - fromCIDR: [10.0.9.8/32, "fd00:9::8/128"]
  ingressDeny:
  - toPorts: [{ports: [{port: "53", protocol: UDP}]}]
  egress:
  - toPorts: [{ports: [{port: "53"}, {protocol: ESP}, {protocol: IPIP}, {protocol: VRRP}]}]
  - icmps: [{fields: [{type: 0}, {family: IPv6, type: 129}]}]
  - toCIDR: [10.0.9.8/32, "fd00:9::8/128"]
"#;

/// One direction alone, by addresses and with an exception.
const INWARDS: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: inwards}
spec:
  nodeSelector: {}
  ingress:
  - fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.0.9.8/32]}]
  - fromCIDR: ["fd00::/16"]
    toPorts: [{ports: [{port: "1", endPort: 40000}]}]
  ingressDeny:
  - toPorts: [{ports: [{port: "7002"}]}]
"#;

/// What is in force while frames are sent.
#[derive(Clone, Copy, Debug)]
struct World {
    policy: &'static str,
    as_what: [As; 2],
    /// Flows live from packet to packet; else each packet is judged by itself.
    flows: bool,
    drops_others: bool,
}

impl World {
    fn new(flows: bool, random: &mut Random) -> Self {
        const EVERY: [As; 3] = [As::Enforced, As::Audited, As::Watched];
        let mut as_what = || {
            if random.chance(60) {
                As::Enforced
            } else {
                *random.pick(&EVERY)
            }
        };
        Self {
            as_what: [as_what(), as_what()],
            policy: *random.pick(&[MANY, MANY, INWARDS, ""]),
            flows,
            drops_others: random.chance(30),
        }
    }

    /// Whether drops happen in a direction, and whether it is judged at all.
    fn mode(&self, direction: Direction) -> (bool, bool) {
        let asked = match self.policy {
            MANY => true,
            INWARDS => direction == Direction::Ingress,
            _ => false,
        };
        let enforced = asked && self.as_what[direction as usize] != As::Watched;
        (enforced, asked)
    }
}

/// A frame on its way, with how it came about.
struct Shot<'a> {
    world: &'a World,
    capture: &'a Capture,
    changes: Vec<&'static str>,
    direction: Direction,
    forwarded: bool,
    frame: Vec<u8>,
    reading: Reading,
}

impl Shot<'_> {
    fn fails(&self, why: &str) -> ! {
        let hex: String = self.frame.iter().map(|it| format!("{it:02x}")).collect();
        panic!(
            "{why}\n{:?}, forwarded {}: {}\nchanged: {:?}\nread as {:#?}\nunder {:?}\n{hex}",
            self.direction,
            self.forwarded,
            self.capture.name,
            self.changes,
            self.reading,
            self.world
        );
    }

    fn refused(&self, reason: u8) -> Expect {
        if self.world.mode(self.direction).0 {
            Expect::Drop(reason)
        } else {
            Expect::Pass(reason::NOT_ENFORCED)
        }
    }
}

/// What a frame may come to, and whether exactly one report of it is due.
struct Allowed {
    exits: Vec<Expect>,
    reported: bool,
}

impl Allowed {
    fn silent(exit: Expect) -> Self {
        Self {
            exits: vec![exit],
            reported: false,
        }
    }
}

/// Everything that a running fuzzer remembers.
struct Fuzzer {
    host: Host,
    reader: Reader,
    opened: Opened,
    random: Random,
    /// Reports that were due and did not come.
    missing: u64,
    /// The programs are told of other VLANs than the reader.
    planted: bool,
    shots: u64,
    /// By exit, so that the run shows what it has reached.
    reached: BTreeMap<u8, u64>,
}

impl Fuzzer {
    fn enter(&mut self, world: &World) {
        let life = if world.flows { 1_000 } else { 0 };
        self.host.lifetimes([life; 4]);
        self.host.vlans(if self.planted { &[] } else { &VLANS });
        self.host.other_ethertypes(world.drops_others);
        self.host.apply_as(world.policy, world.as_what);
    }

    fn allowed(&self, shot: &Shot<'_>) -> Allowed {
        let ip = match &shot.reading {
            Reading::Arp => return Allowed::silent(Expect::Pass(reason::ARP)),
            Reading::OtherEthertype => {
                let enforced = shot.world.mode(shot.direction).0;
                return Allowed::silent(if shot.world.drops_others && enforced {
                    Expect::Drop(reason::UNSUPPORTED_L2)
                } else {
                    Expect::Pass(reason::OTHER_ETHERTYPE)
                });
            }
            Reading::Refused(reason) => return Allowed::silent(shot.refused(*reason)),
            Reading::Ip(ip) => ip,
        };
        let (packet, flow) = match ip.what {
            What::Passes(exit) => return Allowed::silent(Expect::Pass(exit)),
            What::Refused(reason) => {
                if !is_ours(&shot.frame, ip, shot.direction, shot.forwarded) {
                    return Allowed::silent(Expect::Pass(reason::NOT_OURS));
                }
                let exit = shot.refused(reason);
                return Allowed {
                    reported: matches!(exit, Expect::Drop(_)),
                    exits: vec![exit],
                };
            }
            What::Judged { packet, flow } => (packet, flow),
            What::Error { packet, about } => {
                let mut allowed = self.judged(shot, ip, packet);
                // A quoted message of ICMP may have no number of its own.
                let known = |it: &Flow| self.opened.contains(&it.name()) || it.proto == 1;
                if shot.world.flows && about.as_ref().is_some_and(known) {
                    allowed.exits.push(Expect::Pass(reason::RELATED));
                }
                return allowed;
            }
        };
        let mut allowed = self.judged(shot, ip, packet);
        let known = flow.is_some_and(|it| self.opened.contains(&it.name()));
        if shot.world.flows && known {
            // By the verdict of the flow, in whatever direction it was opened.
            for exit in [reason::FORWARDED, reason::AUDITED, reason::NOT_ENFORCED] {
                allowed.exits.push(Expect::Pass(exit));
            }
            if shot.world.mode(shot.direction).0 {
                for reason in [reason::POLICY, reason::POLICY_DENY] {
                    allowed.exits.push(Expect::Drop(reason));
                }
            }
        }
        allowed
    }

    /// A packet that is judged by itself.
    fn judged(&self, shot: &Shot<'_>, ip: &Ip, packet: palisade::policy::Packet) -> Allowed {
        if !is_ours(&shot.frame, ip, shot.direction, shot.forwarded) {
            return Allowed::silent(Expect::Pass(reason::NOT_OURS));
        }
        let inwards = shot.direction == Direction::Ingress;
        let peer = if inwards { ip.source } else { ip.destination };
        if inwards && is_own(peer) {
            let exit = shot.refused(reason::INVALID_SOURCE);
            return Allowed {
                reported: matches!(exit, Expect::Drop(_)),
                exits: vec![exit],
            };
        }
        let (_, asked) = shot.world.mode(shot.direction);
        let mut exit = self.host.oracle(shot.direction, peer, packet);
        if !asked {
            exit = Expect::Pass(reason::FORWARDED);
        }
        let softened = shot.world.as_what[shot.direction as usize] != As::Enforced;
        if softened && matches!(exit, Expect::Drop(_)) {
            exit = Expect::Pass(reason::AUDITED);
        }
        Allowed {
            exits: vec![exit],
            reported: asked,
        }
    }

    /// Sends one changed capture and looks at everything it did.
    fn shoot(&mut self, world: &World, captures: &[Capture]) {
        let capture = self.random.pick(captures).clone();
        let mut draft = Draft::new(capture.frame.clone(), &mut self.random);
        // Some go as they were.
        let changes = *draft.any_of(&[0, 1, 1, 1, 2, 2, 3, 5]);
        for _ in 0..changes {
            draft.change(captures);
        }
        let (frame, changes) = (draft.frame, draft.changes);
        let mut direction = capture.direction;
        if self.random.chance(20) {
            direction = Direction::BOTH[1 - direction as usize];
        }
        let forwarded = direction == Direction::Egress && self.random.chance(15);
        let reading = self.reader.read(&frame, &VLANS);
        let shot = Shot {
            world,
            capture: &capture,
            changes,
            direction,
            forwarded,
            frame,
            reading,
        };
        let Some(sent) = self.host.shoot(direction, &shot.frame, forwarded) else {
            // Too short for a test run; what was read of it does not count.
            assert!(shot.frame.len() < 62, "only short frames are refused");
            return;
        };
        self.shots += 1;
        self.check(&shot, &sent);
    }

    fn check(&mut self, shot: &Shot<'_>, sent: &Sent) {
        let [(exit, packets, bytes)] = sent.moved[..] else {
            shot.fails(&format!("not one exit: {:?}", sent.moved));
        };
        *self.reached.entry(exit).or_default() += 1;
        if (packets, bytes) != (1, shot.frame.len() as u64) {
            shot.fails(&format!("counted {packets} packets, {bytes} bytes"));
        }
        if sent.passes != (exit < reason::DROP_MIN) {
            shot.fails(&format!("counted as {exit}, passes: {}", sent.passes));
        }
        let enforced = shot.world.mode(shot.direction).0;
        if !sent.passes && !enforced {
            shot.fails("dropped where nothing is enforced");
        }
        let allowed = self.allowed(shot);
        let seen = if sent.passes {
            Expect::Pass(exit)
        } else {
            Expect::Drop(exit)
        };
        if !allowed.exits.contains(&seen) {
            let expected = &allowed.exits;
            shot.fails(&format!("expected one of {expected:?}, saw {seen:?}"));
        }
        match &sent.events[..] {
            [] if allowed.reported && !shot.world.flows => self.missing += 1,
            [] => {}
            [event] => self.check_event(shot, &allowed, event, exit),
            more => shot.fails(&format!("{} reports: {more:?}", more.len())),
        }
        self.remember(shot, exit);
    }

    fn check_event(&self, shot: &Shot<'_>, allowed: &Allowed, event: &Event, exit: u8) {
        if !allowed.reported && !shot.world.flows {
            shot.fails(&format!("a report where none is due: {event:?}"));
        }
        let right = match event.kind {
            kind::DROP => exit >= reason::DROP_MIN && event.reason == exit,
            kind::ALLOW => exit == reason::FORWARDED && event.reason == 0,
            kind::AUDIT => {
                let softened = [reason::AUDITED, reason::FORWARDED].contains(&exit);
                softened && event.reason >= reason::DROP_MIN
            }
            _ => false,
        };
        let about = event.direction == shot.direction as u8
            && event.len as usize == shot.frame.len()
            && [4, 6].contains(&event.family);
        if !right || !about || !self.host.knows_rule(event.rule) {
            shot.fails(&format!("counted as {exit}, but reported as {event:?}"));
        }
    }

    /// What passes may open a flow.
    fn remember(&mut self, shot: &Shot<'_>, exit: u8) {
        let Reading::Ip(ip) = &shot.reading else {
            return;
        };
        let opens = [reason::FORWARDED, reason::AUDITED, reason::NOT_OURS].contains(&exit);
        if let What::Judged {
            flow: Some(flow), ..
        } = ip.what
            && opens
        {
            self.opened.insert(flow.name());
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

/// Shoots for a while and panics at the first thing that is wrong; None where the
/// machine cannot run it.
fn run(seed: u64, seconds: Duration, planted: bool) -> Option<Fuzzer> {
    let host = Host::with_conntrack(65_536)?;
    let captures = captures();
    let own: [IpAddr; 2] = [HOST4, HOST6];
    assert!(ends_are_known(&captures, own), "captures of this host");
    let mut fuzzer = Fuzzer {
        host,
        reader: Reader::default(),
        opened: Opened::new(),
        random: Random::new(seed),
        missing: 0,
        planted,
        shots: 0,
        reached: BTreeMap::new(),
    };
    let start = Instant::now();
    while start.elapsed() < seconds {
        // Flows that live would be met by packets that are judged by themselves:
        // those come first.
        let flows = start.elapsed() > seconds / 2;
        let world = World::new(flows, &mut fuzzer.random);
        fuzzer.enter(&world);
        for _ in 0..FRAMES {
            fuzzer.shoot(&world, &captures);
        }
    }
    Some(fuzzer)
}

#[test]
fn changed_captures_meet_no_verdict_that_the_plain_reading_does_not_give() {
    let seconds = number("PALISADE_PACKET_FUZZ_SECONDS").map_or(SHORT, Duration::from_secs);
    let seed = number("PALISADE_PACKET_FUZZ_SEED").unwrap_or(SEED);
    println!("packet fuzzer: seed {seed}, {} s", seconds.as_secs());
    let Some(fuzzer) = run(seed, seconds, false) else {
        return;
    };
    let lost = fuzzer.host.lost();
    println!(
        "{} frames, by exit {:?}, {lost} reports lost",
        fuzzer.shots, fuzzer.reached
    );
    assert!(
        fuzzer.missing <= lost,
        "{} reports are missing",
        fuzzer.missing
    );
    assert!(fuzzer.shots > 500, "{} frames", fuzzer.shots);
}

#[test]
fn a_planted_difference_is_found() {
    let found = std::panic::catch_unwind(|| run(SEED, Duration::from_secs(120), true).is_none());
    let said = match found {
        Ok(not_here) => return assert!(not_here, "nothing was found"),
        Err(said) => said,
    };
    let said = said.downcast::<String>().expect("a text");
    assert!(said.contains("Drop(182)"), "{said}");
}
