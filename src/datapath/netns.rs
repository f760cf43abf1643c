//! Entering network namespaces: the lab and the tests look at the same traffic
//! from several places.
//!
//! A namespace belongs to a thread, so each call here uses a thread of its own
//! that ends before the call returns. Sockets and child processes made inside
//! stay in the namespace wherever they are used afterwards. (`ip netns exec`
//! would remount /sys, which hides bpffs.)

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Where iproute2 keeps the namespaces that have names.
pub const DIRECTORY: &str = "/run/netns";

/// The file that stands for the namespace `name`.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Moves the calling thread into the namespace, for good.
pub fn enter(name: &str) -> io::Result<()> {
    let file = File::open(path(name))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

/// Puts the calling thread into a new network namespace, for good. It ends with
/// the thread and with the sockets made in it.
pub fn enter_new() -> io::Result<()> {
    // SAFETY: only this thread's network changes; descriptors stay shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

/// Gives the calling thread a copy of the mounts, for good: what it mounts from
/// then on (below private mounts) ends with it.
pub fn enter_new_mounts() -> io::Result<()> {
    // SAFETY: only this thread's view of the file system changes.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    Ok(())
}

/// Runs `action` in the namespace `name` and returns what it returned.
pub fn run_in<T: Send>(name: &str, action: impl FnOnce() -> T + Send) -> io::Result<T> {
    let mut results = run_all([(name, action)]);
    results.pop().unwrap_or_else(|| {
        Err(io::Error::other(
            "the thread in the namespace gave no result",
        ))
    })
}

/// Runs each action in its namespace, all at the same time; results in the
/// order of the actions.
pub fn run_all<'a, T, F>(actions: impl IntoIterator<Item = (&'a str, F)>) -> Vec<io::Result<T>>
where
    T: Send,
    F: FnOnce() -> T + Send,
{
    thread::scope(|scope| {
        let threads: Vec<_> = actions
            .into_iter()
            .map(|(name, action)| scope.spawn(move || enter(name).map(|()| action())))
            .collect();
        threads
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}
