//! Programs of an eBPF object into the kernel: verified side by side, for the
//! verifier takes the most of what a first start takes.

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};

use aya::Ebpf;
use aya::programs::{Program, ProgramError, SchedClassifier};
use parking_lot::Mutex;

use super::maps::kernel;
use crate::datapath::DatapathError;
use crate::limits::PROGRAM_LOADS_MAX;

/// Loads programs of `object`, as many at a time as there are processors, those
/// first that are named first. Their descriptors, in the order of `names`; each
/// name is given once.
///
/// # Errors
/// The first refusal, with what the verifier said.
pub fn load_programs(object: &mut Ebpf, names: &[&str]) -> Result<Vec<OwnedFd>, DatapathError> {
    let mut waiting = Vec::new();
    for (name, program) in object.programs_mut() {
        if let Some(place) = names.iter().position(|wanted| *wanted == name) {
            waiting.push((place, program));
        }
    }
    // The last one is taken first.
    waiting.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
    let found = waiting.len();
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let waiting = Mutex::new(waiting);
    let loaded = Mutex::new(Vec::with_capacity(found));
    let work = || {
        loop {
            let Some((place, program)) = waiting.lock().pop() else {
                return;
            };
            let outcome = load(program, names[place]);
            let failed = outcome.is_err();
            loaded.lock().push((place, outcome));
            if failed {
                waiting.lock().clear();
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..processors.min(found) {
            scope.spawn(work);
        }
        work();
    });
    let mut loaded = loaded.into_inner();
    loaded.sort_by_key(|(place, _)| *place);
    let loaded: Vec<OwnedFd> = loaded
        .into_iter()
        .map(|(_, outcome)| outcome)
        .collect::<Result<_, _>>()?;
    if found < names.len() {
        let missing = format!("the eBPF object has {found} of {} programs", names.len());
        return Err(DatapathError::Other(missing));
    }
    Ok(loaded)
}

fn load(program: &mut Program, name: &str) -> Result<OwnedFd, DatapathError> {
    let fail = |error: &dyn std::error::Error| {
        DatapathError::Other(format!("load program {name}: {}", chain(error)))
    };
    let program: &mut SchedClassifier = program.try_into().map_err(|error| fail(&error))?;
    load_uninterrupted(program).map_err(|error| fail(&error))?;
    let fd = program.fd().map_err(|error| fail(&error))?;
    let fd = fd.as_fd().try_clone_to_owned();
    fd.map_err(kernel(format!("duplicate {name}")))
}

/// Loads; the verifier gives up with `EAGAIN` when a signal is pending.
fn load_uninterrupted(program: &mut SchedClassifier) -> Result<(), ProgramError> {
    let mut loads = 1;
    loop {
        match program.load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.kind() == ErrorKind::WouldBlock && loads < PROGRAM_LOADS_MAX =>
            {
                loads += 1;
            }
            result => return result,
        }
    }
}

/// An error with all its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
