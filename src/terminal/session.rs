//! A starting or running session: its terminal, its shell, and the two tasks that carry bytes and await the end.
//!
//! The loop decides when it ends. One task reads and writes the terminal, the other waits for the shell. Neither
//! blocks, so a session that makes no progress delays no other.

use super::TerminalReport;
use super::hand_over::SavedShell;
use super::input::{Input, InputRefused};
use super::output::{Output, TAIL_MS};
use super::pty::{Pty, Size};
use super::sweep::Sweeper;
use crate::park;
use crate::report::Reporter;
use crate::sys::child::Child;
use crate::sys::spawn::{SpawnError, Start};
use async_channel::{Receiver, Sender};
use async_io::Timer;
use draupnir_fsm::driver::SessionKey;
use futures_lite::future::{poll_fn, yield_now};
use rustix::process::Signal;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The most that is read of one session before the next has its turn, in bytes: a frame.
const TURN_BYTES: usize = 32 << 10;

/// The most that is read at once, in bytes: twice what a terminal of Linux gives.
const READ_BYTES: usize = 8 << 10;

/// The most that is read of a terminal before it is closed, in bytes: several times what the kernel holds for one
/// (about 12 KiB), and a bound if a program goes on printing.
const REST_BYTES_MAX: usize = 64 << 10;

/// How long after a key the next one is expected, and output is waited for without the reactor: people pause that long.
const TYPING: Duration = Duration::from_secs(10);

/// How long a program has the wrong size that makes it draw again, in milliseconds. A program reads its size some time
/// after SIGWINCH; if it gets its old size back too soon, it sees no change.
const NUDGE_MS: u64 = 100;

/// How many times as long it has while it prints nothing: on a busy machine it did not run yet.
const NUDGES_MAX: u32 = 10;

/// The buffer that all sessions read into, one after the other.
pub(super) type ReadBuffer = Rc<RefCell<Box<[u8]>>>;

/// One such buffer.
pub(super) fn read_buffer() -> ReadBuffer {
    Rc::new(RefCell::new(vec![0; READ_BYTES].into_boxed_slice()))
}

/// Ends the output of a session without a shell with a line that gives the reason.
pub(super) fn fail(output: &RefCell<Output>, error: &SpawnError) {
    let mut output = output.borrow_mut();
    output.scrollback.append(format!("{error}\r\n").as_bytes());
    output.ended = true;
}

/// A session with a shell.
#[derive(Debug)]
pub(super) struct Session {
    key: SessionKey,
    pty: Pty,
    shell: Rc<Leader>,
    output: Rc<RefCell<Output>>,
    input: RefCell<Input>,
    size: Cell<Size>,
    /// Another size was set to make the program redraw, at this offset of its output; the right one follows.
    nudged: Cell<Option<u64>>,
    /// The last read found nothing.
    drained: Cell<bool>,
    /// When the last input came.
    typed_at: Cell<Option<Instant>>,
    waker: RefCell<Option<Waker>>,
    buffer: ReadBuffer,
}

/// The shell of a session, and the state of its end.
#[derive(Debug)]
struct Leader {
    child: Child,
    /// Its start has succeeded, failed or been given up.
    started: Cell<bool>,
    /// The slave end, as long as the shell runs: a program that closes all of its own may open the terminal again.
    slave: RefCell<Option<OwnedFd>>,
    /// The session was ordered to end, so its remaining processes must be found.
    ending: Cell<bool>,
    gone: Cell<bool>,
}

/// The next thing to do for the terminal.
enum Turn {
    Read,
    Write,
    ReleaseTail,
    RestoreSize,
}

/// What the task waits for besides the terminal.
#[derive(Debug, Default)]
struct Waits {
    /// An incomplete character is sent as it is.
    tail: Option<Timer>,
    /// The size goes back to what it was, after so many waits.
    nudge: Option<Timer>,
    nudges: u32,
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pty.io().as_fd()
    }
}

impl Session {
    pub(super) fn new(
        key: SessionKey,
        pty: Pty,
        child: Child,
        size: Size,
        output: Rc<RefCell<Output>>,
        input: Input,
        buffer: ReadBuffer,
    ) -> Self {
        Self {
            key,
            pty,
            shell: Rc::new(Leader {
                child,
                started: Cell::new(false),
                slave: RefCell::default(),
                ending: Cell::new(false),
                gone: Cell::new(false),
            }),
            output,
            input: RefCell::new(input),
            size: Cell::new(size),
            nudged: Cell::new(None),
            drained: Cell::new(false),
            typed_at: Cell::new(None),
            waker: RefCell::new(None),
            buffer,
        }
    }

    /// Keeps the terminal from ending before the shell does.
    pub(super) fn hold_open(&self, slave: OwnedFd) {
        *self.shell.slave.borrow_mut() = Some(slave);
    }

    /// Goes on with a shell that an earlier program started, and was asked to end or not.
    pub(super) fn resume(&self, slave: Option<OwnedFd>, is_ending: bool) {
        self.shell.started.set(true);
        self.shell.ending.set(is_ending);
        *self.shell.slave.borrow_mut() = slave;
    }

