//! What became of the streams, as a table and as a list of faults.

use std::collections::BTreeMap;
use std::fmt;

use palisade::lab::network::{Family, Place};
use palisade_abi::reason;

use super::connections::Life;
use super::{Drops, Flow, Kind, Verdict, Way};

/// Less is too little to tell anything.
const NUMBERS_MIN: u64 = 5;

/// One stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) way: Way,
    pub(super) family: Family,
    pub(super) sent: u64,
    pub(super) passed: u64,
    /// Packets that may have been sent besides.
    pub(super) repeats_max: u64,
}

/// Drops of one reason and direction.
#[derive(Clone, Copy, Default, Debug)]
struct Counted {
    dropped: u64,
    /// Packets of the denied streams.
    denied: u64,
    repeats_max: u64,
}

/// The outcome of all streams.
#[derive(Debug)]
pub(crate) struct Report {
    lines: Vec<Line>,
    long: Vec<(String, Life)>,
    drops: BTreeMap<(u8, String), Counted>,
}

impl Line {
    fn is_allowed(&self) -> bool {
        self.way.verdict == Verdict::Allowed
    }

    fn lost(&self) -> u64 {
        self.sent - self.passed
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.way.kind {
            Kind::Udp(Flow::Fresh) => "UDP, new flows",
            Kind::Udp(Flow::Same) => "UDP, one flow",
            Kind::Echo => "UDP, answers",
            Kind::Tcp => "TCP, new connections",
        };
        let verdict = match self.way.verdict {
            Verdict::Allowed => "allowed",
            Verdict::Unallowed => "not allowed",
            Verdict::Denied => "denied",
        };
        let way = format!("{} to {}", self.way.from.name(), self.way.to.name());
        write!(
            f,
            "{verdict:12} {way:17} {:?} {kind:21} {:8} sent {:8} passed",
            self.family, self.sent, self.passed
        )
    }
}

/// The counter that a packet of a denied way moves.
fn counter(way: Way) -> Option<(u8, String)> {
    let reason = match way.verdict {
        Verdict::Allowed => return None,
        Verdict::Unallowed => reason::POLICY,
        Verdict::Denied => reason::POLICY_DENY,
    };
    let direction = match way.to {
        Place::Host => "INGRESS",
        Place::Peer | Place::Outsider => "EGRESS",
    };
    Some((reason, direction.to_owned()))
}

impl Report {
    pub(super) fn new(
        lines: Vec<Line>,
        long: Vec<(String, Life)>,
        before: &Drops,
        after: &Drops,
    ) -> Self {
        let mut drops: BTreeMap<(u8, String), Counted> = BTreeMap::new();
        for (key, packets) in after {
            let before = before.get(key).copied().unwrap_or_default();
            drops.entry(key.clone()).or_default().dropped = packets.saturating_sub(before);
        }
        for line in &lines {
            if let Some(key) = counter(line.way) {
                let counted = drops.entry(key).or_default();
                counted.denied += line.sent;
                counted.repeats_max += line.repeats_max;
            }
        }
        drops.retain(|_, counted| counted.dropped + counted.denied > 0);
        Self { lines, long, drops }
    }

    fn of(&self, allowed: bool) -> impl Iterator<Item = &Line> {
        let is_one = move |line: &&Line| line.is_allowed() == allowed;
        self.lines.iter().filter(is_one)
    }

    /// Numbers of allowed streams that did not arrive.
    pub(crate) fn lost(&self) -> u64 {
        self.of(true).map(Line::lost).sum()
    }

    /// Numbers of denied streams that passed.
    pub(crate) fn leaked(&self) -> u64 {
        self.of(false).map(|line| line.passed).sum()
    }

    /// Drops of packets that no denied stream sent.
    pub(crate) fn dropped_beyond(&self) -> u64 {
        let beyond = |counted: &Counted| {
            let denied = counted.denied + counted.repeats_max;
            counted.dropped.saturating_sub(denied)
        };
        self.drops.values().map(beyond).sum()
    }

    /// Everything that is not as it must be.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for line in &self.lines {
            if line.sent < NUMBERS_MIN {
                faults.push(format!("too little traffic to tell: {line}"));
            }
            if line.is_allowed() && line.lost() > 0 {
                faults.push(format!("allowed and lost {}: {line}", line.lost()));
            }
            if !line.is_allowed() && line.passed > 0 {
                faults.push(format!("denied and passed: {line}"));
            }
        }
        for (name, life) in &self.long {
            if let Some(death) = &life.death {
                faults.push(format!("the long connection {name} died: {death}"));
            }
        }
        for ((reason, direction), counted) in &self.drops {
            if counted.dropped > counted.denied + counted.repeats_max {
                faults.push(format!(
                    "{} drops ({}, {direction}) of packets that were allowed: {counted:?}",
                    counted.dropped - counted.denied,
                    reason::label(*reason)
                ));
            }
        }
        faults
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        for (name, life) in &self.long {
            let Life {
                answered,
                longest_wait,
                death,
            } = life;
            let state = death.as_ref().map_or("alive", |_| "DEAD");
            writeln!(
                f,
                "long TCP connection {name}: {state}, {answered} answers, longest wait {longest_wait:.0?}"
            )?;
        }
        for ((reason, direction), counted) in &self.drops {
            writeln!(
                f,
                "drops, {}, {direction}: {} for {} packets of denied streams",
                reason::label(*reason),
                counted.dropped,
                counted.denied
            )?;
        }
        let sum = |allowed| -> u64 { self.of(allowed).map(|line| line.sent).sum() };
        write!(
            f,
            "allowed: {} sent, {} lost, {} dropped by us; denied: {} sent, {} passed; \
             long connections: {} of {} alive",
            sum(true),
            self.lost(),
            self.dropped_beyond(),
            sum(false),
            self.leaked(),
            self.long
                .iter()
                .filter(|(_, life)| life.death.is_none())
                .count(),
            self.long.len()
        )
    }
}
