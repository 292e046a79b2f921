//! The demo on a terminal: one loop over everything that happens, in one of three modes.
//!
//! It handles keys and redraws: `dashboard` draws, `model` has the state. Only the wait for the next event blocks.

use std::io;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use async_signal::{Signal, Signals};
use draupnir_console::{Console, Page, Record};
use futures_lite::StreamExt;

use crate::agent::Agent;
use crate::command::{Command, Line, Typed};
use crate::dashboard::{Prompt, rows};
use crate::model::{Link, Model};
use crate::plain::{DRAIN_MAX, finish, follow};
use crate::shell::Shell;
use crate::terminal::{Terminal, follow_keys, write};
use crate::web::Web;

/// How often ages and rates are drawn again without an event.
const REDRAW: Duration = Duration::from_millis(500);

/// How soon an event is drawn. Events within this time are drawn together.
const GATHER: Duration = Duration::from_millis(30);

/// Stands in place of the page's address while it is made.
const OPENING: &str = "being prepared …";

/// An event of the loop.
pub(crate) enum Happening {
    /// The console recorded something.
    Record(Arc<Record>),
    /// Output of the shell (no id), or of the command with this id.
    Output((Option<String>, Vec<u8>)),
    /// Keys.
    Typed(Vec<u8>),
    /// The terminal has another size.
    Resized,
    /// The page is served, or why not.
    Page(Result<Page, String>),
    /// SIGINT, SIGTERM or SIGHUP.
    Interrupted,
    /// The agent ended.
    Exited(ExitStatus),
}

