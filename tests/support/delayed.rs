//! Delays system calls of a running agent, so that what makes them hangs.

use crate::support::Agent;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// How long strace delays each system call (10 s): much longer than a test needs for its rounds.
const DELAY: &str = "delay_enter=10000000";

fn strace() -> Option<&'static str> {
    ["/usr/bin/strace", "/bin/strace"].into_iter().find(|path| Path::new(path).exists())
}

/// Delays system calls of a running agent, on one file or on all, until it is dropped.
pub(crate) struct Delayed(Child);

impl Delayed {
    /// `None` if this user may not trace the agent.
    pub(crate) fn attach(agent: &Agent, calls: &str, file: Option<&Path>) -> Option<Delayed> {
        let mut command = Command::new(strace()?);
        command.args(["-f", "-o", "/dev/null"]).arg(format!("-etrace={calls}"));
        if let Some(file) = file {
            command.arg("-P").arg(file);
        }
        command.arg(format!("-einject={calls}:{DELAY}")).arg("-p").arg(agent.process().pid().to_string());
        let mut child = command.stderr(Stdio::piped()).spawn().ok()?;
        let mut said = BufReader::new(child.stderr.take()?);
        let is_attached = said.by_ref().lines().map_while(Result::ok).any(|line| line.contains("attached"));
        let delayed = Delayed(child);
        // strace prints a line for each thread that it attaches to, and ends if it may not.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        is_attached.then_some(delayed)
    }
}

impl Drop for Delayed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
