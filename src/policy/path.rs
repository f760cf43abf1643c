//! Paths of fields, as the operator reads them: `spec.ingress[2].toPorts[0]`.

use std::fmt::Write as _;

/// Appends a key: `.name`, or `["na.me"]` where dots would be misread.
pub(super) fn push_key(path: &mut String, key: &str) {
    let plain = !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if !plain {
        // Writing to a String cannot fail.
        let _ = write!(path, "[{key:?}]");
        return;
    }
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

/// Appends an index: `[3]`.
pub(super) fn push_index(path: &mut String, index: usize) {
    let _ = write!(path, "[{index}]");
}

/// `path` with one index more.
pub(super) fn index(path: &str, index: usize) -> String {
    let mut path = path.to_owned();
    push_index(&mut path, index);
    path
}

/// The path of the object that holds the field; None for the whole object.
pub(super) fn parent(path: &str) -> Option<&str> {
    let end = path.rfind(['.', '['])?;
    Some(&path[..end])
}