    /// Its shell and its terminal, for the next program.
    pub(super) fn save(&self) -> SavedShell {
        let Size { cols, rows } = self.size.get();
        SavedShell {
            pid: self.shell.child.id().as_raw_nonzero().get().unsigned_abs(),
            terminal: self.pty.io().as_raw_fd(),
            slave: self.shell.slave.borrow().as_ref().map(AsRawFd::as_raw_fd),
            cols,
            rows,
            is_ending: self.shell.ending.get(),
        }
    }

    /// What was typed and the terminal has not taken.
    pub(super) fn typed(&self) -> Vec<u8> {
        self.input.borrow().all()
    }

    /// Writes what was typed, and queues what the terminal does not take at once.
    pub(super) fn input(&self, bytes: &[u8]) -> Result<(), InputRefused> {
        self.restore_size();
        self.typed_at.set(Some(Instant::now()));
        let is_first = self.input.borrow().is_empty();
        // All of it has room, or none of it is typed.
        self.input.borrow_mut().push(bytes)?;
        if is_first {
            self.write();
        }
        if !self.input.borrow().is_empty() {
            self.wake();
        }
        Ok(())
    }

    /// Sets another size.
    pub(super) fn resize(&self, size: Size) {
        self.nudged.set(None);
        self.size.set(size);
        self.output.borrow_mut().resized(size);
        self.pty.resize(size);
    }

    /// Makes a program that used the alternate screen in the last snapshot draw it again, by a change of the size and
    /// back.
    pub(super) fn redraw(&self) {
        if !self.output.borrow().screens.is_alternate || self.nudged.get().is_some() {
            return;
        }
        let size = self.size.get();
        let rows = if size.rows > 1 { size.rows - 1 } else { 2 };
        self.nudged.set(Some(self.output.borrow().scrollback.held().end));
        self.pty.resize(Size { rows, ..size });
        self.wake();
    }

    /// Sends SIGHUP to the process groups in the foreground and of the shell, and SIGCONT, so that stopped ones take
    /// it. Each gets it once: a bash that gets it a second time before it handles the first ends without its jobs.
    pub(super) fn hang_up(&self, sweeper: &Sweeper) {
        self.signal(&[Signal::HUP, Signal::CONT], sweeper);
    }

    /// Sends SIGKILL to the same groups at once, and to all other processes of the session within this executor turn.
    pub(super) fn kill(&self, sweeper: &Sweeper) {
        self.signal(&[Signal::KILL], sweeper);
        sweeper.kill(self.shell.child.id());
    }

    /// Gives up a start that hangs and kills its process. True if the shell had not started yet: the task must run on
    /// until the process can be reaped.
    pub(super) fn give_up_start(&self) -> bool {
        let starts = !self.shell.started.replace(true);
        if starts {
            self.shell.child.signal_group(Signal::KILL);
        }
        starts
    }

    fn signal(&self, signals: &[Signal], sweeper: &Sweeper) {
        let child = &self.shell.child;
        self.pty.signal_foreground(child.id(), signals);
        for signal in signals {
            child.signal_group(*signal);
        }
        // If the shell is gone already, its task does not look for remaining processes any more.
        if !self.shell.ending.replace(true) && self.shell.gone.get() {
            sweeper.report_when_gone(self.key, child.id());
        }
    }

    /// Lets the task look again at what there is to do.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Waits for the shell and then, if the session was ordered to end, for its remaining processes. It holds only the
    /// shell of the session, and reports nothing of a shell that was never reported as opened.
    pub(super) fn await_exit(
        &self,
        opened: Receiver<()>,
        reports: Reporter,
        sweeper: Sweeper,
    ) -> impl Future<Output = ()> + use<> {
        let (key, shell) = (self.key, self.shell.clone());
        async move {
            let is_opened = opened.recv().await.is_ok();
            let code = shell.child.exited().await;
            shell.slave.take();
            if !is_opened {
                return;
            }
            shell.gone.set(true);
            let asks = shell.ending.get();
            reports.report(TerminalReport::Exited { session: key, code }).await;
            if asks {
                sweeper.report_when_gone(key, shell.child.id());
            }
        }
    }

    /// Waits for the start of the shell, and then carries bytes until the terminal ends.
    pub(super) async fn carry(self: Rc<Self>, start: Start, opened: Sender<()>, reports: Reporter) {
        let session = self.key;
        let started = start.done(&self.shell.child).await;
        if self.shell.started.replace(true) {
            return; // Given up, and killed.
        }
        if let Err(error) = started {
            fail(&self.output, &error);
            return reports.report(TerminalReport::OpenFailed { session, error }).await;
        }
        reports.report(TerminalReport::Opened { session }).await;
        // The channel has room: this is its only message.
        let _ = opened.try_send(());
        drop(opened);
        self.carry_on(reports).await;
    }

