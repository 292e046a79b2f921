//! Asks a program whether it can take over: it is started as a child and reads the state, and does nothing else.

use super::state::{Format, SCHEMA, State};
use super::{own_program, previous_program};
use crate::sys::environment::Environment;
use crate::sys::spawn::{Program, spawn};
use async_io::{Async, Timer};
use draupnir_fsm::driver::HAND_OVER_ASK_MS;
use futures_lite::future::{or, zip};
use rustix::io::Errno;
use rustix::process::Signal;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// The argument that asks; the schema of the state follows it.
pub const ARGUMENT: &str = "--can-take-over";

/// What a program prints that can. Its exit status alone would not tell it from any other program.
const YES: &str = "can take over";

/// How long a program may take to answer: less than the driver waits for both.
const ANSWER_MAX: Duration = Duration::from_millis(HAND_OVER_ASK_MS - 500);

/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 512;

/// Why a program cannot take over. The operator should look at the program.
#[derive(Debug, thiserror::Error)]
pub enum No {
    /// It did not start.
    #[error("{} does not start: {}", .program.display(), .cause)]
    NotStarted {
        /// The program.
        program: PathBuf,
        /// Why.
        cause: String,
    },
    /// It said something else, or nothing.
    #[error("{} ends with status {} and says {:?}", .program.display(), .status, .answer)]
    Refused {
        /// The program.
        program: PathBuf,
        /// Its exit status.
        status: i32,
        /// What it printed.
        answer: String,
    },
    /// It did not end in time, and was killed.
    #[error("{} does not answer in time", .program.display())]
    NoAnswer {
        /// The program.
        program: PathBuf,
    },
    /// The machine is out of descriptors or memory.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// Answers the question: 0 if the state on standard input can be read.
pub fn answer(schema: u32) -> ExitCode {
    let read = || {
        if schema > SCHEMA {
            return Err(Format::Newer(schema));
        }
        super::read(&io::stdin().as_fd().try_clone_to_owned().map_err(|_| Format::Unreadable)?.into()).map(drop)
    };
    let (text, status) = match read() {
        Ok(()) => (YES.to_owned(), ExitCode::SUCCESS),
        Err(error) => (error.to_string(), ExitCode::FAILURE),
    };
    // Without a reader there is no question.
    let _ = writeln!(io::stdout(), "{text}");
    status
}

/// Asks the program at the agent's own path about this state, and the one before it, whose path is the answer if it can
/// take over as well.
pub async fn ask(mut state: State) -> Result<Option<String>, No> {
    let file = super::write(&mut state)?;
    drop(state);
    let previous = previous_program();
    let asked = async {
        let is_there = previous.exists();
        let file = file.try_clone()?;
        if is_there { ask_program(previous.clone(), file).await } else { Err(io::Error::from(Errno::NOENT).into()) }
    };
    let (new, old) = zip(ask_program(own_program().to_owned(), file.try_clone()?), asked).await;
    new?;
    Ok(old.ok().and_then(|()| previous.into_os_string().into_string().ok()))
}

async fn ask_program(program: PathBuf, state: OwnedFd) -> Result<(), No> {
    let not_started = |cause: String| No::NotStarted { program: program.clone(), cause };
    let (reads, writes) = io::pipe()?;
    let silent = File::options().write(true).open("/dev/null")?;
    let schema = SCHEMA.to_string();
    let (child, start) = spawn(&Program {
        path: program.as_os_str(),
        name: None,
        arguments: &[ARGUMENT.into(), schema.into()],
        environment: &Environment::default(),
        home: Path::new("/"),
        directory: None,
        stdio: [state.as_fd(), writes.as_fd(), silent.as_fd()],
        controlling_terminal: false,
    })
    .map_err(|error| not_started(error.to_string()))?;
    drop((state, writes, silent));
    let reads = Async::new(OwnedFd::from(reads))?;
    let answered = async {
        start.done(&child).await.map_err(|error| not_started(error.to_string()))?;
        let answer = read_all(&reads).await;
        let status = child.exited().await;
        if status == 0 && answer.trim_end() == YES {
            return Ok(());
        }
        Err(No::Refused { program: program.clone(), status, answer })
    };
    let too_late = async {
        Timer::after(ANSWER_MAX).await;
        Err(No::NoAnswer { program: program.clone() })
    };
    let answer = or(answered, too_late).await;
    // It has ended, or is in the way. One that hangs in the kernel is reaped when it comes out.
    child.signal_group(Signal::KILL);
    answer
}

/// What it prints, until it closes its output; no more than an answer may have.
async fn read_all(reads: &Async<OwnedFd>) -> String {
    let (mut answer, mut buffer) = (Vec::new(), [0; ANSWER_BYTES_MAX]);
    loop {
        match rustix::io::read(reads, &mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if reads.readable().await.is_ok() => {}
            Err(_) => break,
        }
        if answer.len() >= ANSWER_BYTES_MAX {
            break;
        }
    }
    String::from_utf8_lossy(&answer).trim_end().chars().take(ANSWER_BYTES_MAX).collect()
}
