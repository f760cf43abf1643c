//! The contract of the event queue.

use super::*;
use crate::clock::{ManualClock, SystemClock};

fn queue(capacity: usize) -> (Arc<EventQueue<u32, u32>>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    let queue = EventQueue::new("test", capacity, clock.clone(), Arc::default(), None);
    (Arc::new(queue), clock)
}

#[test]
fn first_in_first_out_and_each_gets_its_result() {
    let (queue, clock) = queue(3);
    let tickets: Vec<_> = (1..=3)
        .map(|event| queue.enqueue(event).expect("room"))
        .collect();
    assert_eq!(queue.depth(), 3);
    clock.advance(Duration::from_millis(5));
    for expected in 1..=3 {
        let taken = queue.take().expect("there is one");
        assert_eq!(taken.event, expected);
        queue.handled(Duration::from_millis(1));
        taken.answer(expected * 10);
    }
    for (ticket, expected) in tickets.iter().zip([10, 20, 30]) {
        assert_eq!(ticket.wait(Duration::ZERO), Ok(expected));
    }
    let stats = queue.stats();
    assert_eq!((stats.enqueued, stats.handled, stats.depth), (3, 3, 0));
    assert_eq!(stats.queue_wait.max, Duration::from_millis(5));
    assert_eq!(stats.handling.total, Duration::from_millis(3));
}

#[test]
fn a_full_queue_makes_the_producer_wait() {
    let clock = Arc::new(SystemClock::default());
    let queue = Arc::new(EventQueue::<u32, u32>::new(
        "test",
        1,
        clock,
        Arc::default(),
        None,
    ));
    queue.enqueue(1).expect("room");
    assert!(matches!(queue.try_enqueue(2), Err(EnqueueError::Full(2))));
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| queue.enqueue(2).map(|_| ()).is_ok());
        std::thread::sleep(Duration::from_millis(30));
        assert!(!producer.is_finished());
        assert_eq!(queue.take().map(|taken| taken.event), Some(1));
        assert!(producer.join().expect("no panic"));
    });
    assert_eq!(queue.take().map(|taken| taken.event), Some(2));
    assert!(queue.stats().enqueue_wait.max >= Duration::from_millis(20));
}

#[test]
fn stop_cancels_what_was_not_run() {
    let (queue, _) = queue(2);
    let ran = queue.enqueue(1).expect("room");
    let cancelled = queue.enqueue(2).expect("room");
    queue.take().expect("there is one").answer(7);
    queue.stop();
    assert_eq!(ran.wait(Duration::ZERO), Ok(7));
    assert_eq!(cancelled.wait(Duration::ZERO), Err(NoResult::Cancelled));
    assert!(matches!(queue.enqueue(3), Err(EnqueueError::Stopped(3))));
    assert!(queue.take().is_none());
    assert_eq!(queue.stats().cancelled, 1);
}

#[test]
fn stop_frees_a_producer_that_waits() {
    let (queue, _) = queue(1);
    queue.enqueue(1).expect("room");
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| queue.enqueue(2));
        std::thread::sleep(Duration::from_millis(20));
        queue.stop();
        match producer.join().expect("no panic") {
            Err(EnqueueError::Stopped(2)) => {}
            Ok(ticket) => assert_eq!(ticket.wait(Duration::ZERO), Err(NoResult::Cancelled)),
            Err(error) => panic!("{error:?}"),
        }
    });
}

#[test]
fn drained_means_that_the_consumer_left() {
    let (queue, _) = queue(1);
    assert!(!queue.wait_to_be_drained(Duration::from_millis(1)));
    let ticket = queue.enqueue(1).expect("room");
    queue.stop();
    queue.consumer_left();
    assert!(queue.wait_to_be_drained(Duration::ZERO));
    assert_eq!(ticket.wait(Duration::ZERO), Err(NoResult::Cancelled));
}

#[test]
fn an_event_that_is_dropped_by_its_handler_counts_as_cancelled() {
    let (queue, _) = queue(1);
    let ticket = queue.enqueue(1).expect("room");
    drop(queue.take());
    assert_eq!(ticket.wait(Duration::ZERO), Err(NoResult::Cancelled));
}
