//! Many cases, on all processors, for a time or a number; then the figures.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::case::Case;
use crate::compare::{Ask, Count, Judges, Mismatch, PROGRAMS, Plant};
use crate::generate;
use crate::kernel::Kernel;
use crate::sandbox::is_privileged;
use crate::shrink::shrink;

/// Cases on one datapath before a new one is opened.
const CASES_PER_DATAPATH: u64 = 200;

/// How much is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) first: u64,
    pub(crate) time: Duration,
    /// At most so many cases.
    pub(crate) cases: Option<u64>,
    pub(crate) plant: Plant,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) cases: u64,
    pub(crate) count: Count,
    pub(crate) took: Duration,
    /// The first mismatch, in words.
    pub(crate) failures: Vec<String>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Count {
            rule_sets,
            pairs,
            in_kernel,
            events,
            dropped,
            by_rule,
            too_large,
        } = self.count;
        write!(
            f,
            "{pairs} pairs (rule set, packet), {in_kernel} of them in the kernel too, \
             {by_rule} decided by a rule, {dropped} dropped by policy, {events} events compared; {} cases, {rule_sets} rule \
             sets, {too_large} too large; {:.1} s, {} mismatches",
            self.cases,
            self.took.as_secs_f64(),
            self.failures.len()
        )
    }
}

/// Runs the plan.
pub(crate) fn run(plan: Plan) -> Report {
    let workers = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let workers = workers.min(plan.cases.unwrap_or(u64::MAX)).max(1);
    let stop = AtomicBool::new(false);
    let start = Instant::now();
    let mut report = Report::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|worker| {
                let stop = &stop;
                scope.spawn(move || work(plan, worker, workers, start, stop))
            })
            .collect();
        for thread in threads {
            let part = thread.join().expect("a worker");
            report.cases += part.cases;
            report.count.add(part.count);
            report.failures.extend(part.failures);
        }
    });
    report.took = start.elapsed();
    report
}

/// Every `workers`-th seed, until the time is over or something is wrong.
fn work(plan: Plan, worker: u64, workers: u64, start: Instant, stop: &AtomicBool) -> Report {
    let mut report = Report::default();
    let mut judges = judges(plan.plant);
    for turn in 0.. {
        let number = worker + turn * workers;
        let over = plan.cases.is_some_and(|cases| number >= cases)
            || plan.cases.is_none() && start.elapsed() >= plan.time;
        if over || stop.load(Ordering::Relaxed) {
            break;
        }
        if turn > 0 && turn % CASES_PER_DATAPATH == 0 {
            judges = self::judges(plan.plant);
        }
        let case = generate::case(plan.first.wrapping_add(number));
        report.cases += 1;
        match judges.run(&case, Ask::Many) {
            Ok(count) => report.count.add(count),
            Err(mismatch) => {
                // One at a time is enough to look at.
                if !stop.swap(true, Ordering::Relaxed) {
                    drop(judges);
                    let before = turn % CASES_PER_DATAPATH;
                    let text = describe(plan.plant, &case, &mismatch, before, workers);
                    report.failures.push(text);
                }
                break;
            }
        }
    }
    report
}

fn judges(plant: Plant) -> Judges {
    Judges {
        kernel: is_privileged().then(Kernel::new),
        plant,
    }
}

/// The mismatch by itself, on a new datapath, as small as it gets.
fn describe(plant: Plant, case: &Case, seen: &Mismatch, before: u64, stride: u64) -> String {
    let mut judges = judges(plant);
    let seed = case.seed;
    let mut text = format!(
        "{}: seed {seed}: `cargo xtask fuzz --cases 1 --seed {seed}`\n",
        seen.what
    );
    let again = judges.run(case, Ask::Many);
    let (case, seen) = match &again {
        // About one manifest, which is shown.
        Err(again) if again.probe.is_none() => return text + &again.said,
        Err(again) => {
            if !again.what.contains(PROGRAMS) {
                // What differs before the kernel is found faster without it.
                judges.kernel = None;
            }
            shrink(&mut judges, case, again)
        }
        Ok(_) => {
            text.push_str(&format!(
                "not by itself: only after the {before} cases before it on the same datapath \
                 (every {stride}. seed)\n"
            ));
            (case.clone(), seen.clone())
        }
    };
    text.push_str(&format!(
        "after step {} of\n{}\npacket  {:?}\n{}\n",
        seen.step,
        case.to_yaml(),
        seen.probe,
        seen.said
    ));
    text
}
