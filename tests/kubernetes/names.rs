//! Names on the wire of a sandbox: one name, which leads to 10.88.0.9.

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use palisade::datapath::netns;
use palisade::lab::network::{Family, Place};
use palisade::lab::sandbox::Sandbox;

use crate::harness::exe;
use crate::server::NAME;

/// A name server that knows one name; the agent's `/etc/resolv.conf` leads to it.
pub(crate) struct NameServer {
    /// The agent, started where that file is seen.
    pub(crate) program: PathBuf,
    ended: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl NameServer {
    /// On the peer's place of a sandbox.
    pub(crate) fn start(sandbox: &Sandbox) -> Self {
        let address = Place::Peer.address(Family::V4);
        let socket = netns::run_in(&sandbox.namespace(Place::Peer.name()), || {
            UdpSocket::bind((address, 53))
        });
        let socket = socket.expect("a namespace").expect("a socket");
        let wait = Some(Duration::from_millis(100));
        socket.set_read_timeout(wait).expect("a timeout");
        let server = Self {
            program: sandbox.path("agent-with-names"),
            ended: Arc::default(),
            asked: Arc::default(),
        };
        let (ended, asked) = (Arc::clone(&server.ended), Arc::clone(&server.asked));
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while !ended.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut query) else {
                    continue;
                };
                asked.fetch_add(1, Ordering::Relaxed);
                if let Some(answer) = answer(&query[..length]) {
                    let _sent = socket.send_to(&answer, from);
                }
            }
        });
        let resolv_conf = sandbox.path("resolv.conf");
        std::fs::write(&resolv_conf, format!("nameserver {address}\n")).expect("a file");
        let script = format!(
            "#!/bin/sh\nexec unshare --mount sh -c \
             'mount --bind {} /etc/resolv.conf && exec \"$0\" \"$@\"' {} \"$@\"\n",
            resolv_conf.display(),
            exe().display()
        );
        std::fs::write(&server.program, script).expect("a script");
        let runs = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&server.program, runs).expect("a program");
        server
    }

    /// Queries so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// RFC 1035: the query with an answer behind it, an address for `NAME`; of any other
/// type it has none, and no other name exists.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let end = HEADER + query.get(HEADER..)?.iter().position(|octet| *octet == 0)? + 1;
    let question = query.get(HEADER..end + 4)?;
    let wanted: Vec<u8> = NAME
        .split('.')
        .flat_map(|label| [&[u8::try_from(label.len()).unwrap_or(0)], label.as_bytes()].concat())
        .chain([0])
        .collect();
    let known = query.get(HEADER..end)?.eq_ignore_ascii_case(&wanted);
    let is_address = query.get(end..end + 2)? == [0, 1];
    let has = known && is_address;
    let mut answer = query.get(..2)?.to_vec();
    answer.extend([0x81, if known { 0x80 } else { 0x83 }]);
    answer.extend([0, 1, 0, u8::from(has), 0, 0, 0, 0]);
    answer.extend(question);
    if has {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend([10, 88, 0, 9]);
    }
    Some(answer)
}
