//! etcd's messages (API v3), as far as they are used: names and numbers as in
//! `rpc.proto` and `kv.proto`, written by hand so that a build needs no protoc.

use prost::{Enumeration, Message, Oneof};

/// What every answer begins with.
#[derive(Clone, PartialEq, Message)]
pub struct ResponseHeader {
    #[prost(uint64, tag = "1")]
    pub cluster_id: u64,
    #[prost(int64, tag = "3")]
    pub revision: i64,
}

/// A key with its value.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(int64, tag = "2")]
    pub create_revision: i64,
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    #[prost(bytes = "vec", tag = "5")]
    pub value: Vec<u8>,
    #[prost(int64, tag = "6")]
    pub lease: i64,
}

/// Reads keys from `key` up to `range_end`.
#[derive(Clone, PartialEq, Message)]
pub struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub limit: i64,
    #[prost(int64, tag = "4")]
    pub revision: i64,
    #[prost(bool, tag = "8")]
    pub keys_only: bool,
    #[prost(int64, tag = "10")]
    pub min_mod_revision: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    #[prost(bool, tag = "3")]
    pub more: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub lease: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct DeleteRangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
}

/// The answer to a write, of which only its arrival matters.
#[derive(Clone, PartialEq, Message)]
pub struct WriteResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// One operation of a transaction.
#[derive(Clone, PartialEq, Message)]
pub struct RequestOp {
    #[prost(oneof = "Request", tags = "1, 2, 3")]
    pub request: Option<Request>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Request {
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    #[prost(message, tag = "2")]
    Put(PutRequest),
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeRequest),
}

#[derive(Clone, PartialEq, Message)]
pub struct ResponseOp {
    #[prost(oneof = "Response", tags = "1, 2, 3")]
    pub response: Option<Response>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Response {
    #[prost(message, tag = "1")]
    Range(RangeResponse),
    #[prost(message, tag = "2")]
    Put(WriteResponse),
    #[prost(message, tag = "3")]
    DeleteRange(WriteResponse),
}

/// What a comparison looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Enumeration)]
#[repr(i32)]
pub enum CompareTarget {
    Version = 0,
    Create = 1,
    Mod = 2,
    Value = 3,
    Lease = 4,
}

/// Holds if each key of the range is as said; an empty range is as a key of
/// revision 0, and has no value.
#[derive(Clone, PartialEq, Message)]
pub struct Compare {
    /// 0: equal, 2: less.
    #[prost(int32, tag = "1")]
    pub result: i32,
    #[prost(enumeration = "CompareTarget", tag = "2")]
    pub target: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    #[prost(oneof = "Compared", tags = "5, 6, 7, 8")]
    pub with: Option<Compared>,
    #[prost(bytes = "vec", tag = "64")]
    pub range_end: Vec<u8>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Compared {
    #[prost(int64, tag = "5")]
    CreateRevision(i64),
    #[prost(int64, tag = "6")]
    ModRevision(i64),
    #[prost(bytes = "vec", tag = "7")]
    Value(Vec<u8>),
    #[prost(int64, tag = "8")]
    Lease(i64),
}

/// All of `success` if every comparison holds, else all of `failure`.
#[derive(Clone, PartialEq, Message)]
pub struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<RequestOp>,
    #[prost(message, repeated, tag = "3")]
    pub failure: Vec<RequestOp>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TxnResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    pub responses: Vec<ResponseOp>,
}

#[derive(Clone, PartialEq, Message)]
pub struct CompactionRequest {
    #[prost(int64, tag = "1")]
    pub revision: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    pub create: Option<WatchCreateRequest>,
}

#[derive(Clone, PartialEq, Message)]
pub struct WatchCreateRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub start_revision: i64,
    /// Asks for an empty answer now and then: everything before it was told.
    #[prost(bool, tag = "4")]
    pub progress_notify: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct WatchResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(bool, tag = "3")]
    pub created: bool,
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    /// Of a watch that began too early: the oldest revision that is left.
    #[prost(int64, tag = "5")]
    pub compact_revision: i64,
    #[prost(string, tag = "6")]
    pub cancel_reason: String,
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// 0: put, 1: delete.
    #[prost(int32, tag = "1")]
    pub r#type: i32,
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
}

