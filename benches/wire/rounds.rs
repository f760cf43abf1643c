//! Rounds: each runs one load once in every setting, one right after the
//! other, so that a slow minute of the machine is slow for all.

use anyhow::{Context as _, Result};

use crate::cpu::{Cpu, Done};
use crate::floods::{Ends, Flood};
use crate::settings::{Place, Setting};
use crate::sources::Random;
use crate::streams::{self, Stream};

/// One load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Load {
    Flood(Flood),
    Stream(Stream),
}

impl Load {
    pub(crate) const ALL: [Self; 7] = [
        Self::Flood(Flood::DeniedUdp),
        Self::Flood(Flood::DeniedSyn),
        Self::Flood(Flood::NewAllowed),
        Self::Flood(Flood::Established),
        Self::Stream(Stream::RequestResponse),
        Self::Stream(Stream::Connects),
        Self::Stream(Stream::Bulk),
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Flood(Flood::DeniedUdp) => "denied_udp",
            Self::Flood(Flood::DeniedSyn) => "denied_syn",
            Self::Flood(Flood::NewAllowed) => "new_allowed",
            Self::Flood(Flood::Established) => "established",
            Self::Stream(Stream::RequestResponse) => "tcp_request_response",
            Self::Stream(Stream::Connects) => "tcp_connects",
            Self::Stream(Stream::Bulk) => "tcp_bulk",
        }
    }

    /// What is counted.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Flood(_) => "packet",
            Self::Stream(Stream::RequestResponse) => "transaction",
            Self::Stream(Stream::Connects) => "connection",
            Self::Stream(Stream::Bulk) => "kB",
        }
    }
}

/// CPU ns of a unit, by setting, for each round.
pub(crate) type Rounds = Vec<Vec<f64>>;

/// What was measured.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) settings: Vec<Setting>,
    pub(crate) loads: Vec<(Load, Rounds)>,
}

/// Turns of one round: each setting has as many short ones, not one long.
const TURNS: usize = 5;

pub(crate) fn run(places: &[Place], cpu: &Cpu, loads: &[Load], rounds: usize) -> Result<Table> {
    let mut bench = Bench {
        places,
        ends: places
            .iter()
            .map(|place| Ends::open(&place.wire))
            .collect::<Result<_>>()?,
        cpu,
        random: Random::new(),
    };
    let mut loads: Vec<(Load, Rounds)> = loads.iter().map(|load| (*load, Vec::new())).collect();
    // The round before the first warms caches, tables and the host's buffer.
    for round in 0..=rounds {
        for (load, figures) in &mut loads {
            let figure = bench.round(*load, round)?;
            if round > 0 {
                figures.push(figure);
            }
        }
    }
    Ok(Table {
        settings: places.iter().map(|place| place.setting).collect(),
        loads,
    })
}

struct Bench<'a> {
    places: &'a [Place],
    ends: Vec<Ends>,
    cpu: &'a Cpu,
    random: Random,
}

impl Bench<'_> {
    /// CPU ns of a unit, by setting.
    fn round(&mut self, load: Load, round: usize) -> Result<Vec<f64>> {
        let count = self.places.len();
        for place in self.places {
            place.forget_flows()?;
        }
        let mut all = vec![(0.0, 0); count];
        for turn in 0..TURNS * count {
            // Another setting begins each round.
            let number = (round + turn) % count;
            let place = &self.places[number];
            let done = self.turn(load, number);
            let done =
                done.with_context(|| format!("{}, {}", load.name(), place.setting.name()))?;
            all[number].0 += done.units;
            all[number].1 += done.cpu_ns;
        }
        let costs = all.into_iter().map(|(units, ns)| ns as f64 / units);
        Ok(costs.collect())
    }

    fn turn(&mut self, load: Load, number: usize) -> Result<Done> {
        let place = &self.places[number];
        match load {
            Load::Flood(flood) => self.ends[number].burst(place, self.cpu, flood, &mut self.random),
            Load::Stream(stream) => streams::run(&place.wire, self.cpu, stream),
        }
    }
}
