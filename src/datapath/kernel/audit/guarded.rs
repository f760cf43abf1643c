//! The kernel's datapath as its two users share it: the committer, which changes
//! it, and the auditor, which compares it, a bounded piece at a time.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::datapath::kernel::KernelDatapath;
use crate::datapath::{Datapath, DatapathError, Generation, Realized, StageReport};
use crate::events::Revision;

/// Clones share one datapath.
#[derive(Clone, Debug)]
pub struct Guarded(Arc<Mutex<KernelDatapath>>);

impl Guarded {
    #[must_use]
    pub fn new(datapath: KernelDatapath) -> Self {
        Self(Arc::new(Mutex::new(datapath)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, KernelDatapath> {
        self.0.lock()
    }
}

impl Datapath for Guarded {
    fn realized(&self) -> Option<Realized> {
        self.lock().realized()
    }

    fn stage(&mut self, generation: &Generation) -> Result<StageReport, DatapathError> {
        self.lock().stage(generation)
    }

    fn commit(&mut self) -> Result<Realized, DatapathError> {
        self.lock().commit()
    }

    fn matches_current(&mut self, generation: &Generation) -> Result<bool, DatapathError> {
        self.lock().matches_current(generation)
    }

    fn adopt(&mut self, revision: Revision) -> Result<Realized, DatapathError> {
        self.lock().adopt(revision)
    }
}
