//! Numbered traffic of every kind of verdict: allowed and denied, both
//! directions and families, datagrams, new connections and long ones.
//!
//! What was allowed and did not arrive is told apart from what the network of
//! the test lost by the counters of the programs: every packet of a denied
//! stream is one drop of a known reason and direction, so each drop beyond them
//! hit a packet that was allowed.

#[path = "streams/connections.rs"]
mod connections;
#[path = "streams/datagrams.rs"]
mod datagrams;
#[path = "streams/report.rs"]
mod report;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use palisade::lab::network::{Family, Place};
use palisade_abi::reason;

use self::connections::{Connections, LongConnection};
use super::harness::{ECHO, PATIENCE, SSH, World};

pub(crate) use self::datagrams::{Flow, Stream, any, bind};
pub(crate) use self::report::Report;

/// What the verdicts of the streams follow from. No other policy of a test may
/// select their ports.
pub(crate) const POLICY: &str = "apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: streams}
spec:
  nodeSelector: {}
  ingress:
  - fromEntities: [cluster]
    toPorts: [{ports: [{port: \"9100\", endPort: 9109}]}]
  - toPorts: [{ports: [{port: \"22\", protocol: TCP}]}]
  ingressDeny:
  - fromEntities: [world]
    toPorts: [{ports: [{port: \"9120\", endPort: 9129}]}]
  egress:
  - toEntities: [cluster]
    toPorts: [{ports: [{port: \"9200\", endPort: 9209}]}]
  - toPorts: [{ports: [{port: \"22\", protocol: TCP}, {port: \"9000\", protocol: UDP}]}]
  egressDeny:
  - toEntities: [world]
    toPorts: [{ports: [{port: \"9220\", endPort: 9229}]}]
";

const PACE: Duration = Duration::from_millis(5);
/// Long before the kernel sends a SYN again.
const DENIED_PATIENCE: Duration = Duration::from_millis(100);

/// What becomes of a stream's packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Allowed,
    /// No rule allows it.
    Unallowed,
    /// A rule denies it.
    Denied,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Udp(Flow),
    /// Datagrams of one flow, and their answers.
    Echo,
    /// A connection for each number.
    Tcp,
}

/// A stream, of both families.
#[derive(Clone, Copy, Debug)]
struct Way {
    verdict: Verdict,
    from: Place,
    to: Place,
    port: u16,
    kind: Kind,
}

const fn way(verdict: Verdict, from: Place, to: Place, port: u16, kind: Kind) -> Way {
    Way {
        verdict,
        from,
        to,
        port,
        kind,
    }
}

const FRESH: Kind = Kind::Udp(Flow::Fresh);
const SAME: Kind = Kind::Udp(Flow::Same);

const WAYS: [Way; 17] = [
    way(Verdict::Allowed, Place::Peer, Place::Host, 9_100, FRESH),
    way(Verdict::Allowed, Place::Peer, Place::Host, 9_101, SAME),
    way(Verdict::Allowed, Place::Peer, Place::Host, 9_102, Kind::Tcp),
    way(Verdict::Allowed, Place::Host, Place::Peer, 9_200, FRESH),
    way(Verdict::Allowed, Place::Host, Place::Peer, 9_201, SAME),
    way(Verdict::Allowed, Place::Host, Place::Peer, 9_202, Kind::Tcp),
    way(
        Verdict::Allowed,
        Place::Host,
        Place::Outsider,
        ECHO,
        Kind::Echo,
    ),
    way(
        Verdict::Unallowed,
        Place::Outsider,
        Place::Host,
        9_110,
        FRESH,
    ),
    way(Verdict::Unallowed, Place::Peer, Place::Host, 9_111, SAME),
    way(
        Verdict::Unallowed,
        Place::Outsider,
        Place::Host,
        9_112,
        Kind::Tcp,
    ),
    way(Verdict::Unallowed, Place::Host, Place::Peer, 9_210, FRESH),
    way(
        Verdict::Unallowed,
        Place::Host,
        Place::Peer,
        9_212,
        Kind::Tcp,
    ),
    way(Verdict::Denied, Place::Outsider, Place::Host, 9_120, FRESH),
    way(
        Verdict::Denied,
        Place::Outsider,
        Place::Host,
        9_122,
        Kind::Tcp,
    ),
    way(Verdict::Denied, Place::Host, Place::Outsider, 9_220, FRESH),
    way(Verdict::Denied, Place::Host, Place::Outsider, 9_221, SAME),
    way(
        Verdict::Denied,
        Place::Host,
        Place::Outsider,
        9_222,
        Kind::Tcp,
    ),
];

#[derive(Debug)]
enum Running {
    Datagrams(Stream),
    Connections(Connections),
}

/// All streams, running.
#[derive(Debug)]
pub(crate) struct Streams {
    streams: Vec<(Way, Family, Running)>,
    long: Vec<(String, LongConnection)>,
    drops: Drops,
}

/// Packets by reason and direction, as the programs count them.
pub(crate) type Drops = BTreeMap<(u8, String), u64>;

/// Reads the drops and what the programs let pass by exception.
pub(crate) fn drops(world: &mut World) -> Drops {
    let counters = world.agent().json(&["bpf", "metrics", "list"]);
    let counters = counters.expect("counters");
    let lines = counters.as_array().expect("a list").iter();
    lines
        .filter_map(|line| {
            let reason = u8::try_from(line["reason_code"].as_u64()?).ok()?;
            let direction = line["direction"].as_str()?.to_owned();
            let counts = reason >= reason::DROP_MIN || reason == reason::MISSED_TAIL_CALL_PASSED;
            counts.then_some(((reason, direction), line["packets"].as_u64()?))
        })
        .collect()
}

/// Servers of the TCP streams, also of those whose connections must not open.
fn serve(world: &mut World) {
    for place in Place::ALL {
        let here = |way: &&Way| way.to == place && way.kind == Kind::Tcp;
        let ports: Vec<u16> = WAYS.iter().filter(here).map(|way| way.port).collect();
        world.serve(place.name(), &ports, &[]);
    }
}

/// Puts the policy of the streams into force, with servers behind it.
pub(crate) fn prepare(world: &mut World) {
    serve(world);
    world.manifest("streams.yaml", POLICY);
    world.wait("ingress", "enabled");
    world.wait("egress", "enabled");
}

impl Streams {
    /// Starts them in a world that was prepared and whose agent answers.
    pub(crate) fn start(world: &mut World) -> Self {
        let drops = drops(world);
        Self::start_from(world, drops)
    }

    /// The same, where the drops until now are known.
    pub(crate) fn start_from(world: &World, drops: Drops) -> Self {
        let mut streams = Vec::new();
        let mut long = Vec::new();
        for family in Family::BOTH {
            for way in WAYS {
                streams.push((way, family, way.start(world, family)));
            }
            for (from, to) in [
                (Place::Outsider, Place::Host),
                (Place::Host, Place::Outsider),
            ] {
                let connection = world.connect(from, to, SSH, family);
                let name = format!("{} to {}, {family:?}", from.name(), to.name());
                long.push((name, LongConnection::start(connection, PACE)));
            }
        }
        Self {
            streams,
            long,
            drops,
        }
    }

    /// Ends them; the agent of the world answers again.
    pub(crate) fn finish(self, world: &mut World) -> Report {
        self.finish_with(|| drops(world))
    }

    /// Ends them; `drops` is asked when all is silent.
    pub(crate) fn finish_with(self, drops: impl FnOnce() -> Drops) -> Report {
        for (_, _, running) in &self.streams {
            running.end_sending();
        }
        for (_, long) in &self.long {
            long.end_sending();
        }
        let streams = self.streams.into_iter();
        let lines = streams.map(|(way, family, running)| way.line(family, running));
        let lines = lines.collect();
        let long = self.long.into_iter();
        let long = long.map(|(name, long)| (name, long.finish())).collect();
        Report::new(lines, long, &self.drops, &drops())
    }
}

impl Running {
    fn end_sending(&self) {
        match self {
            Self::Datagrams(stream) => stream.end_sending(),
            Self::Connections(connections) => connections.end_sending(),
        }
    }
}

impl Way {
    fn start(self, world: &World, family: Family) -> Running {
        let to = SocketAddr::new(self.to.address(family), self.port);
        let (from, at) = (self.from.name(), self.to.name());
        let patience = match self.verdict {
            Verdict::Allowed => PATIENCE,
            Verdict::Unallowed | Verdict::Denied => DENIED_PATIENCE,
        };
        match self.kind {
            Kind::Udp(flow) => Running::Datagrams(Stream::paced(world, from, at, to, flow, PACE)),
            Kind::Echo => Running::Datagrams(Stream::echo(world, from, to, PACE)),
            Kind::Tcp => Running::Connections(Connections::start(world, from, to, patience, PACE)),
        }
    }

    fn line(self, family: Family, running: Running) -> report::Line {
        let (sent, passed, repeats_max) = match running {
            Running::Datagrams(stream) => {
                let outcome = stream.finish();
                (outcome.sent, outcome.arrived.len() as u64, 0)
            }
            Running::Connections(connections) => {
                let opened = connections.finish();
                // A denied one that opened has passed, answered or not.
                let passed = match self.verdict {
                    Verdict::Allowed => opened.answered,
                    Verdict::Unallowed | Verdict::Denied => opened.answered + opened.cut,
                };
                (opened.tried, passed, opened.repeats_max)
            }
        };
        report::Line {
            way: self,
            family,
            sent,
            passed,
            repeats_max,
        }
    }
}
