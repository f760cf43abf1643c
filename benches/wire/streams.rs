//! The loads of real TCP sockets: both ends on the one CPU, so that the CPU
//! time of both threads holds all work.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use palisade::datapath::netns;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::cpu::{Cpu, Done, thread_ns};
use crate::net::{HOST, Wire};
use crate::settings::TCP_PORTS;

/// CPU time of the client's end of one turn.
const CLIENT_NS: u64 = 25_000_000;
/// Nothing takes longer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const CHUNK: usize = 64 << 10;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Stream {
    /// One byte there, one back, over one connection.
    RequestResponse,
    /// A connection opened, and closed by both.
    Connects,
    /// As many bytes as go through one connection.
    Bulk,
}

/// One end: its units, counted by the client only.
type End<'a> = Box<dyn FnOnce() -> Result<(f64, u64)> + Send + 'a>;

/// Runs one load over a wire.
pub(crate) fn run(wire: &Wire, cpu: &Cpu, stream: Stream) -> Result<Done> {
    let address = (HOST, TCP_PORTS[0]);
    let listener = netns::run_in(&wire.host(), || TcpListener::bind(address))??;
    // Of what it accepts, too: where one end fails, the other one does not wait.
    set_socket_timeout(&listener, Timeout::Recv, Some(PATIENCE))?;
    let (host, peer) = (wire.host(), wire.peer());
    // Set by the client before it opens the last one.
    let connections = AtomicU64::new(u64::MAX);
    let softirqs = cpu.softirq_ns()?;
    let ends: [(&str, End<'_>); 2] = [
        (
            &host,
            Box::new(|| pinned(cpu, || serve(stream, &listener, &connections))),
        ),
        (
            &peer,
            Box::new(|| pinned(cpu, || ask(stream, &connections))),
        ),
    ];
    let (mut units, mut cpu_ns) = (0.0, 0);
    for end in netns::run_all(ends) {
        let (counted, ns) = end??;
        units += counted;
        cpu_ns += ns;
    }
    cpu_ns += cpu.softirq_ns()? - softirqs;
    Ok(Done { units, cpu_ns })
}

fn pinned(cpu: &Cpu, end: impl FnOnce() -> Result<f64>) -> Result<(f64, u64)> {
    cpu.pin();
    let start = thread_ns();
    let units = end()?;
    Ok((units, thread_ns() - start))
}

fn serve(stream: Stream, listener: &TcpListener, connections: &AtomicU64) -> Result<f64> {
    let accept = || {
        listener
            .accept()
            .context("accept")
            .map(|(socket, _)| socket)
    };
    match stream {
        Stream::RequestResponse => {
            let mut socket = accept()?;
            socket.set_nodelay(true)?;
            let mut byte = [0];
            while socket.read(&mut byte)? == 1 {
                socket.write_all(&byte)?;
            }
        }
        Stream::Connects => {
            let mut accepted = 0;
            while accepted < connections.load(Ordering::SeqCst) {
                drop(accept()?);
                accepted += 1;
            }
        }
        Stream::Bulk => {
            let mut socket = accept()?;
            let mut chunk = vec![0; CHUNK];
            while socket.read(&mut chunk)? > 0 {}
        }
    }
    Ok(0.0)
}

fn ask(stream: Stream, connections: &AtomicU64) -> Result<f64> {
    let connect = || {
        let socket = TcpStream::connect((HOST, TCP_PORTS[0])).context("connect")?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        anyhow::Ok(socket)
    };
    let start = thread_ns();
    let goes_on = || thread_ns() - start < CLIENT_NS;
    let mut units = 0.0;
    match stream {
        Stream::RequestResponse => {
            let mut socket = connect()?;
            socket.set_nodelay(true)?;
            let mut byte = [0];
            while goes_on() {
                socket.write_all(&byte)?;
                socket.read_exact(&mut byte)?;
                units += 1.0;
            }
        }
        Stream::Connects => {
            let (mut opened, mut last) = (0, false);
            while !last {
                last = !goes_on();
                opened += 1;
                if last {
                    connections.store(opened, Ordering::SeqCst);
                }
                // The server closes first.
                let rest = connect()?.read(&mut [0])?;
                ensure!(rest == 0, "the server says something");
            }
            units = opened as f64;
        }
        Stream::Bulk => {
            let mut socket = connect()?;
            let chunk = vec![0; CHUNK];
            while goes_on() {
                socket.write_all(&chunk)?;
                units += CHUNK as f64 / 1_000.0;
            }
        }
    }
    Ok(units)
}