    /// Carries bytes until the terminal ends.
    pub(super) async fn carry_on(self: Rc<Self>, reports: Reporter) {
        let tail = || Timer::after(Duration::from_millis(TAIL_MS));
        let mut waits = Waits { tail: self.output.borrow().waits_for_rest().then(tail), ..Waits::default() };
        loop {
            let mut woken = false;
            let turn = poll_fn(|cx| {
                let turn = self.poll_turn(cx, &mut waits, woken);
                woken = true;
                turn
            });
            match turn.await {
                Turn::Read => {
                    if self.read() > 0 {
                        let waits_for_rest = self.output.borrow().waits_for_rest();
                        waits.tail = waits_for_rest.then(tail);
                    }
                }
                Turn::Write => self.write(),
                Turn::ReleaseTail => {
                    waits.tail = None;
                    self.output.borrow_mut().release();
                }
                Turn::RestoreSize => {
                    (waits.nudge, waits.nudges) = (None, waits.nudges + 1);
                    let has_printed =
                        self.nudged.get().is_some_and(|at| at < self.output.borrow().scrollback.held().end);
                    if has_printed || waits.nudges == NUDGES_MAX {
                        self.restore_size();
                    }
                }
            }
            self.report_news(&reports).await;
            if self.output.borrow().ended {
                reports.report(TerminalReport::EndOfOutput { session: self.key }).await;
                return;
            }
            yield_now().await;
        }
    }

    async fn report_news(&self, reports: &Reporter) {
        let report = {
            let mut output = self.output.borrow_mut();
            let report = output.has_news() && !output.report_waits;
            output.report_waits |= report;
            report
        };
        if report {
            reports.report(TerminalReport::Output { session: self.key }).await;
        }
    }

    /// The next thing to do; `woken` if this is not the first poll since the last turn. Then it asks the terminal
    /// itself: with the reactor on another thread, a readiness may be stale, and a new one may not have been noted yet.
    fn poll_turn(self: &Rc<Self>, cx: &mut Context<'_>, waits: &mut Waits, woken: bool) -> Poll<Turn> {
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        if !self.input.borrow().is_empty() && (woken || self.pty.io().poll_writable(cx).is_ready()) {
            return Poll::Ready(Turn::Write);
        }
        let has_room = self.output.borrow_mut().room(1) > 0;
        if has_room && (woken || !self.drained.get() || self.poll_readable(cx).is_ready()) {
            return Poll::Ready(Turn::Read);
        }
        if self.nudged.get().is_none() {
            (waits.nudge, waits.nudges) = (None, 0);
        } else if Pin::new(waits.nudge.get_or_insert_with(|| Timer::after(Duration::from_millis(NUDGE_MS))))
            .poll(cx)
            .is_ready()
        {
            return Poll::Ready(Turn::RestoreSize);
        }
        match &mut waits.tail {
            Some(timer) => Pin::new(timer).poll(cx).map(|_| Turn::ReleaseTail),
            None => Poll::Pending,
        }
    }

    /// Waits for output, which is the echo of a key where someone types.
    fn poll_readable(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.typed_at.get().is_some_and(|at| at.elapsed() < TYPING) && park::watch(self, cx.waker()) {
            return Poll::Pending;
        }
        self.pty.io().poll_readable(cx).map(drop)
    }

    /// Reads the available output, within the permission; returns the number of bytes.
    fn read(&self) -> usize {
        let mut output = self.output.borrow_mut();
        let mut buffer = self.buffer.borrow_mut();
        let mut read = 0;
        self.drained.set(false);
        while read < TURN_BYTES {
            let room = output.room(buffer.len());
            let Some(into) = buffer.get_mut(..room).filter(|into| !into.is_empty()) else {
                break;
            };
            match self.pty.read(into) {
                Ok(0) => output.ended = true,
                Ok(count) => {
                    output.scrollback.append(into.get(..count).unwrap_or_default());
                    read += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // The kernel hands over a terminal's output in small parts. The next part is there after the
                    // others had their turn, sooner than the reactor would report it.
                    self.drained.set(read == 0);
                    break;
                }
                // A terminal that cannot be read will not be readable later.
                Err(_) => output.ended = true,
            }
        }
        read
    }

    /// Reads what the terminal still holds, without a permission: the terminal is about to be closed.
    /// The kernel hands over all of it before it says that there is no more.
    pub(super) fn read_rest(&self) {
        let mut output = self.output.borrow_mut();
        let mut buffer = self.buffer.borrow_mut();
        let mut left = REST_BYTES_MAX;
        loop {
            let room = output.room_beyond(buffer.len().min(left));
            let Some(into) = buffer.get_mut(..room).filter(|into| !into.is_empty()) else {
                return;
            };
            let Ok(count @ 1..) = self.pty.read(into) else {
                return;
            };
            output.scrollback.append(into.get(..count).unwrap_or_default());
            left -= count;
        }
    }

    fn write(&self) {
        let mut input = self.input.borrow_mut();
        match self.pty.write(input.front()) {
            Ok(count) => input.taken(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // No process has the terminal open to read it.
            Err(_) => input.clear(),
        }
    }

    fn restore_size(&self) {
        if self.nudged.take().is_some() {
            self.pty.resize(self.size.get());
        }
    }
}
