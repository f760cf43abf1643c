//! Connections from marked sockets, as hyper wants them: for kube's client, and for
//! whatever else stands on hyper (tonic's `connect_with_connector`). A proxy is
//! reached through it, too: then the proxy is what is on the list.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tower::Service;

use super::ledger::{Marked, Open, User};
use super::resolver;
use crate::limits::{CONTROL_CONNECT, CONTROL_KEEPALIVE};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum MarkedError {
    #[error("`{0}` names no host")]
    NoHost(Uri),
    #[error("{name}: no address: {reason}")]
    NoAddress { name: String, reason: String },
    #[error("{address}: {source}")]
    Connect {
        address: SocketAddr,
        source: io::Error,
    },
}

/// Makes connections from marked sockets; clones share what their names mean.
#[derive(Clone, Debug)]
pub struct MarkedConnector {
    user: Arc<User>,
}

impl MarkedConnector {
    /// What it names is on the list until the last clone goes.
    #[must_use]
    pub fn new(marked: &Arc<Marked>) -> Self {
        Self {
            user: Arc::new(marked.user()),
        }
    }
}

impl Service<Uri> for MarkedConnector {
    type Response = MarkedStream;
    type Error = MarkedError;
    type Future = Pin<Box<dyn Future<Output = Result<MarkedStream, MarkedError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), MarkedError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let user = Arc::clone(&self.user);
        Box::pin(async move { connect(&user, uri).await })
    }
}

async fn connect(user: &User, uri: Uri) -> Result<MarkedStream, MarkedError> {
    let Some(host) = uri.host() else {
        return Err(MarkedError::NoHost(uri));
    };
    let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
        Some("http") => 80,
        Some("socks5") => 1_080,
        _ => 443,
    });
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = addresses(user, host, port).await?;
    let mut failure = MarkedError::NoAddress {
        name: host.to_owned(),
        reason: "the name exists and has none".to_owned(),
    };
    for address in addresses {
        match connect_to(&user.marked, address).await {
            Ok(stream) => return Ok(stream),
            Err(source) => failure = MarkedError::Connect { address, source },
        }
    }
    Err(failure)
}

/// What the host means now; if nobody can tell, what it meant last.
async fn addresses(user: &User, host: &str, port: u16) -> Result<Vec<SocketAddr>, MarkedError> {
    let name = format!("{host}:{port}");
    let found = match host.parse::<IpAddr>() {
        Ok(address) => Ok(vec![address]),
        Err(_) => resolver::lookup(&user.marked, host).await,
    };
    match found {
        Ok(found) => {
            let found: Vec<_> = found
                .into_iter()
                .map(|address| SocketAddr::new(address, port))
                .collect();
            user.means(&name, &BTreeSet::from_iter(found.iter().copied()));
            Ok(found)
        }
        Err(reason) => {
            let meant: Vec<_> = user.meant(&name).into_iter().collect();
            if meant.is_empty() {
                let name = host.to_owned();
                return Err(MarkedError::NoAddress { name, reason });
            }
            tracing::warn!("{host}: {reason}; trying the addresses that it had");
            Ok(meant)
        }
    }
}

async fn connect_to(marked: &Arc<Marked>, address: SocketAddr) -> io::Result<MarkedStream> {
    let open = Open::new(marked, address);
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    marked.put_on(SockRef::from(&socket));
    // Should conntrack lose the flow, the next of these brings it back: what comes in
    // carries no mark. It also tells of a peer that is gone.
    let keepalive = TcpKeepalive::new()
        .with_time(CONTROL_KEEPALIVE)
        .with_interval(CONTROL_KEEPALIVE);
    SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
    socket.set_nodelay(true)?;
    let stream = timeout(CONTROL_CONNECT, socket.connect(address))
        .await
        .map_err(io::Error::from)??;
    Ok(MarkedStream {
        stream: TokioIo::new(stream),
        _open: open,
    })
}

/// A connection; its address is on the list while it lives.
#[derive(Debug)]
pub struct MarkedStream {
    stream: TokioIo<TcpStream>,
    _open: Open,
}

impl Connection for MarkedStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for MarkedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for MarkedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }
}
