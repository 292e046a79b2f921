//! The half of Draupnir that does: it owns every socket, child and timer, and decides nothing.
//!
//! | module | what it does | what it does not know |
//! |---|---|---|
//! | [`config`] | the only reader of environment variables | anything else |
//! | [`agent`] | the loop: reports in, facts to the machine, orders out | how anything is done |
//! | [`protocol`] | the wire as types; `PROTOCOL.md` is its public description | sockets |
//! | [`link`] | reaches the console: DNS, TCP, proxy, TLS, registration, WebSocket | what the messages mean |
//! | [`terminal`], [`command`] | PTY sessions, one-off commands | the link, the loop, each other |
//! | [`metrics`] | what the machine is doing | the rest |
//! | [`sindri`] | which extensions are installed, and what changed | the link, the loop |
//! | [`ring`] | the last bytes of a stream, by offset | what they are |
//! | [`audit`] | one line for each terminal and command | what may run |
//! | [`own_file`] | opens and replaces what is written for its owner alone | what is written |
//! | [`file_timeout`] | limits the time of a call that opens or reads a file | what is read |
//! | [`preflight`] | checks the files that the configuration names before the start | their later use |
//! | [`nearest`] | finds the known name closest to a mistyped one | what the names mean |
//! | [`identity`] | remembers ids across restarts | when to register |
//! | `own_log` | keeps the agent's own log file short | what is logged |
//! | [`logging`], [`cli`] | log lines, command line | what is logged or run |
//! | [`doctor`] | looks for what is wrong between this machine and the console | how to mend it |
//! | [`report`] | the one channel by which these tell the loop what happened | what follows from it |
//! | [`restart`] | starts the program again after a panic | what panicked |
//! | [`sys`] | the only `unsafe` | policy |

pub mod agent;
pub mod audit;
pub mod cli;
pub mod command;
pub mod config;
pub mod doctor;
pub mod file_timeout;
pub mod identity;
pub mod link;
pub mod logging;
pub mod metrics;
pub mod nearest;
pub mod own_file;
mod own_log;
pub mod preflight;
pub mod protocol;
pub mod replay;
pub mod report;
pub mod restart;
pub mod ring;
pub mod sindri;
pub mod sys;
pub mod terminal;
mod utf8;
pub mod writer;
