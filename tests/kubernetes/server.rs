//! kube-apiserver and etcd in a namespace of a sandbox, with certificates and
//! tokens of their own.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use kube::client::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use palisade::datapath::netns;
use palisade::lab::network;
use palisade::lab::sandbox::{Process, Sandbox};
use serde_json::{Value, json};

use crate::harness::privileged;

const PLACE: &str = "api";
pub(crate) const PORT: u16 = 6_443;
const ETCD: u16 = 2_379;
/// Its name, where a name server tells it.
pub(crate) const NAME: &str = "api.palisade.test";
/// The tests' own token; the agent has another.
const ADMIN: &str = "token-of-the-test";
/// Who the agent is: the account of `deploy/kubernetes/rbac.yaml`.
const AGENT: &str = "system:serviceaccount:palisade:palisade";
/// The server notes every request of the agents.
const AUDIT: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- {level: Metadata, users: ['system:serviceaccount:palisade:palisade']}
- {level: None}
";
/// An address that is translated to the server's, as that of a Service is.
pub(crate) const SERVICE: &str = "10.96.0.1";
/// Starts take seconds, on a busy machine many.
const START_TRIES: u32 = 1_200;
const START_PAUSE: Duration = Duration::from_millis(100);

/// The programs.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    server: PathBuf,
    etcd: PathBuf,
}

/// Where the programs are, if the tests can run; tells why not.
pub(crate) fn programs() -> Option<Programs> {
    if !privileged() {
        return None;
    }
    let found = find();
    if found.is_none() {
        let must = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!must, "no kube-apiserver: run `cargo xtask apiserver`");
        eprintln!("SKIPPED: no kube-apiserver; `cargo xtask apiserver` builds one");
    }
    found
}

fn find() -> Option<Programs> {
    if let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS") {
        let assets = PathBuf::from(assets);
        return Some(Programs {
            server: assets.join("kube-apiserver"),
            etcd: assets.join("etcd"),
        });
    }
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")))?;
    let server = base.join("palisade/kube-apiserver/v1.20.2/kube-apiserver");
    let path = std::env::var_os("PATH")?;
    let etcd = std::env::split_paths(&path).map(|folder| folder.join("etcd"));
    let etcd = etcd.into_iter().find(|etcd| etcd.is_file())?;
    server.is_file().then_some(Programs { server, etcd })
}

/// A running server.
pub(crate) struct ApiServer {
    programs: Programs,
    dir: PathBuf,
    pub(crate) namespace: String,
    processes: Vec<Process>,
    /// Where it listens now.
    address: IpAddr,
    /// What the agent shows.
    token: String,
}

impl ApiServer {
    /// Makes the namespace, certificates and kubeconfigs, and starts both.
    pub(crate) fn start(sandbox: &Sandbox, programs: Programs) -> Self {
        let address = IpAddr::from([10, 88, 0, 9]);
        network::join(sandbox, PLACE, &[address]).expect("a namespace on the wire");
        let dir = sandbox.path("api");
        fs::create_dir_all(&dir).expect("a directory");
        certificates(&dir, address);
        fs::write(dir.join("audit.yaml"), AUDIT).expect("a policy");
        let mut server = Self {
            programs,
            dir,
            namespace: sandbox.namespace(PLACE),
            processes: Vec::new(),
            address,
            token: "first-token-of-the-agent".to_owned(),
        };
        let at = format!("{address}:{PORT}");
        server.write_kubeconfig("agent", &at, "tokenFile: agent.token");
        server.write_admin_kubeconfig("admin", &at);
        server.write_admin_kubeconfig("inside", &format!("127.0.0.1:{PORT}"));
        server.hand_out_token();
        server.start_etcd(sandbox);
        server.start_server(sandbox);
        server
    }

    /// What the agent is started with.
    pub(crate) fn kubeconfig(&self) -> String {
        self.path("agent.kubeconfig")
    }

    /// What the tests' own programs are started with.
    pub(crate) fn admin_kubeconfig(&self) -> String {
        self.path("admin.kubeconfig")
    }

    pub(crate) fn path(&self, part: &str) -> String {
        self.dir.join(part).to_string_lossy().into_owned()
    }

    /// For the tests' own requests to a server at this address and port.
    pub(crate) fn write_admin_kubeconfig(&self, name: &str, at: &str) {
        self.write_kubeconfig(name, at, &format!("token: {ADMIN}"));
    }

    fn write_kubeconfig(&self, name: &str, at: &str, user: &str) {
        let text = format!(
            "apiVersion: v1\nkind: Config\n\
             clusters: [{{name: test, cluster: {{server: 'https://{at}', certificate-authority: ca.crt}}}}]\n\
             users: [{{name: test, user: {{{user}}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, user: test, namespace: palisade}}}}]\n\
             current-context: test\n"
        );
        fs::write(self.path(&format!("{name}.kubeconfig")), text).expect("a kubeconfig");
    }

