//! The console alone, for development: it listens on a port and prints a line for each record.
//!
//! It sends no commands; the demo does. It runs until SIGINT.
//!
//!     cargo run -p draupnir-console -- [--port N] [--personality designed|production] [--key KEY]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use draupnir_console::{API_KEY, Console, Keep, Personality};

/// The deadline of waits, which should never end here: a year.
const EVER: Duration = Duration::from_secs(365 * 24 * 3600);

const USAGE: &str = "usage: console [--port N] [--personality designed|production] [--key KEY]";

fn main() -> ExitCode {
    let Some((port, personality, key)) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(64);
    };
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let console = Console::builder(personality).address(address).key(&key).keep(Keep::Counts).start();
    println!("SINDRI_CONSOLE_URL={} SINDRI_CONSOLE_API_KEY={}", console.url(), console.key());
    let mut view = console.within(EVER);
    while let Some(record) = view.take_next() {
        println!("{}", record.summary());
    }
    ExitCode::SUCCESS
}

fn arguments() -> Option<(u16, Personality, String)> {
    let (mut port, mut personality, mut key) = (0, Personality::production(), API_KEY.to_owned());
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let value = arguments.next()?;
        match (flag.as_str(), value.as_str()) {
            ("--port", number) => port = number.parse().ok()?,
            ("--personality", "designed") => personality = Personality::designed(),
            ("--personality", "production") => personality = Personality::production(),
            ("--key", _) => key = value,
            _ => return None,
        }
    }
    personality.dies_of_poison = false; // it is printed, and the console goes on
    Some((port, personality, key))
}
