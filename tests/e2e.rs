//! The end-to-end tests: the real agent against a console of this project, a file a topic.
//!
//! They are one program, because linking one is faster than linking sixty. `cargo test --test e2e hand_over::` runs the
//! tests of one file. A test whose own process is measured is a program of its own.

mod support;

mod audit;
mod command_end;
mod command_execution;
mod command_once;
mod command_output;
mod configuration;
mod contract;
mod delivery_cuts;
mod delivery_flow;
mod delivery_ledger;
mod doctor;
#[cfg(target_os = "linux")]
mod doctor_machine;
mod drain;
mod events;
#[cfg(target_os = "linux")]
mod first_process;
mod foreign_console;
mod golden_vectors;
mod greeting;
#[cfg(target_os = "linux")]
mod hand_over;
mod harness;
mod heartbeat;
#[cfg(target_os = "linux")]
mod hostile_host;
#[cfg(target_os = "linux")]
mod hung_files;
#[cfg(target_os = "linux")]
mod hung_start;
mod identity;
#[cfg(target_os = "linux")]
mod journal;
mod link_dial;
mod link_proxy;
mod link_tls;
mod llm_http;
mod llm_proxy;
mod llm_refusals;
mod llm_usage;
mod locks;
mod log_following;
mod logs;
#[cfg(target_os = "linux")]
mod malicious_console;
mod manual;
#[cfg(target_os = "linux")]
mod metrics_golden;
mod metrics_message;
mod native_frames;
mod panic;
mod protocol_document;
mod readme_table;
mod reconnect;
mod recording;
mod registration;
mod secrets;
mod security_document;
#[cfg(target_os = "linux")]
mod service_manager;
#[cfg(target_os = "linux")]
mod signals;
mod sindri;
#[cfg(target_os = "linux")]
mod status;
#[cfg(target_os = "linux")]
mod terminal_end;
mod terminal_fairness;
mod terminal_output;
mod terminal_reattach;
mod terminal_shell;
mod terminal_snapshot;
mod textfile;
mod upgrade;
