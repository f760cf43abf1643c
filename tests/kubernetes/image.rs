//! The image: its last stage is built as deploy/Dockerfile says, from a program that
//! is there already, and the agent that is started from it, with nothing else in
//! sight than what the DaemonSet mounts, enforces.
//!
//! `cargo xtask image` runs this with the program that is in the image; alone it
//! takes the tests' own, with the libraries that that one is linked to.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::cluster::{Cluster, until};
use crate::harness::{HTTP, SSH, exe};
use crate::server::programs;

const DOCKERFILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/Dockerfile");
const NAME: &str = "palisade:test";

#[test]
fn an_agent_out_of_the_image_enforces() {
    let Some(programs) = programs() else { return };
    let mut cluster = Cluster::bare(programs);
    let image = Image::build(&cluster.world.sandbox.path("image"));
    let found = image.files();
    let expected = [
        "etc/ssl/certs/ca-certificates.crt",
        "usr/local/bin/palisade",
    ];
    assert_eq!(found, expected, "nothing else is in it");
    image.add_libraries();
    cluster.install_definitions();
    let agent = image.as_program(&cluster);
    cluster.world.run_as_agent(&agent);
    cluster.world.start_agent();
    cluster.create_policy("ssh", "web", &[SSH]);
    cluster.wait_open(&[SSH]);
    for probe in ["readinessProbe", "livenessProbe"] {
        until(&format!("the {probe} succeeds"), || {
            let output = image.run(&cluster, &words(probe));
            output.status.success().then_some(())
        });
    }
    cluster.delete_policy("ssh");
    cluster.wait_open(&[SSH, HTTP]);
}

/// What the kubelet runs in the agent's container.
fn words(probe: &str) -> Vec<String> {
    let daemon = include_str!("../../deploy/kubernetes/daemonset.yaml");
    let daemon: Value = serde_yaml_ng::from_str(daemon).expect("YAML");
    let container = &daemon["spec"]["template"]["spec"]["containers"][0];
    let words = container[probe]["exec"]["command"].as_array();
    let words = words.expect("a command").iter();
    words
        .map(|word| word.as_str().expect("a word").to_owned())
        .collect()
}

/// An image in a store of its own, and a container made of it.
struct Image {
    store: PathBuf,
    root: PathBuf,
    program: PathBuf,
}

impl Image {
    fn build(place: &Path) -> Self {
        let program = std::env::var_os("PALISADE_IMAGE_BINARY");
        let program = program.map_or_else(|| exe().to_owned(), PathBuf::from);
        // In the place of the first stage: what that one makes.
        let made = place.join("made/image");
        fs::create_dir_all(&made).expect("a directory");
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(made.join("palisade")).arg(&program);
        ok(&strip.output().expect("strip is installed with the linker"));
        let authorities = "/etc/ssl/certs/ca-certificates.crt";
        if fs::copy(authorities, made.join("ca-certificates.crt")).is_err() {
            fs::write(made.join("ca-certificates.crt"), "").expect("a file");
        }
        let mut image = Self {
            store: place.join("store"),
            root: PathBuf::new(),
            program,
        };
        let context = format!("build={}", place.join("made").display());
        let context_folder = place.join("made").display().to_string();
        let words = [
            "build",
            "--isolation",
            "chroot",
            "--build-context",
            &context,
        ];
        let rest = ["-f", DOCKERFILE, "-t", NAME, &context_folder];
        image.buildah(&[&words[..], &rest[..]].concat());
        if let Some(file) = std::env::var_os("PALISADE_IMAGE_FILE") {
            let to = format!("oci-archive:{}:{NAME}", Path::new(&file).display());
            image.buildah(&["push", NAME, &to]);
        }
        let container = image.buildah(&["from", NAME]);
        let root = image.buildah(&["mount", container.trim()]);
        image.root = root.trim().into();
        image
    }

    #[track_caller]
    fn buildah(&self, words: &[&str]) -> String {
        let mut buildah = Command::new("buildah");
        buildah.args(["--storage-driver", "vfs"]);
        buildah.arg("--root").arg(self.store.join("root"));
        buildah.arg("--runroot").arg(self.store.join("run"));
        let output = buildah.args(words).output();
        let output = output.expect("buildah is installed: cargo xtask test does that");
        ok(&output);
        String::from_utf8(output.stdout).expect("text")
    }

    /// What the image says of itself.
    fn config(&self) -> Value {
        let text = self.buildah(&["inspect", "--type", "image", NAME]);
        let value: Value = serde_json::from_str(&text).expect("JSON");
        value["OCIv1"]["config"].clone()
    }

    fn files(&self) -> Vec<String> {
        let mut find = Command::new("find");
        find.current_dir(&self.root);
        let output = find.args([".", "-type", "f", "-printf", "%P\\n"]).output();
        let text = String::from_utf8(output.expect("find").stdout).expect("text");
        let mut files: Vec<String> = text.lines().map(str::to_owned).collect();
        files.sort();
        files
    }

    /// The image's own program is static; the one of the tests may not be.
    fn add_libraries(&self) {
        let linked = Command::new("ldd").arg(&self.program).output();
        let linked = linked.map(|output| output.stdout).unwrap_or_default();
        let linked = String::from_utf8(linked).expect("text");
        let libraries = linked
            .split_whitespace()
            .filter(|word| word.starts_with('/'));
        for library in libraries {
            let to = self.root.join(library.trim_start_matches('/'));
            fs::create_dir_all(to.parent().expect("a directory")).expect("a directory");
            fs::copy(library, to).expect("a library");
        }
    }

    /// A program that starts the agent as the image's entry point, where it sees
    /// the image and what is mounted into it.
    fn as_program(&self, cluster: &Cluster) -> PathBuf {
        let config = self.config();
        let entry = config["Entrypoint"][0].as_str().expect("an entry point");
        assert_eq!(config["Cmd"][0], "agent", "what the lab gives it, too");
        let root = self.root.display();
        let shared = cluster.world.sandbox.path("");
        let shared = shared.display().to_string();
        let shared = shared.trim_end_matches('/');
        // The file system of the pins is mounted again inside: the agent does it.
        let text = format!(
            "#!/bin/sh\nset -e\nmkdir -p {root}/proc {root}/sys {root}{shared}\n\
             exec unshare --mount --propagation slave sh -ec '\n\
             mount --rbind /proc {root}/proc\nmount --rbind /sys {root}/sys\n\
             mount --rbind {shared} {root}{shared}\n\
             exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot {root} {entry} \"$@\"' sh \"$@\"\n"
        );
        let script = cluster.world.sandbox.path("agent-of-the-image");
        fs::write(&script, text).expect("a script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("permissions");
        script
    }

    /// A command in the container, found by the image's own PATH.
    fn run(&self, cluster: &Cluster, words: &[String]) -> Output {
        let agent = cluster.world.sandbox.path("agent.sock");
        let path = self.config()["Env"][0].as_str().expect("PATH").to_owned();
        let mut nsenter = Command::new("unshare");
        let root = self.root.display();
        let shared = agent.parent().expect("a directory").display();
        let script = format!(
            "mount --rbind {shared} {root}{shared}; chroot=$(command -v chroot); \
             exec env -i {path} PALISADE_SOCKET={} $chroot {root} \"$@\"",
            agent.display()
        );
        nsenter.args([
            "--mount",
            "--propagation",
            "slave",
            "sh",
            "-c",
            &script,
            "sh",
        ]);
        nsenter.args(words).output().expect("unshare")
    }
}

#[track_caller]
fn ok(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
