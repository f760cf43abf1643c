//! Names, by `/etc/hosts` and the name servers of `/etc/resolv.conf`, asked from
//! marked sockets. Both files are read for each lookup: connections are rare.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::Resolver;
use hickory_resolver::config::{
    LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::runtime::{
    RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime,
};
use hickory_resolver::system_conf::parse_resolv_conf;
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::ledger::Marked;
use crate::limits::{CONTROL_NAME_ANSWER, CONTROL_NAME_CONNECT};

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The servers behind systemd-resolved's stub: what the stub itself asks carries no
/// mark, so they are asked directly.
const UPLINKS: &str = "/run/systemd/resolve/resolv.conf";

const PORT: u16 = 53;

/// The addresses of a name.
pub(super) async fn lookup(marked: &Arc<Marked>, name: &str) -> Result<Vec<IpAddr>, String> {
    let (config, options) = configuration(&read(RESOLV_CONF)?, read(UPLINKS).ok())?;
    let servers = config.name_servers().iter();
    let servers: BTreeSet<_> = servers
        .map(|server| SocketAddr::new(server.ip, PORT))
        .filter(|server| !server.ip().is_loopback())
        .collect();
    marked.ask(servers);
    let runtime = MarkedRuntime {
        tokio: TokioRuntimeProvider::default(),
        marked: Arc::clone(marked),
    };
    let resolver = Resolver::builder_with_config(config, runtime)
        .with_options(options)
        .build()
        .map_err(|error| error.to_string())?;
    let found = resolver.lookup_ip(name).await;
    found
        .map(|found| found.iter().collect())
        .map_err(|error| error.to_string())
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{path}: {error}"))
}

/// What the two files say together.
fn configuration(
    resolv_conf: &[u8],
    uplinks: Option<Vec<u8>>,
) -> Result<(ResolverConfig, ResolverOpts), String> {
    let parse = |bytes: &[u8]| parse_resolv_conf(bytes);
    let (config, mut options) =
        parse(resolv_conf).map_err(|error| format!("{RESOLV_CONF}: {error}"))?;
    let mut servers: Vec<NameServerConfig> = config.name_servers().to_vec();
    if servers.iter().all(|server| server.ip.is_loopback())
        && let Some((behind, _)) = uplinks.and_then(|bytes| parse(&bytes).ok())
    {
        servers.splice(0..0, behind.name_servers().iter().cloned());
    }
    let domain = config.domain().cloned();
    let config = ResolverConfig::from_parts(domain, config.search().to_vec(), servers);
    options.timeout = options.timeout.min(CONTROL_NAME_ANSWER);
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    Ok((config, options))
}

/// Tokio, with the mark on each socket.
#[derive(Clone)]
struct MarkedRuntime {
    tokio: TokioRuntimeProvider,
    marked: Arc<Marked>,
}

type Opening<T> = Pin<Box<dyn Send + Future<Output = io::Result<T>>>>;

impl RuntimeProvider for MarkedRuntime {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> TokioHandle {
        self.tokio.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        wait: Option<Duration>,
    ) -> Opening<Self::Tcp> {
        let marked = Arc::clone(&self.marked);
        Box::pin(async move {
            let socket = if server.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            marked.put_on(SockRef::from(&socket));
            if let Some(local) = local {
                socket.bind(local)?;
            }
            let connecting = socket.connect(server);
            let stream = timeout(wait.unwrap_or(CONTROL_NAME_CONNECT), connecting)
                .await
                .map_err(io::Error::from)??;
            Ok(AsyncIoTokioAsStd(stream))
        })
    }

    fn bind_udp(&self, local: SocketAddr, _server: SocketAddr) -> Opening<UdpSocket> {
        let marked = Arc::clone(&self.marked);
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            marked.put_on(SockRef::from(&socket));
            Ok(socket)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(resolv_conf: &str, uplinks: Option<&str>) -> Vec<String> {
        let uplinks = uplinks.map(|text| text.as_bytes().to_vec());
        let (config, _) = configuration(resolv_conf.as_bytes(), uplinks).expect("a configuration");
        let servers = config.name_servers().iter();
        servers.map(|server| server.ip.to_string()).collect()
    }

    #[test]
    fn servers_stand_in_the_order_of_the_file() {
        let text = "search a.example b.example\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n";
        assert_eq!(servers(text, None), ["192.0.2.1", "2001:db8::1"]);
        let other = Some("nameserver 192.0.2.9");
        assert_eq!(servers(text, other), ["192.0.2.1", "2001:db8::1"]);
        let (config, _) = configuration(text.as_bytes(), None).expect("a configuration");
        assert_eq!(config.search().len(), 2);
    }

    #[test]
    fn behind_a_stub_the_servers_that_it_asks_come_first() {
        let stub = "nameserver 127.0.0.53\noptions edns0\n";
        let uplinks = Some("nameserver 192.0.2.1\nnameserver 192.0.2.2");
        let all = ["192.0.2.1", "192.0.2.2", "127.0.0.53"];
        assert_eq!(servers(stub, uplinks), all);
        assert_eq!(servers(stub, None), ["127.0.0.53"]);
    }

    #[test]
    fn a_slow_server_does_not_use_up_the_time_of_a_connection() {
        let (_, options) =
            configuration(b"nameserver 192.0.2.1\noptions timeout:30", None).expect("one");
        assert_eq!(options.timeout, CONTROL_NAME_ANSWER);
    }
}