    /// A kubeconfig whose current context leads nowhere, and another one to the
    /// server's loopback address through a proxy.
    pub(crate) fn write_contexts(&self, proxy: &str) -> String {
        let text = json!({
            "clusters": [
                {"name": "nowhere", "cluster": {"server": "https://10.88.0.99:1"}},
                {"name": "behind", "cluster": {"server": format!("https://127.0.0.1:{PORT}"),
                    "certificate-authority": "ca.crt", "proxy-url": proxy}}],
            "users": [{"name": "agent", "user": {"tokenFile": "agent.token"}}],
            "current-context": "nowhere",
            "contexts": [
                {"name": "nowhere", "context": {"cluster": "nowhere", "user": "agent"}},
                {"name": "through-the-proxy",
                    "context": {"cluster": "behind", "user": "agent"}}]});
        let file = self.path("contexts.kubeconfig");
        fs::write(&file, text.to_string()).expect("a kubeconfig");
        file
    }

    /// From its next start on the server has a certificate of another authority;
    /// the file that clients trust names it already.
    pub(crate) fn rotate_authority(&self) {
        certificates(&self.dir, IpAddr::from([10, 88, 0, 9]));
    }

    fn start_etcd(&mut self, sandbox: &Sandbox) {
        let client = format!("http://127.0.0.1:{ETCD}");
        let peer = format!("http://127.0.0.1:{}", ETCD + 1);
        let mut etcd = Command::new(&self.programs.etcd);
        etcd.args(["--name", "test", "--data-dir", &self.path("etcd")])
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("test={peer}")])
            .arg("--unsafe-no-fsync");
        self.spawn(sandbox, etcd, "etcd.log");
    }

    fn start_server(&mut self, sandbox: &Sandbox) {
        let tokens = format!(
            "{ADMIN},admin,1,\"system:masters\"\n{},{AGENT},2,\"system:serviceaccounts\"\n",
            self.token
        );
        fs::write(self.path("tokens.csv"), tokens).expect("tokens");
        let mut server = Command::new(&self.programs.server);
        for (option, value) in [
            ("etcd-servers", format!("http://127.0.0.1:{ETCD}")),
            ("bind-address", self.address.to_string()),
            ("secure-port", PORT.to_string()),
            ("tls-cert-file", self.path("server.crt")),
            ("tls-private-key-file", self.path("server.key")),
            ("token-auth-file", self.path("tokens.csv")),
            ("authorization-mode", "RBAC".to_owned()),
            ("anonymous-auth", "false".to_owned()),
            (
                "service-account-issuer",
                "https://kubernetes.default.svc".to_owned(),
            ),
            ("service-account-key-file", self.path("accounts.key")),
            (
                "service-account-signing-key-file",
                self.path("accounts.key"),
            ),
            ("service-cluster-ip-range", "10.96.0.0/24".to_owned()),
            ("advertise-address", "10.88.0.9".to_owned()),
            ("endpoint-reconciler-type", "none".to_owned()),
            ("disable-admission-plugins", "ServiceAccount".to_owned()),
            ("cert-dir", self.path("auto")),
            ("audit-policy-file", self.path("audit.yaml")),
            ("audit-log-path", self.path("audit.log")),
            // As in clusters that run daemons such as this one.
            ("allow-privileged", "true".to_owned()),
            // As in clusters where other servers serve some of the API.
            ("proxy-client-cert-file", self.path("front.crt")),
            ("proxy-client-key-file", self.path("front.key")),
            ("requestheader-client-ca-file", self.path("ca.crt")),
            ("requestheader-username-headers", "X-Remote-User".to_owned()),
            ("requestheader-group-headers", "X-Remote-Group".to_owned()),
            (
                "requestheader-extra-headers-prefix",
                "X-Remote-Extra-".to_owned(),
            ),
        ] {
            server.arg(format!("--{option}={value}"));
        }
        self.spawn(sandbox, server, "server.log");
        for _ in 0..START_TRIES {
            if self.is_ready() {
                return;
            }
            std::thread::sleep(START_PAUSE);
        }
        let log = fs::read_to_string(self.path("server.log")).unwrap_or_default();
        panic!("the server did not start:\n{log}");
    }

    fn spawn(&mut self, sandbox: &Sandbox, command: Command, log: &str) {
        let process = self.launch(sandbox, command, log);
        self.processes.push(process);
    }

    /// Starts a program where the server runs.
    pub(crate) fn launch(&self, sandbox: &Sandbox, mut command: Command, log: &str) -> Process {
        let log = fs::File::create(self.path(log)).expect("a log");
        command.process_group(0).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        let child = netns::run_in(&self.namespace, || command.spawn());
        let child = child.expect("a namespace").expect("it starts");
        sandbox.adopt(child).expect("adopted")
    }

    fn is_ready(&self) -> bool {
        // The roles are the last thing that a new server makes.
        [
            "/readyz",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/cluster-admin",
        ]
        .iter()
        .all(|path| self.ask("GET", path, None).is_ok())
    }

    /// Kills the server; etcd goes on.
    pub(crate) fn kill(&mut self) {
        self.processes.truncate(1);
    }

    /// Starts it again.
    pub(crate) fn restart(&mut self, sandbox: &Sandbox) {
        self.address = IpAddr::from([10, 88, 0, 9]);
        self.start_server(sandbox);
    }

    /// Starts it where only the test reaches it.
    pub(crate) fn restart_inside(&mut self, sandbox: &Sandbox) {
        self.address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        self.start_server(sandbox);
    }

    /// From its next start on the server knows the agent by another token, which
    /// the agent's file has already.
    pub(crate) fn rotate_token(&mut self, token: &str) {
        token.clone_into(&mut self.token);
        self.hand_out_token();
    }

    fn hand_out_token(&self) {
        fs::write(self.path("agent.token"), &self.token).expect("a token");
    }

    /// Lets etcd forget everything before now.
    pub(crate) fn compact(&self) {
        let answer = self.ask_etcd("/v3/kv/range", &json!({"key": "AA=="}));
        let revision = answer["header"]["revision"].as_str().expect("a revision");
        let order = json!({"revision": revision, "physical": true});
        let answer = self.ask_etcd("/v3/kv/compaction", &order);
        assert!(answer["header"].is_object(), "{answer}");
    }

    fn ask_etcd(&self, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.0\r\nHost: etcd\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = netns::run_in(&self.namespace, || {
            let mut stream = TcpStream::connect(("127.0.0.1", ETCD))?;
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok::<_, std::io::Error>(answer)
        });
        let answer = answer.expect("a namespace").expect("etcd answers");
        let (_, json) = answer.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// What the agents asked for so far, in the server's own words.
    pub(crate) fn asked(&self) -> Vec<Value> {
        let log = fs::read_to_string(self.path("audit.log")).unwrap_or_default();
        let lines = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines.collect()
    }

    /// One request as the administrator; None when it failed.
    pub(crate) fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Value> {
        let text = self.ask(method, path, body).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// One request as the administrator; what the server says against it.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<String, String> {
        let name = if self.address.is_loopback() {
            "inside"
        } else {
            "admin"
        };
        self.ask_at(name, "application/json", method, path, body)
    }

    /// What `kubectl get` prints of one object: the names of its columns with
    /// what stands in them.
    pub(crate) fn columns(&self, path: &str) -> Option<BTreeMap<String, Value>> {
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let text = self.ask_at("admin", accept, "GET", path, None).ok()?;
        let table: Value = serde_json::from_str(&text).ok()?;
        let names = table["columnDefinitions"].as_array()?.iter();
        let cells = table["rows"][0]["cells"].as_array()?.iter();
        let columns = names.zip(cells).map(|(name, cell)| {
            let name = name["name"].as_str().unwrap_or_default();
            (name.to_owned(), cell.clone())
        });
        Some(columns.collect())
    }

    /// The same of the server of a kubeconfig of the administrator.
    pub(crate) fn ask_at(
        &self,
        kubeconfig: &str,
        accept: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<String, String> {
        let kind = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind)
            .header("accept", accept)
            .body(
                body.map(|body| body.to_string().into_bytes())
                    .unwrap_or_default(),
            )
            .expect("a request");
        let file = self.path(&format!("{kubeconfig}.kubeconfig"));
        let answer = netns::run_in(&self.namespace, || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let read = Kubeconfig::read_from(file).expect("a kubeconfig");
                let options = KubeConfigOptions::default();
                let config = Config::from_custom_kubeconfig(read, &options).await;
                let mut config = config.expect("a configuration");
                config.default_retry = false;
                let client = Client::try_from(config).expect("a client");
                client.request_text(request).await
            })
        });
        answer
            .expect("a namespace")
            .map_err(|error| error.to_string())
    }
}

/// A CA, the server's certificate and a key for accounts.
fn certificates(dir: &Path, address: IpAddr) {
    let names = format!(
        "subjectAltName=IP:{address},IP:127.0.0.1,IP:{SERVICE},DNS:{NAME}\nextendedKeyUsage=serverAuth\n\
         basicConstraints=CA:FALSE\n"
    );
    fs::write(dir.join("names"), names).expect("a file");
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for line in [
        format!(
            "req -x509 {key} -days 30 -subj /CN=test-ca -keyout ca.key -out ca.crt \
             -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign"
        ),
        format!("req {key} -subj /CN=front -keyout front.key -out front.csr"),
        "x509 -req -in front.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out front.crt"
            .to_owned(),
        format!("req {key} -subj /CN=kube-apiserver -keyout server.key -out server.csr"),
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAserial ca.srl -days 30 \
         -out server.crt -extfile names"
            .to_owned(),
        "ecparam -genkey -name prime256v1 -noout -out accounts.key".to_owned(),
    ] {
        let output = Command::new("openssl")
            .current_dir(dir)
            .args(line.split_whitespace())
            .output();
        let output = output.expect("openssl is installed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {line}: {said}");
    }
}
