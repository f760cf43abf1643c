//! The real datapath, in namespaces and on a bpffs of its own. Needs root.

use std::path::Path;

use palisade::datapath::kernel::{KernelDatapath, KernelOptions};

use crate::private;

/// Calls `work` with a datapath that has nothing to do with this machine's.
pub(crate) fn with_datapath<T: Send>(work: impl FnOnce(KernelDatapath) -> T + Send) -> T {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path();
    let result = std::thread::scope(|scope| scope.spawn(|| work(open(path))).join());
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// In this thread's namespaces, which end with it.
fn open(dir: &Path) -> KernelDatapath {
    let bpffs = private::enter(dir);
    let options = KernelOptions {
        bpffs: bpffs.join("palisade"),
        ..KernelOptions::default()
    };
    let (datapath, _) = KernelDatapath::open(&options).expect("the datapath opens");
    datapath
}
