//! Streams of TCP: numbered connections one after another, each a flow of its
//! own, and connections that must stay alive.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use palisade::datapath::netns;

use crate::harness::{PATIENCE, World};

/// What became of the connections of a stream.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Opened {
    pub(crate) tried: u64,
    /// Opened, and the number came back.
    pub(crate) answered: u64,
    /// Opened, and then no answer.
    pub(crate) cut: u64,
    /// SYNs that the kernel may have sent again, as the time that was taken
    /// tells: the first one after a second, whatever the machine does.
    pub(crate) repeats_max: u64,
}

/// The first retransmission of a SYN comes after a second (`TCP_TIMEOUT_INIT`);
/// a little earlier by the clock of who began to count later.
const FIRST_REPEAT: Duration = Duration::from_millis(900);

/// A client that opens connections, running.
#[derive(Debug)]
pub(crate) struct Connections {
    stop: Arc<AtomicBool>,
    client: JoinHandle<Opened>,
}

impl Connections {
    /// Opens connections from a namespace to an echo server until stopped, each
    /// given up after `patience`.
    pub(crate) fn start(
        world: &World,
        from: &str,
        to: SocketAddr,
        patience: Duration,
        pace: Duration,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let namespace = world.sandbox.namespace(from);
        let stopped = Arc::clone(&stop);
        let client = spawn(move || {
            netns::enter(&namespace).expect("a namespace");
            let mut opened = Opened::default();
            while !stopped.load(Ordering::SeqCst) {
                opened.one_more(to, patience);
                sleep(pace);
            }
            opened
        });
        Self { stop, client }
    }

    pub(crate) fn end_sending(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    pub(crate) fn finish(self) -> Opened {
        self.end_sending();
        self.client.join().expect("the client")
    }
}

impl Opened {
    fn one_more(&mut self, to: SocketAddr, patience: Duration) {
        let number = self.tried.to_be_bytes();
        self.tried += 1;
        let started = Instant::now();
        let connection = TcpStream::connect_timeout(&to, patience);
        let took = started.elapsed();
        if took > FIRST_REPEAT {
            self.repeats_max += 1 + took.as_secs();
        }
        let Ok(mut connection) = connection else {
            return;
        };
        match exchange(&mut connection, &number) {
            Ok(()) => self.answered += 1,
            Err(_) => self.cut += 1,
        }
    }
}

fn exchange(connection: &mut TcpStream, number: &[u8; 8]) -> std::io::Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(number)?;
    let mut answer = [0; 8];
    connection.read_exact(&mut answer)?;
    if answer != *number {
        return Err(std::io::Error::other("the echo of another number"));
    }
    Ok(())
}

/// What a long connection lived to see.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) answered: u64,
    pub(crate) longest_wait: Duration,
    /// Why it ended before it was told to.
    pub(crate) death: Option<String>,
}

/// One connection over which numbers go to and fro all the time.
#[derive(Debug)]
pub(crate) struct LongConnection {
    stop: Arc<AtomicBool>,
    client: JoinHandle<Life>,
}

impl LongConnection {
    pub(crate) fn start(mut connection: TcpStream, pace: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let client = spawn(move || {
            let mut life = Life {
                answered: 0,
                longest_wait: Duration::ZERO,
                death: None,
            };
            while !stopped.load(Ordering::SeqCst) {
                let started = Instant::now();
                if let Err(error) = exchange(&mut connection, &life.answered.to_be_bytes()) {
                    life.death = Some(error.to_string());
                    return life;
                }
                life.longest_wait = life.longest_wait.max(started.elapsed());
                life.answered += 1;
                sleep(pace);
            }
            life
        });
        Self { stop, client }
    }

    pub(crate) fn end_sending(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    pub(crate) fn finish(self) -> Life {
        self.end_sending();
        self.client.join().expect("the client")
    }
}
