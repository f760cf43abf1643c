//! Conntrack from outside: what the programs enter is read, and swept when dead.

use std::net::UdpSocket;
use std::sync::Arc;

use palisade::datapath::kernel::Unwanted;
use palisade::datapath::{Datapath, DatapathSettings};

use super::build::generation;
use super::guard::{eventually, in_world, run, run_on_thread};

#[test]
fn flows_are_read_and_swept_once_they_have_expired() {
    in_world(|world| {
        let device = world.veth("v0", "v1");
        run("ip addr add 10.1.0.1/24 dev v0");
        run("ip neigh add 10.1.0.2 lladdr 02:00:00:00:00:02 dev v0");
        let (mut datapath, _) = world.open();
        datapath
            .attachments()
            .sync_devices(&[device], Unwanted::Keep)
            .expect("sync");
        let mut short = generation(1, None, None);
        short.settings = Arc::new(DatapathSettings {
            other_s: 1,
            ..DatapathSettings::default()
        });
        datapath.stage(&short).expect("stage");
        datapath.commit().expect("commit");
        let socket = UdpSocket::bind("10.1.0.1:0").expect("a socket");
        socket.send_to(b"hello", "10.1.0.2:53").expect("send");
        let inspector = datapath.inspector();
        let flows = || {
            let mut flows = Vec::new();
            let all = inspector.for_each_flow(|flow| {
                flows.push(flow);
                true
            });
            all.expect("flows");
            flows.retain(|flow| flow.remote_port == 53);
            flows
        };
        let found = flows();
        assert_eq!(found.len(), 1, "{found:?}");
        let flow = &found[0];
        assert!(
            flow.half && flow.proto == 17 && flow.packets == [1, 0],
            "{flow:?}"
        );
        assert_eq!(flow.local, std::net::IpAddr::from([10, 1, 0, 1]));
        assert_eq!(
            flow.local_port,
            socket.local_addr().expect("address").port()
        );
        let sweeper = inspector.sweeper();
        run_on_thread(|| sweeper.sweep().expect("sweep"));
        assert_eq!(flows().len(), 1, "alive");
        eventually("the end of the flow", || {
            let report = sweeper.sweep().expect("sweep");
            report
                .iter()
                .any(|map| map.map == "pal_ct4" && map.removed > 0)
        });
        assert_eq!(flows().len(), 0);
        let counters = inspector.counters().expect("counters");
        assert!(
            counters
                .iter()
                .any(|it| it.packets > 0 && it.label == "Forwarded"),
            "{counters:?}"
        );
    });
}
