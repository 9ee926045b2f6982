//! The real sidecar, when there is one to test with: `JAN_SIDECAR` names the executable.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the golden transcripts are.
pub fn transcripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../transcripts")
}

/// A fresh folder, gone when dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("jan-client-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a fresh folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The command of a sidecar on a fresh folder, with the extension that the transcripts use. `None`: there is none.
pub fn sidecar(folder: &Folder, args: &[String]) -> Option<Command> {
    let Some(program) = std::env::var_os("JAN_SIDECAR") else {
        eprintln!("skipped: JAN_SIDECAR names no executable");
        return None;
    };
    let mut command = Command::new(program);
    command.arg("--data-dir").arg(&folder.0).args(args);
    command.env("PYTHONPATH", transcripts().join("probe")).stderr(Stdio::null());
    Some(command)
}
