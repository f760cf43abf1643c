//! What a packet meets in the kernel, and what the plain reading says of it.

use palisade::datapath::Generation;
use palisade::identity::longest_match;
use palisade::policy::oracle::{Book, Listening};
use palisade::policy::{Packet, PolicySnapshot, Subject};
use palisade_abi::table::{Cell, action, class};

use crate::objects::Sample;

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Passes,
    /// Reported as one that would be dropped.
    Audited,
    Dropped,
}

/// Read from the tables of a generation as the programs read them.
pub(crate) fn of_kernel(generation: &Generation, sample: &Sample) -> Fate {
    let policy = generation.endpoints[0].direction(sample.direction);
    if !policy.enforced && !policy.watched {
        return Fate::Passes;
    }
    let entry = longest_match(&generation.ipcache4, &generation.ipcache6, sample.peer);
    let index = entry.map_or_else(Default::default, |(_, entry)| entry.index);
    let (class, key) = match sample.packet {
        Packet::Port { proto: 6, port } => (class::TCP, port),
        Packet::Port { proto: 17, port } => (class::UDP, port),
        Packet::Port { port, .. } => (class::SCTP, port),
        Packet::Icmp { icmp_type } => (class::OTHER, 256 + u16::from(icmp_type)),
        Packet::Icmpv6 { icmp_type } => (class::OTHER, 512 + u16::from(icmp_type)),
        Packet::Other { proto } => (class::OTHER, u16::from(proto)),
        Packet::Fragment => (class::OTHER, 768),
    };
    of_cell(policy.table.lookup(index, class, key))
}

fn of_cell(cell: Cell) -> Fate {
    if cell.action() == action::ALLOW {
        Fate::Passes
    } else if cell.audit() {
        Fate::Audited
    } else {
        Fate::Dropped
    }
}

/// Read from the rules and objects, by the oracle. `audit`: the endpoint's own
/// switch.
pub(crate) fn of_rules(
    snapshot: &PolicySnapshot,
    subject: Subject,
    audit: bool,
    samples: &[Sample],
) -> Vec<Fate> {
    let book = Book::new(snapshot);
    let together =
        |one: &Sample, other: &Sample| one.peer == other.peer && one.direction == other.direction;
    let mut fates = Vec::new();
    for group in samples.chunk_by(together) {
        let who = book.who(group[0].peer);
        let listening = Listening::new(&book, subject, group[0].direction, &who);
        fates.extend(group.iter().map(|sample| {
            let judgement = listening.judge(sample.packet);
            match (judgement.outcome.is_denial(), judgement.audited || audit) {
                (false, _) => Fate::Passes,
                (true, true) => Fate::Audited,
                (true, false) => Fate::Dropped,
            }
        }));
    }
    fates
}
