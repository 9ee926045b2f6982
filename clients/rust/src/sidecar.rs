//! `jan-sidecar` as a child of this process.

use std::io;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::contract::{core, methods};

const CLOSING: Duration = Duration::from_secs(3);

/// A sidecar that runs. Dropping it closes the way to it, which ends it; after 3 s it is killed.
pub struct Sidecar {
    client: Client,
    child: Child,
}

impl Sidecar {
    /// Start a sidecar: `command` names the executable and its arguments. Its standard error is this process's, where
    /// the command does not say otherwise; of a pipe, [`Sidecar::stderr`] is the end that must be read.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        match (child.stdout.take(), child.stdin.take()) {
            (Some(reader), Some(writer)) => Ok(Self { client: Client::new(reader, writer), child }),
            _ => Err(io::Error::other("the child has no pipes")),
        }
    }

    /// The connection to it. Begin the session with [`Client::initialize`].
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its log, once, when the command's standard error is a pipe. It is to be read to its end by a thread of its own:
    /// a sidecar whose log nobody takes waits.
    pub fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Kill it at once.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()
    }

    /// `shutdown` and `exit`, with which running work ends properly; after `patience` it is killed.
    ///
    /// # Errors
    /// When the system cannot say how it ended.
    pub fn stop(mut self, patience: Duration) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        let client = self.client.clone();
        thread::spawn(move || {
            let _ = client.call::<methods::Shutdown>(&core::Empty {}); // it may be gone already
            let _ = client.notify("exit", &serde_json::json!({}));
            client.close();
        });
        self.end_by(deadline)
    }

    fn end_by(&mut self, deadline: Instant) -> io::Result<ExitStatus> {
        // Looked at now and then: the standard library cannot wait for a child's end and a time at once.
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.child.kill()?;
        self.child.wait()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let client = self.client.clone();
        thread::spawn(move || client.close()); // waits for a write that is not taken; killing the child ends that
        let _ = self.end_by(Instant::now() + CLOSING);
    }
}
