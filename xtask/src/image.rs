//! `cargo xtask image`: the agent's image without Docker and without a registry. The
//! first stage of deploy/Dockerfile is played by this system's compiler for musl; the
//! last one is built as it stands, and an agent out of it is seen to enforce.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::command::{capture, root, run};
use crate::tools;

/// Builds both, runs the test of the image with them, and says where they are.
pub(crate) fn run_all() -> Result<()> {
    let target = format!("{}-unknown-linux-musl", env::consts::ARCH);
    ensure(&target)?;
    let cargo = || {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(root());
        cargo
    };
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--bin", "palisade"]);
    run(build.args(["--target", &target]))?;
    let folder =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let program = folder.join(&target).join("release/palisade");
    let linked = Command::new("ldd")
        .arg(&program)
        .stderr(Stdio::null())
        .output();
    let linked = linked.map(|output| output.stdout).unwrap_or_default();
    if String::from_utf8_lossy(&linked).contains("=>") {
        bail!("{} is not static", program.display());
    }
    let image = folder.join("image.tar");
    drop(std::fs::remove_file(&image));
    let mut test = cargo();
    test.args(["test", "--quiet", "--locked", "--test", "kubernetes"]);
    test.args(["--", "--exact", "image::an_agent_out_of_the_image_enforces"]);
    test.env("PALISADE_REQUIRE_PRIVILEGED", "1")
        .env("PALISADE_IMAGE_BINARY", &program)
        .env("PALISADE_IMAGE_FILE", &image);
    run(&mut test)?;
    println!("the program: {}", program.display());
    println!(
        "the image (docker load, skopeo copy oci-archive:): {}",
        image.display()
    );
    Ok(())
}

/// The standard library for musl, and a C compiler for what is written in C.
fn ensure(target: &str) -> Result<()> {
    if !tools::exists("buildah") || !tools::exists("musl-gcc") {
        tools::apt_install(&["buildah", "musl-tools"])?;
    }
    let mut rustc = Command::new("rustc");
    let library = capture(rustc.args(["--print", "target-libdir", "--target", target]))?;
    if !PathBuf::from(library.trim()).is_dir() {
        let mut add = Command::new("rustup");
        run(add.args(["target", "add", target])).context("the standard library for musl")?;
    }
    Ok(())
}
