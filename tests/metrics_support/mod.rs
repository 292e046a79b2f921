//! Shared by the tests of the metrics: skips, and children that take commands on standard input.

#[path = "../support/skip.rs"]
mod skip;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

pub(crate) use skip::skip;

const DEADLINE: Duration = Duration::from_secs(60);

/// A child that runs one command for each line of standard input and answers with a line.
pub(crate) struct Worker {
    pub(crate) child: Child,
    input: ChildStdin,
    output: mpsc::Receiver<String>,
}

impl Worker {
    pub(crate) fn start(command: &mut Command) -> Option<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        let input = child.stdin.take().expect("it was piped");
        let lines = BufReader::new(child.stdout.take().expect("it was piped")).lines();
        let (said, output) = mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| said.send(line)));
        let worker = Self { child, input, output };
        (worker.answer()? == "ready").then_some(worker)
    }

    pub(crate) fn ask(&mut self, line: &str) -> Option<String> {
        writeln!(self.input, "{line}").ok()?;
        self.answer()
    }

    /// The next line; `None` when the child is gone.
    pub(crate) fn answer(&self) -> Option<String> {
        match self.output.recv_timeout(DEADLINE) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("no answer within {DEADLINE:?}"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
