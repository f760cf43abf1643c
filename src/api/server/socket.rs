//! The Unix socket of the API.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::net::UnixListener;

/// Only root may connect: the mode is set before anyone can.
pub(super) fn bind(socket: &Path) -> Result<UnixListener, String> {
    let words = |error: std::io::Error| error.to_string();
    if let Some(directory) = socket.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory).map_err(words)?;
    }
    if std::os::unix::net::UnixStream::connect(socket).is_ok() {
        return Err("another agent answers on it; stop that one or choose another --socket".into());
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(words(error)),
        Ok(()) | Err(_) => {}
    }
    // Bound under another name first, so that nobody connects before the mode is set.
    let mut name = socket.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = socket.with_file_name(name);
    drop(std::fs::remove_file(&fresh));
    let listener = UnixListener::bind(&fresh).map_err(words)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600)).map_err(words)?;
    std::fs::rename(&fresh, socket).map_err(words)?;
    Ok(listener)
}
