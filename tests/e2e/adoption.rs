//! The first enforcement cuts nothing that was allowed or opened from here.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use palisade::datapath::netns;
use palisade::lab::network::{Family, Place};
use palisade::lab::probe;

use super::harness::{DEMO_POLICY, PATIENCE, SSH, World, demo_rows, privileged, until};

/// A server elsewhere that never stops sending, and a client on the host that
/// only reads: a long download.
struct Download {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    threads: [JoinHandle<()>; 2],
}

impl Download {
    fn start(world: &World, family: Family, port: u16) -> Self {
        let address = SocketAddr::new(Place::Outsider.address(family), port);
        let listener = netns::run_in(&world.sandbox.namespace("outsider"), || {
            TcpListener::bind(address)
        });
        let listener = listener.expect("a namespace").expect("a listener");
        let client = world.connect(Place::Host, Place::Outsider, port, family);
        let (server, _) = listener.accept().expect("a connection");
        let stop = Arc::new(AtomicBool::new(false));
        let received = Arc::new(AtomicU64::new(0));
        let threads = [
            spawn({
                let stop = Arc::clone(&stop);
                move || upload(server, &stop)
            }),
            spawn({
                let received = Arc::clone(&received);
                move || count(client, &received)
            }),
        ];
        Self {
            stop,
            received,
            threads,
        }
    }

    /// Fails unless more bytes come.
    fn goes_on(&self) {
        let before = self.received.load(Ordering::SeqCst);
        until("the download goes on", || {
            (self.received.load(Ordering::SeqCst) > before + (64 << 10)).then_some(())
        });
    }

    fn finish(self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("the download ends well");
        }
    }
}

fn upload(mut stream: TcpStream, stop: &AtomicBool) {
    let block = [7; 4 << 10];
    while !stop.load(Ordering::SeqCst) {
        stream.write_all(&block).expect("the client reads");
        sleep(Duration::from_millis(2));
    }
}

fn count(mut stream: TcpStream, received: &AtomicU64) {
    let mut block = vec![0; 64 << 10];
    loop {
        match stream.read(&mut block).expect("the server sends") {
            0 => return,
            length => {
                assert!(
                    block[..length].iter().all(|byte| *byte == 7),
                    "other bytes than sent"
                );
                received.fetch_add(length as u64, Ordering::SeqCst);
            }
        }
    }
}

/// The agent starts with the policy at hand: attachment and first enforcement
/// fall together, and every flow is older than both.
#[test]
fn flows_older_than_the_agent_survive_the_first_enforcement() {
    if !privileged() {
        return;
    }
    let mut world = World::bare();
    let downloads: Vec<Download> = Family::BOTH
        .into_iter()
        .map(|family| Download::start(&world, family, 8_080))
        .collect();
    let mut sessions: Vec<TcpStream> = Family::BOTH
        .into_iter()
        .flat_map(|family| {
            [Place::Peer, Place::Outsider].map(|from| world.connect(from, Place::Host, SSH, family))
        })
        .collect();
    world.manifest("nodes.yaml", palisade::lab::scenario::NODES);
    world.manifest("policy.yaml", DEMO_POLICY);
    world.start_agent();
    world.wait("ingress", "enabled");
    for download in &downloads {
        download.goes_on();
    }
    for session in &mut sessions {
        probe::echo(session, PATIENCE).expect("an ssh-like session goes on");
    }
    world.expect(&demo_rows());
    for download in downloads {
        download.goes_on();
        download.finish();
    }
}

/// The agent was there first: conntrack has seen the flows.
#[test]
fn flows_older_than_the_policy_survive_it() {
    if !privileged() {
        return;
    }
    let mut world = World::new();
    let download = Download::start(&world, Family::V4, 8_080);
    let mut session = world.connect(Place::Peer, Place::Host, SSH, Family::V6);
    world.manifest("policy.yaml", DEMO_POLICY);
    world.wait("ingress", "enabled");
    download.goes_on();
    probe::echo(&mut session, PATIENCE).expect("an ssh-like session goes on");
    download.finish();
}
