//! The agent's end changes nothing; the next start adopts and writes nothing.

use palisade::datapath::Datapath;
use palisade::datapath::kernel::Unwanted;
use palisade::events::Revision;
use palisade_abi::ABI_VERSION;

use super::build::{generation, tcp_ports};
use super::guard::{in_world, pins, running};

#[test]
fn a_new_start_adopts_what_is_there_and_writes_nothing() {
    in_world(|world| {
        let device = world.veth("v0", "v1");
        let policy = || generation(5, Some(tcp_ports(&[22])), Some(tcp_ports(&[443])));
        let (mut datapath, _) = world.open();
        datapath
            .attachments()
            .sync_devices(std::slice::from_ref(&device), Unwanted::Keep)
            .expect("sync");
        for _ in 0..2 {
            datapath.stage(&policy()).expect("stage");
            datapath.commit().expect("commit");
        }
        let (before, state) = (datapath.realized(), datapath.inspector().commit_state());
        let (programs, maps) = (datapath.inspector().programs(), datapath.inspector().maps());
        let held = pins(world.dir());
        drop(datapath);

        let (mut datapath, report) = world.open();
        assert!(!report.programs_loaded, "{report:?}");
        assert_eq!(report.adopted, before);
        assert_eq!(datapath.realized(), before);
        assert_eq!(report.warnings, [""; 0]);
        let inspector = datapath.inspector();
        assert_eq!((inspector.programs(), inspector.maps()), (programs, maps));
        let sync = datapath
            .attachments()
            .sync_devices(&[device], Unwanted::Keep)
            .expect("sync");
        assert!(sync.is_empty(), "{sync:?}");
        assert!(datapath.matches_current(&policy()).expect("compare"));
        assert_eq!(datapath.stage(&policy()).expect("stage").writes, 0);
        assert_eq!(inspector.commit_state(), state);
        assert_eq!(pins(world.dir()), held);
        assert_eq!(inspector.verify().expect("verify"), [""; 0]);
    });
}

#[test]
fn the_adopted_revision_outlives_the_agent() {
    in_world(|world| {
        let (mut datapath, _) = world.open();
        datapath
            .stage(&generation(5, Some(tcp_ports(&[22])), None))
            .expect("stage");
        datapath.commit().expect("commit");
        datapath.adopt(Revision(8)).expect("adopt");
        drop(datapath);
        let (datapath, _) = world.open();
        assert_eq!(datapath.realized().expect("realized").revision, Revision(8));
    });
}

#[test]
fn an_agent_that_died_between_stage_and_commit_left_the_old_generation() {
    in_world(|world| {
        let (mut datapath, _) = world.open();
        datapath
            .stage(&generation(1, Some(tcp_ports(&[22])), None))
            .expect("stage");
        let old = datapath.commit().expect("commit");
        datapath
            .stage(&generation(2, Some(tcp_ports(&[80])), None))
            .expect("stage");
        drop(datapath);
        let (mut datapath, report) = world.open();
        assert_eq!(report.adopted, Some(old));
        assert!(
            datapath
                .matches_current(&generation(1, Some(tcp_ports(&[22])), None))
                .expect("compare")
        );
        let error = datapath.commit().expect_err("what was staged is forgotten");
        assert!(error.to_string().contains("without a staged"), "{error}");
        datapath
            .stage(&generation(2, Some(tcp_ports(&[80])), None))
            .expect("stage");
        assert_eq!(datapath.commit().expect("commit").revision, Revision(2));
    });
}

#[test]
fn programs_of_another_binary_are_replaced_without_a_gap() {
    in_world(|world| {
        let device = world.veth("v0", "v1");
        let policy = || generation(1, Some(tcp_ports(&[22])), None);
        let (mut datapath, _) = world.open();
        datapath
            .attachments()
            .sync_devices(std::slice::from_ref(&device), Unwanted::Keep)
            .expect("sync");
        datapath.stage(&policy()).expect("stage");
        datapath.commit().expect("commit");
        let old = datapath.inspector().programs();
        drop(datapath);
        // As another binary would have pinned them.
        for pin in pins(world.dir())
            .iter()
            .filter(|pin| pin.starts_with("prog_"))
        {
            let (stem, _) = pin.rsplit_once("_v").expect("a version");
            let (name, _) = stem.rsplit_once('_').expect("a hash");
            let other = format!("{name}_0123456789abcdef_v{ABI_VERSION}");
            std::fs::rename(world.dir().join(pin), world.dir().join(other)).expect("rename");
        }
        let (mut datapath, report) = world.open();
        assert!(report.programs_loaded);
        let new = datapath.inspector().programs();
        assert!(old.iter().zip(&new).all(|(old, new)| old.id != new.id));
        assert!(
            !pins(world.dir())
                .iter()
                .any(|pin| pin.contains("0123456789abcdef"))
        );
        assert!(
            !datapath.matches_current(&policy()).expect("compare"),
            "the old programs run"
        );
        let report = datapath
            .attachments()
            .sync_devices(&[device], Unwanted::Keep)
            .expect("sync");
        assert_eq!(report.updated, ["v0"]);
        datapath.stage(&policy()).expect("stage");
        datapath.commit().expect("commit");
        assert!(datapath.matches_current(&policy()).expect("compare"));
        assert_eq!(datapath.inspector().verify().expect("verify"), [""; 0]);
        assert_eq!(running("v0"), ["pal_from_netdev", "pal_to_netdev"]);
    });
}

#[test]
fn lost_pins_are_made_again_for_the_maps_that_are_in_use() {
    in_world(|world| {
        let device = world.veth("v0", "v1");
        let policy = || generation(1, Some(tcp_ports(&[22])), None);
        let (mut datapath, _) = world.open();
        datapath
            .attachments()
            .sync_devices(&[device], Unwanted::Keep)
            .expect("sync");
        datapath.stage(&policy()).expect("stage");
        datapath.commit().expect("commit");
        let maps = datapath.inspector().maps();
        drop(datapath);
        for name in ["pal_blocks", "pal_commit", "pal_ct4"] {
            let pin = world.dir().join(format!("{name}_v{ABI_VERSION}"));
            std::fs::remove_file(pin).expect(name);
        }
        let (mut datapath, _) = world.open();
        assert_eq!(datapath.inspector().maps(), maps);
        assert!(datapath.matches_current(&policy()).expect("compare"));
    });
}