/// Reports records, signals and the agent's end.
pub(crate) fn watch(console: &Console, agent: &mut Agent, happens: &Sender<Happening>) -> io::Result<()> {
    let sender = happens.clone();
    follow(console, move |record| sender.send(Happening::Record(record)).is_ok());
    let sender = happens.clone();
    agent.on_exit(move |status| {
        if let Ok(status) = status {
            let _ = sender.send(Happening::Exited(status)); // an error: the demo is over already
        }
    });
    let mut signals = Signals::new([Signal::Int, Signal::Term, Signal::Hup, Signal::Winch])?;
    let sender = happens.clone();
    std::thread::spawn(move || {
        while let Some(Ok(signal)) = smol::block_on(signals.next()) {
            let happening = if signal == Signal::Winch { Happening::Resized } else { Happening::Interrupted };
            if sender.send(happening).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Runs until the agent has ended. `with_page`: the page is served from the beginning.
pub(crate) fn run(console: &Console, mut agent: Agent, web: Web, with_page: bool) -> io::Result<ExitCode> {
    let (happens, happenings) = mpsc::channel();
    watch(console, &mut agent, &happens)?;
    let keys = happens.clone();
    let terminal = Terminal::take()?;
    follow_keys(move |bytes| keys.send(Happening::Typed(bytes)).is_ok());
    let mut demo = Demo {
        console,
        agent: &mut agent,
        terminal: &terminal,
        happens,
        model: Model::default(),
        shell: Shell::new(),
        line: None,
        command: Command::default(),
        drained_at: None,
        web,
        page: None,
    };
    if with_page {
        demo.open_page();
    }
    let status = demo.run(&happenings);
    let (model, draining) = (demo.model, demo.drained_at.is_some());
    drop(terminal);
    finish(&model, &agent, status?, draining)
}

/// The loop's state.
struct Demo<'a> {
    console: &'a Console,
    agent: &'a mut Agent,
    terminal: &'a Terminal,
    happens: Sender<Happening>,
    model: Model,
    shell: Shell,
    /// A command line being typed.
    line: Option<Line>,
    command: Command,
    /// When the agent received SIGTERM.
    drained_at: Option<Instant>,
    web: Web,
    page: Option<Page>,
}

impl Demo<'_> {
    /// Runs the loop and returns the agent's exit status; `None` if the demo gave up waiting for it.
    fn run(&mut self, happenings: &Receiver<Happening>) -> io::Result<Option<ExitStatus>> {
        let mut draw_at = Instant::now();
        loop {
            match happenings.recv_timeout(draw_at.saturating_duration_since(Instant::now())) {
                Ok(Happening::Exited(status)) => {
                    self.agent.has_ended();
                    self.model.link = Link::Exited(status.to_string());
                    return Ok(Some(status));
                }
                Ok(happening) => {
                    self.take(happening)?;
                    draw_at = draw_at.min(Instant::now() + GATHER);
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.draw()?;
                    draw_at = Instant::now() + REDRAW;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
            if self.drained_at.is_some_and(|at| at.elapsed() > DRAIN_MAX) {
                return Ok(None);
            }
        }
    }

    fn take(&mut self, happening: Happening) -> io::Result<()> {
        match happening {
            Happening::Record(record) => self.take_record(&record),
            Happening::Output((Some(id), bytes)) => {
                self.command.take_output(&id, &bytes);
                Ok(())
            }
            Happening::Output((None, bytes)) => {
                self.shell.shown(bytes.len());
                if self.shell.is_visited() { write(&bytes) } else { Ok(()) }
            }
            Happening::Typed(bytes) => self.typed(&bytes),
            Happening::Resized if self.shell.is_visited() => {
                if self.is_up() {
                    self.shell.resized(self.console, self.terminal.size());
                }
                Ok(())
            }
            Happening::Resized => write(b"\x1b[2J"),
            Happening::Page(page) => {
                self.model.page = page.as_ref().map_or_else(Clone::clone, |page| page.url().to_owned());
                self.page = page.ok();
                Ok(())
            }
            Happening::Interrupted => self.drain(),
            Happening::Exited(_) => Ok(()), // the loop handles it itself
        }
    }

    fn take_record(&mut self, record: &Record) -> io::Result<()> {
        self.model.take(record);
        self.command.take_record(record);
        if self.shell.ends_with(record) && self.shell.is_visited() {
            self.leave_shell()?;
        }
        Ok(())
    }

    fn typed(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.shell.is_visited() {
            // Without a link typed text is lost, as in a browser. The key that leaves the shell must always work.
            let stays = if self.is_up() { self.shell.typed(self.console, bytes) } else { !bytes.contains(&0x1d) };
            return if stays { Ok(()) } else { self.leave_shell() };
        }
        if let Some(line) = &mut self.line {
            match line.take(bytes) {
                Typed::More => return Ok(()),
                Typed::Run(line) if self.is_up() => self.run_command(&line),
                Typed::Run(_) | Typed::Left => {}
            }
            self.line = None;
            return Ok(());
        }
        match bytes.first() {
            Some(b'q' | 0x03) => self.drain(),
            Some(b't') if self.is_up() => self.visit_shell(),
            Some(b':') => {
                self.line = Some(Line::default());
                self.typed(bytes.get(1..).unwrap_or_default())
            }
            Some(b'x') if self.is_up() => {
                self.console.link().reset();
                Ok(())
            }
            Some(b'r') => {
                self.console.crash();
                self.console.listen();
                Ok(())
            }
            Some(b'w') => {
                self.open_page();
                Ok(())
            }
            Some(b'c') if self.is_up() => {
                self.command.cancel(self.console);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether frames can be sent now. The demo never waits for a link, because it must go on drawing.
    fn is_up(&self) -> bool {
        self.model.link == Link::Connected && self.console.has_link()
    }

    fn run_command(&mut self, line: &str) {
        let happens = self.happens.clone();
        self.command.run(self.console, line, move |id, bytes| {
            // An error: the demo is over already.
            let _ = happens.send(Happening::Output((Some(id.to_owned()), bytes.to_vec())));
        });
    }

    /// Serves the page, on a thread of its own, because packages may have to be installed first.
    fn open_page(&mut self) {
        if self.page.is_some() || self.model.page == OPENING {
            return;
        }
        OPENING.clone_into(&mut self.model.page);
        let (web, happens) = (self.web.clone(), self.happens.clone());
        std::thread::spawn(move || {
            let _ = happens.send(Happening::Page(web.open())); // an error: the demo is over already
        });
    }

    fn visit_shell(&mut self) -> io::Result<()> {
        self.terminal.leave_screen()?;
        write(b"\x1b[0;2m-- a shell through the agent; Ctrl-] leaves it --\x1b[0m\r\n")?;
        let happens = self.happens.clone();
        self.shell.visit(self.console, self.terminal.size(), move |bytes| {
            let _ = happens.send(Happening::Output((None, bytes))); // an error: the demo is over already
        });
        Ok(())
    }

    fn leave_shell(&mut self) -> io::Result<()> {
        self.shell.leave(self.console);
        self.terminal.enter_screen()
    }

    fn drain(&mut self) -> io::Result<()> {
        if self.shell.is_visited() {
            self.leave_shell()?;
        }
        if self.drained_at.is_none() {
            self.drained_at = Some(Instant::now());
            self.model.drain();
            self.agent.drain();
        }
        Ok(())
    }

    /// Draws everything in one write, each row over the old one, so that nothing flickers.
    fn draw(&self) -> io::Result<()> {
        if self.shell.is_visited() {
            return Ok(());
        }
        let (columns, lines) = self.terminal.size();
        let prompt = self.line.as_ref().map_or(Prompt::Keys, |line| Prompt::Line(line.text()));
        let shown = rows(&self.model, &self.command, &prompt, (columns.into(), lines.into()), Instant::now());
        let mut frame = String::from("\x1b[?2026h\x1b[H");
        for (n, row) in shown.iter().take(lines.into()).enumerate() {
            frame.push_str(if n == 0 { "" } else { "\r\n" });
            frame.push_str(&row.render(columns.into()));
            frame.push_str("\x1b[K");
        }
        frame.push_str("\x1b[?2026l");
        write(frame.as_bytes())
    }
}
