//! What the build of `deploy/Dockerfile` sees. Its last stage is built, and an agent
//! started out of it, by `tests/kubernetes/image.rs`.

use std::fs;
use std::path::Path;

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
