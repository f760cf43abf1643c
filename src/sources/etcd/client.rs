//! Calls of etcd's API: each answered, refused, or given up after a while.

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use hyper::http::uri::PathAndQuery;
use metrics::histogram;
use prost::Message;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::wire::{
    AuthenticateRequest, AuthenticateResponse, CompactionRequest, LeaseGrantRequest,
    LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, RangeRequest, RangeResponse,
    TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest, WatchResponse, WriteResponse,
};
use crate::catalogue::KVSTORE_OPERATION;
use crate::clock::{Clock as _, SystemClock};
use crate::limits::{ETCD_ANSWER, ETCD_MESSAGE_BYTES_MAX};

/// Why a call failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The revision that was asked for is compacted away.
    Compacted,
    /// The server does not know who we are, or not any more.
    Unauthenticated(String),
    /// The server's own answer.
    Refused(String),
    /// No answer.
    Unreachable(String),
    /// Nobody listens any more.
    Closed,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Compacted => f.write_str("the revision is compacted away"),
            Self::Unauthenticated(message) | Self::Refused(message) => {
                write!(f, "the server answers: {message}")
            }
            Self::Unreachable(message) => f.write_str(message),
            Self::Closed => f.write_str("the agent is stopping"),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::OutOfRange if message.contains("compacted") => Self::Compacted,
            Code::Unauthenticated => Self::Unauthenticated(message),
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded => {
                let cause = std::error::Error::source(&status).map(crate::sources::remote::chain);
                Self::Unreachable(match cause {
                    Some(cause) if !message.contains(&cause) => format!("{message}: {cause}"),
                    _ => message,
                })
            }
            code => Self::Refused(format!("{message} ({code:?})")),
        }
    }
}

/// A connection to one server.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
}

impl Client {
    /// Over a channel, without a user.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        let token = None;
        Self { channel, token }
    }

    /// Proves who we are; what follows carries the token.
    pub(super) async fn authenticate(&mut self, name: &str, password: &str) -> Result<(), Failure> {
        let (name, password) = (name.to_owned(), password.to_owned());
        let request = AuthenticateRequest { name, password };
        let answer: AuthenticateResponse =
            self.ask("/etcdserverpb.Auth/Authenticate", request).await?;
        let token = answer.token.parse();
        self.token = Some(token.map_err(|_| Failure::Refused("a token of odd bytes".to_owned()))?);
        Ok(())
    }

    /// Reads keys.
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Failure> {
        self.ask("/etcdserverpb.KV/Range", request).await
    }

    /// Compares, then writes and reads, all at once.
    pub async fn transact(&self, request: TxnRequest) -> Result<TxnResponse, Failure> {
        self.ask("/etcdserverpb.KV/Txn", request).await
    }

    /// Forgets what was before a revision.
    pub async fn compact(&self, revision: i64) -> Result<(), Failure> {
        let request = CompactionRequest { revision };
        let _: WriteResponse = self.ask("/etcdserverpb.KV/Compact", request).await?;
        Ok(())
    }

    /// A new lease.
    pub async fn grant(&self, ttl: Duration) -> Result<i64, Failure> {
        let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let request = LeaseGrantRequest { ttl };
        let answer: LeaseGrantResponse =
            self.ask("/etcdserverpb.Lease/LeaseGrant", request).await?;
        Ok(answer.id)
    }

    /// Renews a lease; false: it is there no more.
    pub async fn keep_alive(&self, id: i64) -> Result<bool, Failure> {
        let requests = stream::iter([LeaseKeepAliveRequest { id }]);
        let call = async {
            let mut answers: Streaming<LeaseKeepAliveResponse> = self
                .stream("/etcdserverpb.Lease/LeaseKeepAlive", requests)
                .await?;
            Ok(answers.message().await?)
        };
        let answer = within("/etcdserverpb.Lease/LeaseKeepAlive", call).await?;
        Ok(answer.is_some_and(|answer| answer.ttl > 0))
    }

    /// Every change of a range from a revision on.
    pub(super) async fn watch(
        &self,
        create: WatchCreateRequest,
    ) -> Result<Streaming<WatchResponse>, Failure> {
        let create = Some(create);
        // The server ends the watch when the requests end.
        let requests = stream::iter([WatchRequest { create }]).chain(stream::pending());
        let path = "/etcdserverpb.Watch/Watch";
        within(path, self.stream(path, requests)).await
    }

    async fn ask<M, A>(&self, path: &'static str, message: M) -> Result<A, Failure>
    where
        M: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        let call = async {
            let mut grpc = self.grpc().await?;
            let codec = ProstCodec::<M, A>::default();
            let request = self.request(message);
            let answer = grpc.unary(request, PathAndQuery::from_static(path), codec);
            Ok(answer.await?.into_inner())
        };
        within(path, call).await
    }

    async fn stream<M, A>(
        &self,
        path: &'static str,
        messages: impl futures_util::Stream<Item = M> + Send + 'static,
    ) -> Result<Streaming<A>, Failure>
    where
        M: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.grpc().await?;
        let codec = ProstCodec::<M, A>::default();
        let mut request = self.request(messages);
        // A member without a leader ends the stream instead of being silent.
        let leader = MetadataValue::from_static("true");
        request.metadata_mut().insert("hasleader", leader);
        let answer = grpc.streaming(request, PathAndQuery::from_static(path), codec);
        Ok(answer.await?.into_inner())
    }

    async fn grpc(&self) -> Result<Grpc<Channel>, Failure> {
        let grpc = Grpc::new(self.channel.clone());
        let mut grpc = grpc.max_decoding_message_size(ETCD_MESSAGE_BYTES_MAX);
        let ready = grpc.ready().await;
        ready.map_err(|error| Failure::Unreachable(crate::sources::remote::chain(&error)))?;
        Ok(grpc)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }
}

/// The answer to a call, or a failure where none comes.
async fn within<T>(
    path: &'static str,
    call: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let clock = SystemClock::default();
    let start = clock.now();
    let answer = match timeout(ETCD_ANSWER, call).await {
        Ok(answer) => answer,
        Err(_elapsed) => {
            let seconds = ETCD_ANSWER.as_secs();
            Err(Failure::Unreachable(format!(
                "no answer within {seconds} s"
            )))
        }
    };
    let action = path.rsplit('/').next().unwrap_or_default();
    let outcome = if answer.is_ok() { "success" } else { "fail" };
    histogram!(KVSTORE_OPERATION, "action" => action, "outcome" => outcome)
        .record(clock.now().since(start).as_secs_f64());
    answer
}
