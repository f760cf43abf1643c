//! A worker's end is never silent.

use super::*;

fn first_end(threads: &mut Threads) -> End {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let end = tokio::time::timeout(Duration::from_secs(5), threads.first_end());
        end.await.expect("the end is told")
    })
}

#[test]
fn a_panic_is_told_with_its_words() {
    let mut threads = Threads::default();
    let (held, wait) = std::sync::mpsc::sync_channel::<()>(1);
    threads.spawn("idle", move || assert!(wait.recv().is_err()));
    threads.spawn("worker", || panic!("queue {} is broken", 7));
    let end = first_end(&mut threads);
    assert_eq!(end.name, "worker");
    assert_eq!(end.panic.as_deref(), Some("queue 7 is broken"));
    drop(held);
    threads.join();
}

#[test]
fn a_worker_that_just_ends_is_told_as_well() {
    let mut threads = Threads::default();
    threads.spawn("worker", || {});
    let end = first_end(&mut threads);
    assert_eq!((end.name.as_str(), end.panic), ("worker", None));
}

#[test]
fn threads_carry_their_names() {
    let mut threads = Threads::default();
    let (sender, name) = std::sync::mpsc::sync_channel(1);
    threads.spawn("monitor", move || {
        let own = std::thread::current().name().map(str::to_owned);
        sender.send(own).expect("somebody listens");
    });
    assert_eq!(name.recv().expect("a name").as_deref(), Some("monitor"));
    threads.join();
}
