//! Nanoseconds per packet over the runs.

/// One figure of each run.
#[derive(Clone, Default, Debug)]
pub(crate) struct Samples(Vec<u32>);

impl Samples {
    pub(crate) fn push(&mut self, ns: u32) {
        self.0.push(ns);
    }

    pub(crate) fn figure(&self) -> Figure {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = |place: usize| sorted.get(place).copied().map_or(f64::NAN, f64::from);
        Figure {
            min: at(0),
            median: at(sorted.len() / 2),
            max: at(sorted.len().saturating_sub(1)),
        }
    }
}

/// Nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Figure {
    /// What is left of `self` without `part`: best of best, middle of middle.
    pub(crate) fn above(self, part: Self) -> Self {
        Self {
            min: self.min - part.min,
            median: self.median - part.median,
            max: self.max - part.max,
        }
    }
}
