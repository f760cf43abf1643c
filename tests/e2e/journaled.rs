//! What was acknowledged and not yet enforced when the agent was killed is
//! enforced by the next start, whose source does not answer; but a build that no
//! start survives is not begun for ever.

use palisade::lab::network::{Family, Place};
use palisade::lab::probe::{self, Kind, Seen};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::harness::{HTTP, PATIENCE, SSH, World, privileged, until};

/// Nobody listens there: a source that is away.
const SILENT_SOURCE: [&str; 2] = ["--etcd", "http://127.0.0.1:1"];
/// Rules that take their time to be built: twice as many with each try, until a
/// kill comes between the acknowledgement and the commit.
const RULES_FIRST: u16 = 1_000;
const TRIES_MAX: u32 = 5;
/// As the agent counts them.
const BUILDS_CUT_OFF_MAX: usize = palisade::limits::BUILDS_CUT_OFF_MAX as usize;

/// Lets everybody in at one port, and at many that nobody asks for.
fn policy(open: u16, rules: u16) -> Value {
    let ports = |port: u16| json!([{"ports": [{"port": port.to_string(), "protocol": "TCP"}]}]);
    let others = (0..rules).map(|rule| json!({"toPorts": ports(20_000 + rule)}));
    let ingress: Vec<Value> = [json!({"toPorts": ports(open)})]
        .into_iter()
        .chain(others)
        .collect();
    json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "imported"},
        "spec": {"nodeSelector": {}, "ingress": ingress},
    })
}

/// Imports the policy; the agent is killed when the client was answered.
fn import_and_kill(world: &mut World, policy: &Value) {
    let file = world.sandbox.path("import.json");
    std::fs::write(&file, policy.to_string()).expect("a file");
    let said = world.client(&["policy", "import", &file.to_string_lossy()]);
    world.agent().end(Signal::KILL).expect("the agent ends");
    assert!(said.status.success(), "{said:?}");
}

/// The lines about starts of the agent, once it answers.
fn starts(world: &mut World) -> Vec<Value> {
    let lines = until("the agent answers", || {
        world.agent().json(&["history"]).ok()
    });
    let lines = lines.as_array().expect("a list").iter();
    lines
        .filter(|line| line["event"] == "start")
        .cloned()
        .collect()
}

/// Waits until all that the journal held is enforced; whether it was not yet when
/// the agent was started.
fn catches_up(world: &mut World) -> bool {
    let starts = starts(world);
    let is_restored = |line: &&Value| line["message"].to_string().contains("restored at revision");
    let found = starts.iter().rfind(is_restored);
    let held = found.expect("the agent was started")["revision"].as_u64();
    world.wait_for("what the journal holds is enforced", |endpoint| {
        endpoint["revision"]["realized"].as_u64() >= held
    });
    let newest = starts.last().expect("the agent was started");
    println!("{newest}");
    newest["message"].to_string().contains("from the store now")
}

#[test]
fn a_start_without_its_source_enforces_what_was_acknowledged() {
    if !privileged() {
        return;
    }
    let mut world = World::new();
    let mut session = world.connect(Place::Host, Place::Outsider, HTTP, Family::V4);
    for number in 0..TRIES_MAX {
        let (open, closed) = if number % 2 == 0 {
            (SSH, HTTP)
        } else {
            (HTTP, SSH)
        };
        import_and_kill(&mut world, &policy(open, RULES_FIRST << number));
        world.add_arguments(&SILENT_SOURCE);
        world.launch_agent();
        let was_between = catches_up(&mut world);
        world.expect(&[
            (Place::Outsider, Place::Host, Kind::Tcp(open), Seen::Passed),
            (
                Place::Outsider,
                Place::Host,
                Kind::Tcp(closed),
                Seen::Dropped,
            ),
        ]);
        let status = world.agent().json(&["status"]).expect("status");
        assert_eq!(status["ready"], false, "the source is away: {status}");
        probe::echo(&mut session, PATIENCE).expect("what was opened from here goes on");
        if was_between {
            return;
        }
        world.agent().end(Signal::KILL).expect("the agent ends");
        world.remove_arguments(&SILENT_SOURCE);
        world.start_agent();
    }
    panic!("{TRIES_MAX} kills, and none came before the commit");
}

/// Starts the agent and kills it as soon as it builds; whether it came to that.
fn dies_of_its_build(world: &mut World) -> bool {
    let counted = world.sandbox.path("state/builds-cut-off.json");
    let count = || {
        let text = std::fs::read_to_string(&counted).unwrap_or_default();
        text.parse::<u32>().unwrap_or(0)
    };
    let before = count();
    world.launch_agent();
    let mut left = PATIENCE;
    let pause = std::time::Duration::from_millis(1);
    while count() == before && !left.is_zero() {
        std::thread::sleep(pause);
        left = left.saturating_sub(pause);
    }
    world.agent().end(Signal::KILL).expect("the agent ends");
    count() > before
}

/// As a policy does that needs more memory than there is.
#[test]
fn a_build_that_no_start_survives_is_told_and_waits_for_a_word() {
    if !privileged() {
        return;
    }
    let mut world = World::new();
    import_and_wait(&mut world, &policy(SSH, 0));
    let large = policy(HTTP, RULES_FIRST << 2);
    import_and_kill(&mut world, &large);
    let died = (0..BUILDS_CUT_OFF_MAX).filter(|_| dies_of_its_build(&mut world));
    assert_eq!(died.count(), BUILDS_CUT_OFF_MAX, "each dies of the same");

    world.launch_agent();
    let status = until("the agent answers", || world.agent().json(&["status"]).ok());
    assert_eq!(status["ready"], false, "{status}");
    let problems = status["problems"].to_string();
    assert!(
        problems.contains("starts ended while they built it"),
        "{problems}"
    );
    assert!(problems.contains("palisade history"), "{problems}");
    let rows = |open: u16, closed: u16| {
        let row = |port, seen| (Place::Outsider, Place::Host, Kind::Tcp(port), seen);
        [row(open, Seen::Passed), row(closed, Seen::Dropped)]
    };
    world.expect(&rows(SSH, HTTP));
    // A smaller version of it is one word; it is enforced and all is well.
    import_and_wait(&mut world, &policy(HTTP, 0));
    world.expect(&rows(HTTP, SSH));
    let ready = world.agent().wait_ready().expect("it is ready");
    assert_eq!(ready["revision"]["desired"], ready["revision"]["realized"]);
    let status = world.agent().json(&["status"]).expect("status");
    assert_eq!(status["problems"], json!([]), "{status}");
}

fn import_and_wait(world: &mut World, policy: &Value) {
    let file = world.sandbox.path("import.json");
    std::fs::write(&file, policy.to_string()).expect("a file");
    let file = file.to_string_lossy().into_owned();
    let reply = world.agent().json(&["policy", "import", &file]);
    let revision = reply.expect("it is imported")["revision"].to_string();
    let waited = world.agent().json(&["policy", "wait", &revision]);
    waited.expect("it is enforced");
}
