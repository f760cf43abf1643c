//! The image of `deploy/Dockerfile`, as far as it can be seen without a builder:
//! what it copies is what the build makes, and that runs in a distroless image.

use std::fs;
use std::path::Path;
use std::process::Command;

/// What `gcr.io/distroless/cc` has.
const LIBRARIES: [&str; 5] = [
    "linux-vdso.so.1",
    "libc.so.6",
    "libm.so.6",
    "libgcc_s.so.1",
    "ld-linux",
];

#[test]
fn the_binary_needs_nothing_that_the_image_lacks() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("deploy/Dockerfile")).expect("the Dockerfile");
    for line in [
        "RUN cargo build --release --locked --bin palisade",
        "FROM gcr.io/distroless/cc-debian12",
        "COPY --from=build /src/target/release/palisade /usr/local/bin/palisade",
        "ENTRYPOINT [\"/usr/local/bin/palisade\"]",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
    let output = Command::new("ldd")
        .arg(env!("CARGO_BIN_EXE_palisade"))
        .output();
    let output = output.expect("ldd starts");
    let needed = String::from_utf8(output.stdout).expect("text");
    assert!(needed.contains("libc.so.6"), "{needed}");
    for line in needed.lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let name = name.rsplit('/').next().unwrap_or_default();
        assert!(
            LIBRARIES.iter().any(|library| name.starts_with(library)),
            "{line}"
        );
    }
}

/// Everything that is versioned is there when the image is built.
#[test]
fn the_build_sees_every_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ignored = fs::read_to_string(root.join(".dockerignore")).expect("the file");
    let patterns = ignored
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    for pattern in patterns {
        let name = pattern.trim_start_matches("**/");
        for needed in [
            "src",
            "bpf-prog",
            "state",
            "deploy",
            "Cargo.toml",
            "build.rs",
        ] {
            assert!(!needed.starts_with(name), "{pattern}");
        }
    }
}
