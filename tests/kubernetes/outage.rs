//! The server goes away and comes back changed: nothing opens, nothing drops,
//! and in the end the node is as the cluster says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use palisade::datapath::netns;
use palisade::lab::network::{Family, Place};
use palisade::lab::probe::{self, Kind, Seen};
use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::{Cluster, until};
use crate::harness::{ECHO, HTTP, SSH};
use crate::server::programs;

#[test]
fn a_server_that_comes_back_changed_is_followed_again() {
    let Some(programs) = programs() else { return };
    let mut cluster = Cluster::new(programs);
    cluster.create_policy("ssh", "web", &[SSH]);
    cluster.create_policy("http", "web", &[HTTP]);
    cluster.wait_open(&[SSH, HTTP]);
    cluster.world.wait("ingress", "enabled");
    let traffic = Traffic::start(&cluster);
    let mut held = cluster
        .world
        .connect(Place::Outsider, Place::Host, SSH, Family::V4);

    cluster.server.kill();
    until("the loss is told", || {
        let line = cluster.kind("CiliumClusterwideNetworkPolicy");
        (line["in_sync"] == false).then_some(())
    });
    let open = [SSH, HTTP];
    assert!(cluster.is_open(&open), "what was told stays in force");

    // An agent that starts without a server enforces what it knew.
    cluster.world.agent().end(Signal::KILL).expect("it ends");
    cluster.world.launch_agent();
    until("the agent answers", || {
        cluster.world.agent().host_endpoint().ok()
    });
    assert!(cluster.is_open(&open), "the journal is in force");

    // Where the agent cannot see it, one policy goes and another comes, and the
    // versions that the agent knows are forgotten.
    cluster.server.restart_inside(&cluster.world.sandbox);
    cluster.create_policy("again", "web", &[SSH]);
    cluster.delete_policy("http");
    cluster.delete_policy("ssh");
    cluster.server.compact();
    cluster.server.kill();
    assert!(
        cluster.is_open(&open),
        "nothing changes while nothing is heard"
    );
    echoes(&mut held);

    // The server that comes back also knows the agent by another token.
    cluster.server.rotate_token("second-token-of-the-agent");
    cluster.server.restart(&cluster.world.sandbox);
    cluster.wait_open(&[SSH]);
    until("all is in sync again", || {
        let line = cluster.kind("CiliumClusterwideNetworkPolicy");
        (line["in_sync"] == true).then_some(())
    });
    // Through all of it: what both the old and the new policies allow passed, and
    // what neither does was dropped, each single try.
    traffic.expect_steady();
}

#[test]
fn an_expired_version_and_a_rotated_token_are_no_outage() {
    let Some(programs) = programs() else { return };
    let mut cluster = Cluster::new(programs);
    cluster.create_policy("ssh", "web", &[SSH]);
    cluster.wait_open(&[SSH]);

    // While the agent hears nothing, the version that it knows is compacted
    // away: the first thing that the server then says is 410.
    let agent = cluster.world.agent().pid().expect("an agent");
    let agent = Pid::from_raw(agent.try_into().expect("a pid")).expect("a pid");
    kill_process(agent, Signal::STOP).expect("it stops");
    let traffic = Traffic::start(&cluster);
    cluster.server.kill();
    cluster.server.restart_inside(&cluster.world.sandbox);
    cluster.create_policy("http", "web", &[HTTP]);
    cluster.server.compact();
    cluster.server.kill();
    cluster.server.rotate_token("second-token-of-the-agent");
    cluster.server.restart(&cluster.world.sandbox);
    kill_process(agent, Signal::CONT).expect("it goes on");
    cluster.wait_open(&[SSH, HTTP]);
    until("every kind is in sync again", || {
        let all = cluster.kinds();
        all.iter().all(|kind| kind["in_sync"] == true).then_some(())
    });
    traffic.expect_steady();
    let metrics = cluster.world.client(&["metrics", "list"]).stdout;
    let metrics = String::from_utf8(metrics).expect("text");
    let expired = metrics.lines().filter(|line| {
        line.contains("source_resyncs_total")
            && line.contains("kind=\"CiliumClusterwideNetworkPolicy\"")
            && line.contains("reason=\"expired\"")
    });
    // Once, by the server's word; what goes wrong is not listed again and again.
    let counts: Vec<&str> = expired
        .filter_map(|line| line.split(' ').next_back())
        .collect();
    assert_eq!(counts, ["1"], "{metrics}");
    cluster.delete_policy("http");
    cluster.wait_open(&[SSH]);
}

/// The outsider tries without a pause: SSH, which is allowed all the time, and
/// datagrams to the echo port, which never are.
pub(crate) struct Traffic {
    is_over: Arc<AtomicBool>,
    running: JoinHandle<[u32; 4]>,
}

impl Traffic {
    pub(crate) fn start(cluster: &Cluster) -> Self {
        let namespace = cluster.world.sandbox.namespace(Place::Outsider.name());
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let running = std::thread::spawn(move || {
            let host = Place::Host.address(Family::V4);
            let mut counts = [0; 4];
            while !over.load(Ordering::Relaxed) {
                let [allowed, denied] = [Kind::Tcp(SSH), Kind::Udp(ECHO)].map(|kind| {
                    let probe = || probe::send(kind, host) == Seen::Passed;
                    netns::run_in(&namespace, probe).expect("a namespace")
                });
                let seen = [allowed, !allowed, denied, !denied];
                for (count, seen) in counts.iter_mut().zip(seen) {
                    *count += u32::from(seen);
                }
            }
            counts
        });
        Self { is_over, running }
    }

    /// Nothing was dropped that is allowed, nothing passed that is not.
    #[track_caller]
    pub(crate) fn expect_steady(self) {
        let [passed, dropped, opened, closed] = self.end();
        assert!(passed > 0 && closed > 0, "{passed} {closed}");
        assert_eq!((dropped, opened), (0, 0), "of {passed} and {closed}");
    }

    /// Nothing was dropped that is allowed; the rest was open at times.
    #[track_caller]
    pub(crate) fn expect_none_dropped(self) {
        let [passed, dropped, _, closed] = self.end();
        assert!(passed > 0 && closed > 0, "{passed} {closed}");
        assert_eq!(dropped, 0, "of {passed}");
    }

    fn end(self) -> [u32; 4] {
        self.is_over.store(true, Ordering::Relaxed);
        self.running.join().expect("it ends")
    }
}

/// A connection from before still works.
fn echoes(stream: &mut std::net::TcpStream) {
    use std::io::{Read as _, Write as _};
    stream.write_all(b"still here").expect("it is written");
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).expect("it comes back");
    assert_eq!(&answer, b"still here");
}
