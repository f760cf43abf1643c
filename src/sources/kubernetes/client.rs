//! kube's client on connections of the agent's own: what `Client::try_from` builds,
//! with another connector below.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use hyper::rt::{Read, Write};
use hyper::{Request, Uri};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Builder;
use hyper_util::client::legacy::connect::Connection;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::rt::TokioExecutor;
use kube::Client;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::config::Config;
use percent_encoding::percent_decode_str;
use tower::{BoxError, Service, ServiceBuilder};

use crate::sources::marked::MarkedConnector;
use crate::sources::remote::chain;

/// A client by a configuration.
pub(super) fn client(config: &Config, connector: MarkedConnector) -> Result<Client, String> {
    let Some(proxy) = config.proxy_url.clone() else {
        return over(connector, config);
    };
    match proxy.scheme_str() {
        Some("socks5") => over(SocksV5::new(proxy, connector), config),
        Some("http") => over(tunnel(proxy, connector), config),
        Some("https") => {
            let connector = config.rustls_https_connector_with_connector(connector);
            over(tunnel(proxy, connector.map_err(said)?), config)
        }
        _ => Err(format!("proxy {proxy}: neither http, https nor socks5")),
    }
}

fn said(error: kube::Error) -> String {
    chain(&error)
}

/// A tunnel through an HTTP proxy, with the user that its URL names.
fn tunnel<C>(proxy: Uri, connector: C) -> Tunnel<C> {
    let user = proxy.authority().and_then(|authority| {
        let (user, _) = authority.as_str().split_once('@')?;
        let plain: Vec<u8> = percent_decode_str(user).collect();
        HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(plain))).ok()
    });
    let tunnel = Tunnel::new(proxy, connector);
    match user {
        Some(user) => tunnel.with_auth(user),
        None => tunnel,
    }
}

/// kube's layers over connections that this connector makes.
fn over<C>(connector: C, config: &Config) -> Result<Client, String>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Connection + Read + Write + Send + Unpin + 'static,
    C::Future: Send + 'static,
    C::Error: std::error::Error + Send + Sync + 'static,
{
    let connector = config.rustls_https_connector_with_connector(connector);
    let mut connector = TimeoutConnector::new(connector.map_err(said)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let client = Builder::new(TokioExecutor::new()).build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(said)?)
        .layer(config.extra_headers_layer().map_err(said)?)
        .map_err(BoxError::from)
        .map_request(|request: Request<Body>| request)
        .service(client);
    Ok(ClientBuilder::new(service, &config.default_namespace).build())
}
