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
//! | [`ring`] | the last bytes of a stream, by offset | what they are |
//! | [`audit`] | one line for each terminal and command | what may run |
//! | [`own_file`] | opens what is written for its owner alone | what is written |
//! | [`identity`] | remembers ids across restarts | when to register |
//! | [`logging`], [`cli`] | log lines, command line | what is logged or run |
//! | [`doctor`] | looks for what is wrong between this machine and the console | how to mend it |
//! | [`report`] | the one channel by which these tell the loop what happened | what follows from it |
//! | [`restart`] | starts the program anew after a panic | what panicked |
//! | [`sys`] | the only `unsafe` | policy |

pub mod agent;
pub mod audit;
pub mod cli;
pub mod command;
pub mod config;
pub mod doctor;
pub mod identity;
pub mod link;
pub mod logging;
pub mod metrics;
pub mod own_file;
pub mod protocol;
pub mod replay;
pub mod report;
pub mod restart;
pub mod ring;
pub mod sys;
pub mod terminal;
mod utf8;
