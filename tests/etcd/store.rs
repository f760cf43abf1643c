//! A real etcd in a namespace of a sandbox.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use palisade::datapath::netns;
use palisade::lab::sandbox::{Process, Sandbox};
use palisade::sources::etcd::client::{Client, Failure};
use palisade::sources::etcd::wire::{
    DeleteRangeRequest, KeyValue, RangeRequest, Request, RequestOp, TxnRequest, WriteResponse,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_prost::ProstCodec;

use crate::fleet::until;
use crate::harness::privileged;

const PORT: u16 = 2_379;
/// Not where the etcd of an API server listens, which may be beside it.
const PEERS: u16 = 2_479;
/// Where agents find it.
pub(crate) const ADDRESS: &str = "10.88.0.9";

/// Where etcd is, if the tests can run; tells why not.
pub(crate) fn program() -> Option<PathBuf> {
    if !privileged() {
        return None;
    }
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|folder| folder.join("etcd"));
    let found = found.into_iter().find(|etcd| etcd.is_file());
    if found.is_none() {
        let must = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!must, "no etcd: install etcd-server");
        eprintln!("SKIPPED: no etcd; on Debian: apt-get install etcd-server");
    }
    found
}

/// Messages of etcd's API for users with two texts, and the rest of what a role
/// needs.
#[derive(Clone, PartialEq, prost::Message)]
struct Pair {
    #[prost(string, tag = "1")]
    first: String,
    #[prost(string, tag = "2")]
    second: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Grant {
    #[prost(string, tag = "1")]
    role: String,
    #[prost(message, optional, tag = "2")]
    permission: Option<Permission>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Lease {
    #[prost(int64, tag = "1")]
    id: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Permission {
    /// 2: read and write.
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(string, tag = "3")]
    range_end: String,
}

/// A running etcd.
pub(crate) struct Store {
    program: PathBuf,
    dir: PathBuf,
    namespace: String,
    process: Option<Process>,
    /// Whether it speaks TLS and asks for certificates.
    tls: bool,
}

impl Store {
    /// Starts it in a namespace that is on the wire already.
    pub(crate) fn start(sandbox: &Sandbox, program: PathBuf, namespace: &str, tls: bool) -> Self {
        let dir = sandbox.path("etcd");
        fs::create_dir_all(&dir).expect("a directory");
        let mut store = Self {
            program,
            dir,
            namespace: namespace.to_owned(),
            process: None,
            tls,
        };
        if tls {
            store.certificates();
        }
        store.run(sandbox);
        store
    }

    /// What agents are given.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{ADDRESS}:{PORT}")
    }

    pub(crate) fn path(&self, part: &str) -> String {
        self.dir.join(part).to_string_lossy().into_owned()
    }

    /// Starts it (again) with the data that are there.
    pub(crate) fn run(&mut self, sandbox: &Sandbox) {
        let url = self.url();
        let peer = format!("http://127.0.0.1:{PEERS}");
        let mut etcd = Command::new(&self.program);
        etcd.args(["--name", "test", "--data-dir", &self.path("data")])
            .args([
                "--listen-client-urls",
                &url,
                "--advertise-client-urls",
                &url,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("test={peer}")]);
        if self.tls {
            etcd.args(["--cert-file", &self.path("server.crt")])
                .args(["--key-file", &self.path("server.key")])
                .args([
                    "--trusted-ca-file",
                    &self.path("ca.crt"),
                    "--client-cert-auth",
                ]);
        }
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("etcd.log"));
        let log = log.expect("a log");
        etcd.process_group(0).stdin(Stdio::null());
        etcd.stdout(log.try_clone().expect("a log")).stderr(log);
        let child = netns::run_in(&self.namespace, || etcd.spawn()).expect("a namespace");
        let child = child.expect("etcd starts");
        self.process = Some(sandbox.adopt(child).expect("etcd is adopted"));
        until("etcd answers", || self.get("x").is_ok().then_some(()));
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// All that it holds is lost.
    pub(crate) fn wipe(&self) {
        fs::remove_dir_all(self.path("data")).expect("its data");
    }

    /// Keeps a copy of what it holds, while it does not run.
    pub(crate) fn back_up(&self) {
        copy_folder(Path::new(&self.path("data")), Path::new(&self.path("copy")));
    }

    /// What it held then, and nothing that came later; while it does not run.
    pub(crate) fn set_back(&self) {
        self.wipe();
        copy_folder(Path::new(&self.path("copy")), Path::new(&self.path("data")));
    }

    /// What masters and addresses say, all at one moment: numbers with their labels,
    /// addresses with number and labels.
    #[track_caller]
    pub(crate) fn numbers(&self) -> (Vec<KeyValue>, Vec<KeyValue>) {
        let ranges = ["cilium/state/identities/v1/id/", "cilium/state/ip/v1/"];
        let transaction = TxnRequest {
            success: ranges
                .map(|it| RequestOp::range(RangeRequest::prefix(it)))
                .into(),
            ..TxnRequest::default()
        };
        let answer = self.ask(|client| async move { client.transact(transaction).await });
        let mut found = answer
            .expect("etcd answers")
            .ranges()
            .map(|range| range.kvs);
        let mut next = || found.next().unwrap_or_default();
        (next(), next())
    }

    /// Asks it something, as an administrator.
    pub(crate) fn ask<T: Send, F>(
        &self,
        question: impl FnOnce(Client) -> F + Send,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        self.over(|channel| question(Client::new(channel)))
    }

    fn over<T: Send, F>(&self, question: impl FnOnce(Channel) -> F + Send) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut endpoint = Endpoint::from_shared(self.url()).expect("an endpoint");
        if self.tls {
            let read = |name: &str| fs::read(self.path(name)).expect("a certificate");
            let tls = ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(read("ca.crt")))
                .identity(Identity::from_pem(read("admin.crt"), read("admin.key")));
            endpoint = endpoint.tls_config(tls).expect("TLS");
        }
        let endpoint = endpoint.connect_timeout(Duration::from_secs(2));
        let answer = netns::run_in(&self.namespace, || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async {
                let channel = endpoint.connect().await;
                let channel = channel.map_err(|error| Failure::Unreachable(error.to_string()))?;
                question(channel).await
            })
        });
        answer.expect("a namespace")
    }

    pub(crate) fn get(&self, key: &str) -> Result<Option<KeyValue>, Failure> {
        let answer = self.ask(|client| async move { client.range(RangeRequest::one(key)).await });
        Ok(answer?.kvs.pop())
    }

    /// All keys with a prefix.
    #[track_caller]
    pub(crate) fn under(&self, prefix: &str) -> Vec<KeyValue> {
        let answer =
            self.ask(|client| async move { client.range(RangeRequest::prefix(prefix)).await });
        answer.expect("etcd answers").kvs
    }

    #[track_caller]
    pub(crate) fn put(&self, key: &str, value: &str) {
        self.write(RequestOp::put(key, value, 0));
    }

    #[track_caller]
    pub(crate) fn delete(&self, key: &str) {
        self.write(RequestOp::delete(key));
    }

    /// All that agents keep there.
    #[track_caller]
    pub(crate) fn delete_all(&self) {
        let range = DeleteRangeRequest {
            key: "cilium/".into(),
            range_end: "cilium0".into(),
        };
        self.write(RequestOp {
            request: Some(Request::DeleteRange(range)),
        });
    }

    /// Ends a lease, as when its time has run out.
    #[track_caller]
    pub(crate) fn revoke(&self, lease: i64) {
        let message = Lease { id: lease };
        let answer = self.call("Lease", "LeaseRevoke", message);
        answer.unwrap_or_else(|error| panic!("{lease}: {error}"));
    }

    #[track_caller]
    fn write(&self, operation: RequestOp) {
        let transaction = TxnRequest {
            success: vec![operation],
            ..TxnRequest::default()
        };
        let answer = self.ask(|client| async move { client.transact(transaction).await });
        answer.expect("etcd answers");
    }

    /// Lets etcd forget everything before now.
    pub(crate) fn compact(&self) {
        let answer = self.ask(|client| async move {
            let now = client.range(RangeRequest::one("x")).await?;
            client
                .compact(now.header.unwrap_or_default().revision)
                .await
        });
        answer.expect("etcd compacts");
    }

    /// From here on etcd asks who one is: `root` by its certificate, and one user
    /// who may read and write what agents do.
    pub(crate) fn enable_users(&self, name: &str, password: &str) {
        let pair = |first: &str, second: &str| Pair {
            first: first.to_owned(),
            second: second.to_owned(),
        };
        for (method, message) in [
            ("UserAdd", pair("root", "root")),
            ("RoleAdd", pair("root", "")),
            ("UserGrantRole", pair("root", "root")),
            ("UserAdd", pair(name, password)),
            ("RoleAdd", pair("agents", "")),
            ("UserGrantRole", pair(name, "agents")),
        ] {
            self.administer(method, message);
        }
        let permission = Permission {
            kind: 2,
            key: "cilium/".to_owned(),
            range_end: "cilium0".to_owned(),
        };
        let grant = Grant {
            role: "agents".to_owned(),
            permission: Some(permission),
        };
        self.administer("RoleGrantPermission", grant);
        self.administer("AuthEnable", pair("", ""));
    }

    fn administer(&self, method: &str, message: impl prost::Message + Default + 'static) {
        let answer = self.call("Auth", method, message);
        answer.unwrap_or_else(|error| panic!("{method}: {error}"));
    }

    fn call(
        &self,
        service: &str,
        method: &str,
        message: impl prost::Message + Default + 'static,
    ) -> Result<(), Failure> {
        let path = format!("/etcdserverpb.{service}/{method}");
        self.over(|channel| async move {
            let mut grpc = tonic::client::Grpc::new(channel);
            grpc.ready()
                .await
                .map_err(|error| Failure::Unreachable(error.to_string()))?;
            let path = path.parse().expect("a path");
            let codec = ProstCodec::<_, WriteResponse>::default();
            Ok(grpc
                .unary(tonic::Request::new(message), path, codec)
                .await
                .map(drop)?)
        })
    }

    /// A CA, and what it says of server, agents and administrator.
    fn certificates(&self) {
        let names = format!("subjectAltName=IP:{ADDRESS},IP:127.0.0.1\n");
        fs::write(self.path("names"), names).expect("a file");
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        self.openssl(&format!(
            "req -x509 {key} -days 30 -subj /CN=test-ca -keyout ca.key -out ca.crt \
             -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign"
        ));
        for who in ["server", "agent", "admin"] {
            // A common name would be etcd's user; etcd's own gateway is one too.
            let name = if who == "admin" {
                "/CN=root"
            } else {
                "/O=test"
            };
            self.openssl(&format!(
                "req {key} -subj {name} -keyout {who}.key -out {who}.csr"
            ));
            self.openssl(&format!(
                "x509 -req -in {who}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 \
                 -out {who}.crt -extfile names"
            ));
        }
    }

    fn openssl(&self, line: &str) {
        let output = Command::new("openssl")
            .current_dir(&self.dir)
            .args(line.split_whitespace())
            .output();
        let output = output.expect("openssl is installed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {line}: {said}");
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