/// Of [`Event::type`]: the key is gone.
pub const DELETE: i32 = 1;

#[derive(Clone, PartialEq, Message)]
pub struct LeaseGrantRequest {
    #[prost(int64, tag = "1")]
    pub ttl: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct LeaseGrantResponse {
    #[prost(int64, tag = "2")]
    pub id: i64,
    #[prost(int64, tag = "3")]
    pub ttl: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct LeaseKeepAliveRequest {
    #[prost(int64, tag = "1")]
    pub id: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct LeaseKeepAliveResponse {
    /// 0: there is no such lease any more.
    #[prost(int64, tag = "3")]
    pub ttl: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct AuthenticateRequest {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub password: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct AuthenticateResponse {
    #[prost(string, tag = "2")]
    pub token: String,
}

impl RangeRequest {
    /// Everything under a prefix.
    #[must_use]
    pub fn prefix(prefix: &str) -> Self {
        Self {
            key: prefix.into(),
            range_end: end_of(prefix),
            ..Self::default()
        }
    }
    /// One key.
    #[must_use]
    pub fn one(key: &str) -> Self {
        Self {
            key: key.into(),
            ..Self::default()
        }
    }
}

impl Compare {
    /// Nothing is there under the prefix.
    #[must_use]
    pub fn nothing_under(prefix: &str) -> Self {
        Self {
            range_end: end_of(prefix),
            ..Self::absent(prefix)
        }
    }
    /// Nothing under the prefix is newer than a revision.
    #[must_use]
    pub fn nothing_newer(prefix: &str, revision: i64) -> Self {
        Self {
            result: 2,
            range_end: end_of(prefix),
            ..Self::unchanged(prefix, revision + 1)
        }
    }
    /// The key is not there.
    #[must_use]
    pub fn absent(key: &str) -> Self {
        Self {
            target: CompareTarget::Create.into(),
            key: key.into(),
            with: Some(Compared::CreateRevision(0)),
            ..Self::default()
        }
    }
    /// The key has not changed since; 0: it is not there.
    #[must_use]
    pub fn unchanged(key: &str, mod_revision: i64) -> Self {
        Self {
            target: CompareTarget::Mod.into(),
            key: key.into(),
            with: Some(Compared::ModRevision(mod_revision)),
            ..Self::default()
        }
    }
    /// The key is there, and hangs on this lease.
    #[must_use]
    pub fn lease(key: &str, lease: i64) -> Self {
        Self {
            target: CompareTarget::Lease.into(),
            key: key.into(),
            with: Some(Compared::Lease(lease)),
            ..Self::default()
        }
    }
    /// The key is there with this value.
    #[must_use]
    pub fn value(key: &str, value: impl Into<Vec<u8>>) -> Self {
        Self {
            target: CompareTarget::Value.into(),
            key: key.into(),
            with: Some(Compared::Value(value.into())),
            ..Self::default()
        }
    }
}

impl RequestOp {
    /// A write; lease 0: for ever.
    #[must_use]
    pub fn put(key: &str, value: impl Into<Vec<u8>>, lease: i64) -> Self {
        let (key, value) = (key.into(), value.into());
        let put = PutRequest { key, value, lease };
        Self {
            request: Some(Request::Put(put)),
        }
    }
    /// A read.
    #[must_use]
    pub fn range(range: RangeRequest) -> Self {
        Self {
            request: Some(Request::Range(range)),
        }
    }
    /// Removes one key.
    #[must_use]
    pub fn delete(key: &str) -> Self {
        let (key, range_end) = (key.into(), Vec::new());
        let delete = DeleteRangeRequest { key, range_end };
        Self {
            request: Some(Request::DeleteRange(delete)),
        }
    }
}

impl TxnResponse {
    /// What the reads of the transaction found, in their order.
    pub fn ranges(self) -> impl Iterator<Item = RangeResponse> {
        self.responses
            .into_iter()
            .filter_map(|op| match op.response {
                Some(Response::Range(range)) => Some(range),
                Some(Response::Put(_) | Response::DeleteRange(_)) | None => None,
            })
    }
}

/// Where the keys with a prefix end; no prefix of ours ends in 0xff.
#[must_use]
pub fn end_of(prefix: &str) -> Vec<u8> {
    let mut end: Vec<u8> = prefix.into();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}
