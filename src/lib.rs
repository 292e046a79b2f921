//! The agent's input and output: sockets, child processes, files and timers. `draupnir_fsm` makes the decisions.
//!
//! | module | what it does | what it does not know |
//! |---|---|---|
//! | [`config`] | the only reader of environment variables | anything else |
//! | [`agent`] | the loop: takes reports, gives facts to the machine, runs its orders | how anything is done |
//! | [`protocol`] | the messages as types; `PROTOCOL.md` describes them | sockets |
//! | [`link`] | reaches the console: DNS, TCP, proxy, TLS, registration, WebSocket | what the messages mean |
//! | [`terminal`], [`command`] | run PTY sessions and one-off commands | the link, the loop, each other |
//! | [`metrics`] | measures the machine and the instance | the rest |
//! | [`llm`] | the proxy that counts the tokens of AI tools | prices, when records are sent |
//! | [`sindri`] | finds the installed extensions and their changes | the link, the loop |
//! | `park` | runs the loop's thread, and what it waits for | what it runs |
//! | [`ring`] | keeps the last bytes of a stream, by offset | what they mean |
//! | [`audit`] | writes one line for each terminal and command | what may run |
//! | [`own_file`] | opens and replaces files that only their owner may read | what is written |
//! | [`file_timeout`] | limits the time of a call that opens or reads a file | what is read |
//! | [`preflight`] | checks the files that the configuration names before the start | their later use |
//! | [`nearest`] | finds the known name closest to a mistyped one | what the names mean |
//! | [`identity`] | keeps the ids from consoles across restarts | when to register |
//! | [`journal`] | keeps results and ids of commands across the death of the process | when to record what |
//! | [`logs`] | follows log files and reads their lines | when they are sent |
//! | `own_log` | bounds the size of the agent's own log file | what is logged |
//! | [`logging`], [`cli`] | write log lines; parse the command line | what is logged or run |
//! | [`doctor`] | finds faults between this machine and the console | how to mend them itself |
//! | [`status`] | answers on the Unix socket, asks there, and writes the text file of figures | the loop |
//! | [`service`] | the datagrams to the service manager | when they are due |
//! | [`hand_over`] | replaces the program by the one at its own path, with all that it has | when |
//! | [`report`] | the channel through which these modules report to the loop | how the loop reacts |
//! | [`restart`] | starts the program again after a panic | what panicked |
//! | [`sys`] | the only `unsafe` code: system calls | policy |

pub mod agent;
pub mod audit;
mod base64;
pub mod cli;
pub mod command;
pub mod config;
pub mod doctor;
pub mod file_timeout;
pub mod hand_over;
pub mod identity;
pub mod journal;
mod json;
pub mod link;
pub mod llm;
pub mod logging;
pub mod logs;
pub mod metrics;
pub mod nearest;
pub mod own_file;
mod own_log;
mod park;
pub mod preflight;
pub mod protocol;
pub mod replay;
pub mod report;
pub mod restart;
pub mod ring;
pub mod service;
pub mod sindri;
pub mod status;
pub mod sys;
pub mod terminal;
mod utf8;
pub mod writer;
