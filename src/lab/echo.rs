//! Servers of the lab: every byte and datagram goes back to where it came from.
//!
//! They run in a process of their own, so that they outlive the lab when it is
//! kept (`palisade lab --echo`, started by the lab itself).

use std::net::Ipv6Addr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::sandbox::{Process, Sandbox};
use crate::datapath::netns;

/// Starts the servers in a namespace of the sandbox.
pub fn start(
    sandbox: &Sandbox,
    exe: &Path,
    short: &str,
    tcp: &[u16],
    udp: &[u16],
) -> Result<Process> {
    let namespace = sandbox.namespace(short);
    let mut command = Command::new(exe);
    command.args(["lab", "--echo", &namespace]);
    for port in tcp {
        command.args(["--tcp", &port.to_string()]);
    }
    for port in udp {
        command.args(["--udp", &port.to_string()]);
    }
    // A group of its own: Ctrl-C is for the lab, which ends it when it must.
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let child = command.spawn().context("cannot start the echo servers")?;
    let mut process = sandbox.adopt(child)?;
    // One line says that all of them listen.
    let mut line = [0];
    let pipe = process.child().and_then(|child| child.stdout.as_mut());
    let pipe = pipe.context("the pipe was asked for")?;
    std::io::Read::read_exact(pipe, &mut line).context("the echo servers did not start")?;
    Ok(process)
}

/// The body of the process: serves until it is killed.
pub fn serve(namespace: &str, tcp: &[u16], udp: &[u16]) -> Result<()> {
    netns::enter(namespace).with_context(|| format!("namespace {namespace}"))?;
    // One thread: it stands in the namespace, its sockets do too.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for port in tcp {
            // Dual-stack: an IPv4 client arrives as a mapped address.
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port)).await?;
            tokio::spawn(accept(listener));
        }
        for port in udp {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, *port)).await?;
            tokio::spawn(reflect(socket));
        }
        println!();
        std::future::pending::<Result<()>>().await
    })
}

async fn accept(listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(mirror(stream))),
            // Out of files, or the client is gone: the next one may do better.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn mirror(mut stream: TcpStream) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn reflect(socket: UdpSocket) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        if let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            // A lost answer is what datagrams are allowed to be.
            drop(socket.send_to(&buffer[..length], from).await);
        }
    }
}
