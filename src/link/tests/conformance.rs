//! The client that Autobahn's fuzzing server judges (`tests/conformance/run`): it returns every message that it gets.
//!
//! The socket is the agent's own: its upgrade, its configuration, its read limit, its way to close. The test only hands
//! messages back, one at a time, as the loop hands over one batch at a time.

use super::super::dial::Dialer;
use super::super::socket::WsConnection;
use super::super::{resolve, upgrade};
use super::*;
use crate::protocol::InstanceId;
use std::collections::VecDeque;

/// Where the fuzzing server listens, as `host:port`.
const SERVER: &str = "DRAUPNIR_FUZZING_SERVER";

/// The name under which the server reports.
const AGENT: &str = "draupnir";

/// A case of sections 9 and 10 sends a thousand messages or 16 MiB, and the read limit takes its time.
const CASE_MAX: Duration = Duration::from_secs(120);

/// Runs one connection to its end and returns its text messages. Where `is_echo`, every message goes back.
async fn connect(dialer: &Dialer, path: &str, is_echo: bool) -> Vec<String> {
    let id = InstanceId::new(AGENT).expect("a legal id");
    let stream = dialer.open(Progress::default()).await.expect("the fuzzing server listens");
    let socket = upgrade::upgrade_at(dialer, stream, &id, path).await.expect("the fuzzing server upgrades");
    let (reporter, reports) = report::channel();
    let connection = WsConnection::default();
    let story = async {
        let (mut texts, mut waiting, mut is_writing) = (Vec::new(), VecDeque::new(), false);
        loop {
            let report::Report::Link(report) = reports.recv().await.expect("the socket reports") else {
                panic!("not from the link")
            };
            match report {
                LinkReport::Text { text, .. } => {
                    texts.push(text.to_string());
                    waiting.push_back(Message::text(text.to_string()));
                }
                LinkReport::Binary { .. } => {
                    waiting.push_back(connection.binaries.borrow_mut().pop_front().expect("its content is kept"));
                }
                LinkReport::Written { .. } => is_writing = false,
                LinkReport::Closed { .. } => return texts,
                _ => {}
            }
            if is_echo
                && !is_writing
                && connection.is_open()
                && let Some(message) = waiting.pop_front()
            {
                connection.write_messages([message]);
                is_writing = true;
            }
        }
    };
    let run = connection.run(LinkId(1), socket, &dialer.target.key, &reporter);
    let ended = async { future::zip(story, run).await.0 };
    let late = async {
        Timer::after(CASE_MAX).await;
        panic!("{path} did not end within {CASE_MAX:?}");
    };
    future::or(ended, late).await
}

#[test]
#[ignore = "needs a fuzzing server, which tests/conformance/run starts"]
fn fuzzing_server_gets_every_message_back() {
    let server = std::env::var(SERVER).expect("tests/conformance/run names the server");
    let url = ConsoleUrl::parse(&format!("http://{server}")).expect("host:port");
    let target = Target { url, key: Secret::new(KEY), trust: Trust::default(), proxy: None };
    let executor = Rc::new(LocalExecutor::new());
    let dialer = Dialer::new(target, Rc::clone(&executor), resolve::system()).expect("a legal key");
    block_on(executor.run(async {
        let count = connect(&dialer, "/getCaseCount", false).await;
        let count: u32 = count.first().expect("a count").parse().expect("a number");
        for case in 1..=count {
            connect(&dialer, &format!("/runCase?case={case}&agent={AGENT}"), true).await;
        }
        connect(&dialer, &format!("/updateReports?agent={AGENT}"), false).await;
    }));
}
