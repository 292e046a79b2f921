//! The agent with a console that costs almost nothing, so that a benchmark measures the agent.
//!
//! Each benchmark is a separate crate and uses a part of this.
#![allow(dead_code)]

pub(crate) mod console;

use console::{Console, Listener};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The agent; dropping it ends it.
pub(crate) struct Agent {
    child: Child,
    pub(crate) console: Console,
}

impl Agent {
    pub(crate) fn start(home: &Path) -> Agent {
        Self::start_with(home, &[])
    }

    pub(crate) fn start_with(home: &Path, variables: &[(&str, &str)]) -> Agent {
        let listener = Listener::new();
        Self::start_at(home, &listener.url(), &listener, variables)
    }

    /// Starts it with the URL of something that leads to the console.
    pub(crate) fn start_at(home: &Path, url: &str, listener: &Listener, variables: &[(&str, &str)]) -> Agent {
        let child = Command::new(console::program(env!("CARGO_BIN_EXE_sindri-agent")))
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", home)
            .env("SINDRI_AGENT_STATE_DIR", home.join("state"))
            .env("SINDRI_CONSOLE_URL", url)
            .env("SINDRI_CONSOLE_API_KEY", "bench")
            .env("SINDRI_INSTANCE_ID", "bench")
            .env("SINDRI_LOG_LEVEL", "error")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .spawn()
            .expect("the agent starts");
        let console = listener.accept();
        Agent { child, console }
    }

    /// Opens a terminal without echo that is ready to run a line.
    pub(crate) fn quiet(&mut self, session: &str) {
        self.console.create(session, "/bin/sh");
        self.console.input(session, b"stty -echo; PS1=; PS2=; echo; echo\n");
        let mut seen = 0;
        self.console.until("a quiet shell", |heard| {
            seen += if heard.is_of(session) { heard.output_bytes() } else { 0 };
            seen > 40
        });
        // Late output of that must not count.
        while self.console.hear(Duration::from_millis(200)).is_some() {}
    }

    /// A figure of `/proc/<pid>/smaps_rollup`, in bytes.
    pub(crate) fn private_dirty_bytes(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id())).expect("readable");
        let line = text.lines().find(|line| line.starts_with("Private_Dirty:")).expect("listed");
        let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
        kib << 10
    }

    /// Its processor time so far.
    pub(crate) fn processor_time(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("readable");
        let nanoseconds = tasks.map(|task| {
            let stat = fs::read_to_string(task.expect("readable").path().join("schedstat")).unwrap_or_default();
            // A thread that has just ended has none.
            stat.split(' ').next().and_then(|spent| spent.parse().ok()).unwrap_or(0)
        });
        Duration::from_nanos(nanoseconds.sum())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
