//! The Prometheus endpoint: well-formed, and with the names that we promise.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use palisade::datapath::netns;

use super::harness::{PATIENCE, World, demo_rows, privileged};

const ADDRESS: &str = "127.0.0.1:9962";

fn scrape(world: &World) -> String {
    let answer = netns::run_in(&world.sandbox.namespace("host"), || {
        let mut stream = TcpStream::connect(ADDRESS)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: host\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    });
    let answer = answer.expect("a namespace").expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    if head.to_lowercase().contains("transfer-encoding: chunked") {
        return unchunk(body);
    }
    body.to_owned()
}

fn unchunk(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).expect("a length");
        if length == 0 {
            break;
        }
        text.push_str(&rest[..length]);
        body = &rest[length + 2..];
    }
    text
}

fn promtool(text: &str) {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing: install prometheus (apt-get install prometheus)");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(text.as_bytes())
        .expect("promtool reads");
    let output = child.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.trim().is_empty(),
        "{said}\n{text}"
    );
}

#[test]
fn metrics_are_well_formed_and_complete() {
    if !privileged() {
        return;
    }
    let mut world = World::bare();
    world.add_arguments(&["--metrics-addr", ADDRESS]);
    world.manifest("nodes.yaml", palisade::lab::scenario::NODES);
    world.start_agent();
    world.manifest("policy.yaml", super::harness::DEMO_POLICY);
    world.wait("ingress", "enabled");
    world.expect(&demo_rows());
    let text = scrape(&world);
    promtool(&text);
    for name in [
        "palisade_endpoint",
        "palisade_endpoint_state",
        "palisade_endpoint_regenerations_total",
        "palisade_endpoint_regeneration_time_stats_seconds",
        "palisade_policy",
        "palisade_policy_max_revision",
        "palisade_policy_endpoint_enforcement_status",
        "palisade_policy_implementation_delay",
        "palisade_identity",
        "palisade_drop_count_total",
        "palisade_drop_bytes_total",
        "palisade_forward_count_total",
        "palisade_forward_bytes_total",
        "palisade_bpf_map_pressure",
        "palisade_bpf_map_capacity",
        "palisade_datapath_conntrack_entries",
        "palisade_datapath_conntrack_gc_runs_total",
        "palisade_datapath_conntrack_gc_deleted_total",
        "palisade_datapath_conntrack_gc_duration_seconds",
        "palisade_datapath_conntrack_gc_interval_seconds",
    ] {
        let found = text
            .lines()
            .any(|line| line.starts_with(&format!("# TYPE {name} ")));
        assert!(found, "{name} is missing in\n{text}");
    }
    let drops = text.lines().find(|line| {
        line.starts_with("palisade_drop_count_total{")
            && line.contains("reason=\"Policy denied\"")
            && line.contains("direction=\"INGRESS\"")
    });
    let drops = drops.unwrap_or_else(|| panic!("no drops are counted in\n{text}"));
    let count: f64 = drops
        .rsplit(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a number");
    assert!(count >= 6.0, "{drops}");
}

#[test]
fn the_prefix_can_be_ciliums() {
    if !privileged() {
        return;
    }
    let mut world = World::bare();
    world.add_arguments(&["--metrics-addr", ADDRESS, "--metrics-prefix", "cilium_"]);
    world.start_agent();
    let text = scrape(&world);
    promtool(&text);
    assert!(text.contains("\ncilium_policy_max_revision"), "{text}");
    assert!(!text.contains("palisade_"), "{text}");
}
