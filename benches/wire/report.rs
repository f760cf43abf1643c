//! Medians, ratios, targets.

use std::fmt;

use serde_json::{Value, json};

use crate::floods::Flood;
use crate::rounds::{Load, Rounds, Table};
use crate::settings::Setting;
use crate::streams::Stream;

/// One run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) rounds: usize,
    pub(crate) cpu: usize,
    /// Load average of the last minute, before and after.
    pub(crate) load: [f64; 2],
    /// Settings that were left out, and why.
    pub(crate) missing: Vec<String>,
    pub(crate) table: Table,
}

/// One load in one setting.
#[derive(Clone, Copy, Debug)]
struct Line {
    load: Load,
    setting: Setting,
    /// Of a unit, median and smallest.
    ns: f64,
    ns_min: f64,
    /// Median over the rounds of cost here / cost of no firewall in that round.
    ratio: f64,
}

/// What must hold, and what was measured.
#[derive(Debug)]
struct Target {
    name: String,
    measured: f64,
    /// At most this, or below it.
    limit: f64,
    strictly: bool,
}

impl Target {
    fn is_met(&self) -> bool {
        self.measured < self.limit || !self.strictly && self.measured <= self.limit
    }
}

pub(crate) fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    }
}

impl Report {
    fn lines(&self) -> Vec<Line> {
        let all = self.table.loads.iter();
        all.flat_map(|(load, rounds)| {
            let settings = self.table.settings.iter().enumerate();
            settings.map(|(place, setting)| Line {
                load: *load,
                setting: *setting,
                ns: median(column(rounds, |round| round[place])),
                ns_min: column(rounds, |round| round[place])
                    .into_iter()
                    .fold(f64::INFINITY, f64::min),
                ratio: median(column(rounds, |round| round[place] / round[0])),
            })
        })
        .collect()
    }

    /// Ratio of the cost in one setting to that in another.
    fn ratio(&self, load: Load, of: Setting, to: Setting) -> Option<f64> {
        let place = |wanted| self.table.settings.iter().position(|it| *it == wanted);
        let (of, to) = (place(of)?, place(to)?);
        let (_, rounds) = self.table.loads.iter().find(|(it, _)| *it == load)?;
        Some(median(column(rounds, |round| round[of] / round[to])))
    }

    fn targets(&self) -> Vec<Target> {
        const OURS: [Setting; 2] = [Setting::Palisade, Setting::PalisadeReader];
        let limits = [
            (Load::Flood(Flood::DeniedUdp), 1.0),
            (Load::Flood(Flood::DeniedSyn), 1.0),
            (Load::Flood(Flood::NewAllowed), 1.5),
            (Load::Flood(Flood::Established), 1.08),
            // At least 0.95 of the rate.
            (Load::Stream(Stream::RequestResponse), 1.0 / 0.95),
        ];
        let mut targets = Vec::new();
        let mut add = |load: Load, of: Setting, to: Setting, limit, strictly| {
            targets.extend(self.ratio(load, of, to).map(|measured| Target {
                name: format!("{}: {} / {}", load.name(), of.name(), to.name()),
                measured,
                limit,
                strictly,
            }));
        };
        for (load, limit) in limits {
            for ours in OURS {
                add(load, ours, Setting::None, limit, false);
            }
        }
        for load in Load::ALL {
            for ours in OURS {
                add(load, ours, Setting::Nft10k, 1.0, true);
            }
        }
        targets
    }

    pub(crate) fn json(&self) -> Value {
        let lines = self.lines().into_iter().map(|line| {
            json!({
                "load": line.load.name(),
                "setting": line.setting.name(),
                "unit": line.load.unit(),
                "ns_median": line.ns,
                "ns_min": line.ns_min,
                "per_second_of_one_cpu": 1e9 / line.ns,
                "cost_ratio_to_none": line.ratio,
            })
        });
        let targets = self.targets().into_iter().map(|target| {
            json!({
                "name": target.name,
                "cost_ratio": target.measured,
                "limit": target.limit,
                "met": target.is_met(),
            })
        });
        json!({
            "rounds": self.rounds,
            "cpu": self.cpu,
            "load_average": self.load,
            "left_out": self.missing,
            "lines": lines.collect::<Vec<_>>(),
            "targets": targets.collect::<Vec<_>>(),
        })
    }
}

fn column(rounds: &Rounds, of: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    rounds.iter().map(|round| of(round)).collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} interleaved rounds on CPU {}; load average {:.2} before, {:.2} after",
            self.rounds, self.cpu, self.load[0], self.load[1]
        )?;
        for missing in &self.missing {
            writeln!(f, "left out: {missing}")?;
        }
        writeln!(
            f,
            "\n{:<22} {:<16} {:>9} {:>9} {:>12} {:>9} {:>9}   of",
            "load", "setting", "ns", "least", "per CPU s", "cost", "rate"
        )?;
        for line in self.lines() {
            writeln!(
                f,
                "{:<22} {:<16} {:>9.0} {:>9.0} {:>12.0} {:>9.3} {:>9.3}   a {}",
                line.load.name(),
                line.setting.name(),
                line.ns,
                line.ns_min,
                1e9 / line.ns,
                line.ratio,
                1.0 / line.ratio,
                line.load.unit()
            )?;
        }
        writeln!(
            f,
            "\n{:<54} {:>9} {:>9}",
            "target (ratio of costs)", "measured", "limit"
        )?;
        for target in self.targets() {
            writeln!(
                f,
                "{:<54} {:>9.3} {:>9}   {}",
                target.name,
                target.measured,
                format!(
                    "{}{:.3}",
                    if target.strictly { "<" } else { "<=" },
                    target.limit
                ),
                if target.is_met() { "met" } else { "MISSED" }
            )?;
        }
        Ok(())
    }
}
