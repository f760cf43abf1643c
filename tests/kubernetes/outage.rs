//! The server goes away and comes back changed: nothing opens, nothing drops,
//! and in the end the node is as the cluster says.

use palisade::lab::network::{Family, Place};
use rustix::process::Signal;

use crate::cluster::{Cluster, until};
use crate::harness::{HTTP, SSH};
use crate::server::programs;

#[test]
fn a_server_that_comes_back_changed_is_followed_again() {
    let Some(programs) = programs() else { return };
    let mut cluster = Cluster::new(programs);
    cluster.create_policy("ssh", "web", &[SSH]);
    cluster.wait_open(&[SSH]);
    let mut held = cluster
        .world
        .connect(Place::Outsider, Place::Host, SSH, Family::V4);

    cluster.server.kill();
    until("the loss is told", || {
        let line = cluster.kind("CiliumClusterwideNetworkPolicy");
        (line["in_sync"] == false).then_some(())
    });
    assert!(cluster.is_open(&[SSH]), "what was told stays in force");

    // An agent that starts without a server enforces what it knew.
    cluster.world.agent().end(Signal::KILL).expect("it ends");
    cluster.world.launch_agent();
    until("the agent answers", || {
        cluster.world.agent().host_endpoint().ok()
    });
    assert!(cluster.is_open(&[SSH]), "the journal is in force");

    // Where the agent cannot see it, one policy goes and another comes, and the
    // versions that the agent knows are forgotten.
    cluster.server.restart_inside(&cluster.world.sandbox);
    cluster.create_policy("http", "web", &[HTTP]);
    cluster.delete_policy("ssh");
    cluster.server.compact();
    cluster.server.kill();
    assert!(
        cluster.is_open(&[SSH]),
        "nothing opens while nothing is heard"
    );
    echoes(&mut held);

    // The server that comes back also knows the agent by another token.
    cluster.server.rotate_token("second-token-of-the-agent");
    cluster.server.restart(&cluster.world.sandbox);
    cluster.wait_open(&[HTTP]);
    until("all is in sync again", || {
        let line = cluster.kind("CiliumClusterwideNetworkPolicy");
        (line["in_sync"] == true).then_some(())
    });
}

#[test]
fn an_expired_version_and_a_rotated_token_are_no_outage() {
    let Some(programs) = programs() else { return };
    let mut cluster = Cluster::new(programs);
    cluster.create_policy("ssh", "web", &[SSH]);
    cluster.wait_open(&[SSH]);

    // The agent runs on; the version that it knows is compacted away.
    cluster.server.kill();
    cluster.server.restart_inside(&cluster.world.sandbox);
    cluster.create_policy("http", "web", &[HTTP]);
    cluster.server.compact();
    cluster.server.kill();
    cluster.server.rotate_token("second-token-of-the-agent");
    cluster.server.restart(&cluster.world.sandbox);
    cluster.wait_open(&[SSH, HTTP]);
    let metrics = cluster.world.client(&["metrics", "list"]).stdout;
    let metrics = String::from_utf8(metrics).expect("text");
    assert!(metrics.contains("source_resyncs_total"), "{metrics}");
    cluster.delete_policy("http");
    cluster.wait_open(&[SSH]);
}

/// A connection from before still works.
fn echoes(stream: &mut std::net::TcpStream) {
    use std::io::{Read as _, Write as _};
    stream.write_all(b"still here").expect("it is written");
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).expect("it comes back");
    assert_eq!(&answer, b"still here");
}
