//! How long it takes from the moment when the server has acknowledged a change to
//! the first packet that is judged by it: numbered datagrams, one a millisecond,
//! each with the time when it was sent. Printed, never asserted: what is asserted
//! is that each change is enforced, and that nothing is judged both ways.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use palisade::datapath::netns;
use palisade::lab::network::{Family, Place};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::cluster::{Cluster, POLICIES, policy, until};
use crate::harness::{ECHO, SSH};
use crate::server::programs;

const PACE: Duration = Duration::from_millis(1);
/// Answers that have not come after this many further ones were sent are lost.
const BEHIND: usize = 200;

#[test]
fn a_change_is_enforced_at_once() {
    let Some(programs) = programs() else { return };
    let cluster = Cluster::new(programs);
    let probe = Probe::start(&cluster);
    until("datagrams are answered", || probe.passes().then_some(()));
    println!("| change | acknowledged -> first packet judged by it |");
    println!("|---|---|");
    // A policy that lets nothing in but SSH; one that lets datagrams in; and back.
    let closed = policy("host", "web", &[SSH]);
    let ports = |open: &[Value]| {
        json!({"spec": {"ingress": [{"fromEntities": ["all"],
        "toPorts": [{"ports": open}]}]}})
    };
    let ssh = json!({"port": SSH.to_string(), "protocol": "TCP"});
    let echo = json!({"port": ECHO.to_string(), "protocol": "UDP"});
    probe.measure("policy created", false, || {
        cluster.create(POLICIES, &closed);
    });
    let wider = ports(&[ssh.clone(), echo]);
    probe.measure("policy patched", true, || {
        cluster.patch_policy("host", &wider);
    });
    let narrower = ports(&[ssh]);
    probe.measure("policy patched back", false, || {
        cluster.patch_policy("host", &narrower);
    });
    probe.measure("node relabelled", true, || {
        cluster.set_role("db");
    });
    probe.measure("node relabelled back", false, || {
        cluster.set_role("web");
    });
    probe.measure("policy deleted", true, || {
        cluster.delete_policy("host");
    });
    probe.finish();
}

/// What became of each datagram.
#[derive(Default)]
struct Sent {
    at: Vec<Instant>,
    answered: Vec<bool>,
}

impl Sent {
    /// Whether the newest ones of which it is certain passed; None when they differ.
    fn state(&self) -> Option<bool> {
        let known = self.at.len().checked_sub(BEHIND)?;
        let newest = &self.answered[known.checked_sub(BEHIND)?..known];
        let first = *newest.first()?;
        newest.iter().all(|it| *it == first).then_some(first)
    }

    /// When the first one was sent of those that are judged as the newest.
    fn since(&self) -> Option<(usize, Instant)> {
        let known = self.at.len().checked_sub(BEHIND)?;
        let newest = *self.answered[..known].last()?;
        let other = self.answered[..known]
            .iter()
            .rposition(|it| *it != newest)?;
        Some((other + 1, self.at[other + 1]))
    }
}

/// A flow of numbered datagrams to the host's echo server.
struct Probe {
    sent: Arc<Mutex<Sent>>,
    is_over: Arc<AtomicBool>,
    running: JoinHandle<()>,
}

impl Probe {
    fn start(cluster: &Cluster) -> Self {
        let namespace = cluster.world.sandbox.namespace(Place::Outsider.name());
        let to = SocketAddr::new(Place::Host.address(Family::V4), ECHO);
        let socket = netns::run_in(&namespace, || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(to)?;
            socket.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(socket)
        });
        let socket = socket.expect("a namespace").expect("a socket");
        let sent = Arc::<Mutex<Sent>>::default();
        let is_over = Arc::<AtomicBool>::default();
        let (told, over) = (Arc::clone(&sent), Arc::clone(&is_over));
        let running = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                step(&socket, &told);
                std::thread::sleep(PACE);
            }
        });
        Self {
            sent,
            is_over,
            running,
        }
    }

    fn passes(&self) -> bool {
        self.sent.lock().state() == Some(true)
    }

    /// Makes a change, waits until datagrams are judged by it, prints how long
    /// after its acknowledgement the first one was.
    #[track_caller]
    fn measure(&self, what: &str, passes: bool, change: impl FnOnce()) {
        change();
        let acknowledged = Instant::now();
        until(&format!("{what}: passes is {passes}"), || {
            (self.sent.lock().state() == Some(passes)).then_some(())
        });
        let (number, at) = self.sent.lock().since().expect("it was otherwise before");
        // It may be in force before its acknowledgement has come back.
        let after = at.saturating_duration_since(acknowledged);
        println!("| {what} | {} ms (datagram {number}) |", after.as_millis());
    }

    fn finish(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.running.join().expect("it ends");
        let sent = self.sent.lock();
        let known = sent.at.len() - BEHIND;
        let turns = sent.answered[..known].windows(2);
        let turns = turns.filter(|pair| pair[0] != pair[1]).count();
        assert_eq!(
            turns, 6,
            "each change turns the verdict once, and nothing else does"
        );
    }
}

/// Sends the next number, and hears which ones came back.
fn step(socket: &UdpSocket, sent: &Mutex<Sent>) {
    let number = {
        let mut sent = sent.lock();
        sent.at.push(Instant::now());
        sent.answered.push(false);
        sent.at.len() as u64 - 1
    };
    // A refused datagram (an ICMP error of an earlier one) is sent again.
    while let Err(error) = socket.send(&number.to_be_bytes()) {
        assert_ne!(
            error.kind(),
            std::io::ErrorKind::WouldBlock,
            "a full buffer"
        );
    }
    let mut answer = [0; 8];
    while let Ok(8) = socket.recv(&mut answer) {
        let number = usize::try_from(u64::from_be_bytes(answer)).expect("a number");
        sent.lock().answered[number] = true;
    }
}
