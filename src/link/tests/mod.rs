//! The link against real sockets on loopback: what it sends, and what it reports.

use super::*;
use crate::config::{ConsoleUrl, Secret};
use crate::report::{self, Reporter};
use async_channel::Receiver;
use async_io::{Async, Timer};
use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::Message;
use async_tungstenite::tungstenite::handshake::server::{Request, Response};
use async_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use draupnir_fsm::driver::Failure;
use draupnir_fsm::driver::LinkId;
use futures_lite::future::{self, block_on};
use futures_lite::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use futures_lite::stream::StreamExt;
use futures_sink::Sink;
use std::future::{Future, poll_fn};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::pin::Pin;
use std::time::Duration;

mod conformance;
mod life;
mod reach;
mod tls;
mod tunnel;

/// Nothing on loopback takes this long; a test that waits for it has failed.
const DEADLINE: Duration = Duration::from_secs(20);

const KEY: &str = "sk-test-0123456789";

/// A link, the loop's end of its reports, and a console that the test plays.
struct Rig {
    link: Link,
    reports: Receiver<report::Report>,
    listener: Async<TcpListener>,
}

type Console<S = Async<TcpStream>> = WebSocketStream<S>;

impl Rig {
    fn new(executor: &Rc<LocalExecutor<'static>>) -> Self {
        Self::aimed(executor, |_| {})
    }

    /// A link whose target the test has changed.
    fn aimed(executor: &Rc<LocalExecutor<'static>>, aim: impl FnOnce(&mut Target)) -> Self {
        let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).expect("loopback");
        let port = listener.get_ref().local_addr().expect("an address").port();
        let mut target =
            Target { url: url("http", "127.0.0.1", port), key: Secret::new(KEY), trust: Trust::default(), proxy: None };
        aim(&mut target);
        let (reporter, reports): (Reporter, _) = report::channel();
        let link = Link::new(target, Rc::clone(executor), reporter).expect("a legal key");
        Self { link, reports, listener }
    }

    async fn report(&self) -> LinkReport {
        match within(self.reports.recv()).await.expect("the link reports") {
            report::Report::Link(report) => report,
            other => panic!("not from the link: {other:?}"),
        }
    }

    async fn accept(&self) -> Async<TcpStream> {
        within(self.listener.accept()).await.expect("a connection").0
    }

    /// Dials and upgrades; the test is the console from then on.
    async fn connect(&mut self) -> Console {
        self.link.dial(LinkId(1), "inst-1");
        let console = accept_websocket(self.accept().await).await;
        assert!(matches!(self.report().await, LinkReport::Opened { link: LinkId(1) }));
        console
    }

    /// Reads a request, answers with these bytes and ends the connection.
    async fn answer(&self, answer: &str) -> String {
        let mut stream = self.accept().await;
        let request = read_request(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.expect("answered");
        stream.get_ref().shutdown(Shutdown::Write).expect("ended");
        request
    }
}

fn url(scheme: &str, host: &str, port: u16) -> ConsoleUrl {
    ConsoleUrl::parse(&format!("{scheme}://{host}:{port}/mimir/")).expect("a URL")
}

/// The same console over TLS.
fn with_tls(target: &mut Target) {
    target.url = url("https", "127.0.0.1", target.url.port());
}

async fn within<T>(event: impl Future<Output = T>) -> T {
    let late = async {
        Timer::after(DEADLINE).await;
        panic!("it did not happen in time");
    };
    future::or(event, late).await
}

fn run(story: impl AsyncFnOnce(Rig)) {
    run_aimed(|_| {}, story);
}

fn run_aimed(aim: impl FnOnce(&mut Target), story: impl AsyncFnOnce(Rig)) {
    let executor = Rc::new(LocalExecutor::new());
    let rig = Rig::aimed(&executor, aim);
    block_on(executor.run(story(rig)));
}

#[allow(clippy::result_large_err)] // The signature is the library's.
async fn accept_websocket<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> Console<S> {
    let check = |request: &Request, response: Response| {
        assert_eq!(request.uri().path(), "/mimir/ws/agent");
        assert_eq!(request.headers()["authorization"], format!("Bearer {KEY}"));
        assert_eq!(request.headers()["x-instance-id"], "inst-1");
        assert!(request.headers()["user-agent"].to_str().expect("text").starts_with("sindri-agent/"));
        Ok(response)
    };
    within(async_tungstenite::accept_hdr_async(stream, check)).await.expect("an upgrade")
}

async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut request = Vec::new();
    let mut byte = [0];
    let mut left = usize::MAX;
    while left > 0 && within(stream.read(&mut byte)).await.expect("a request") == 1 {
        request.push(byte[0]);
        left -= 1;
        if left > 1 << 40 && request.ends_with(b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&request).to_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next());
            left = length.map_or(0, |text| text.parse().expect("a length"));
        }
    }
    String::from_utf8(request).expect("text")
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(console: &mut Console<S>, message: Message) {
    within(console.send(message)).await.expect("sent");
}

async fn hear<S: AsyncRead + AsyncWrite + Unpin>(console: &mut Console<S>) -> Message {
    within(console.next()).await.expect("a message").expect("a whole one")
}

async fn say_without_reading(console: &mut Console, message: Message) {
    let mut console = Pin::new(console);
    within(poll_fn(|cx| console.as_mut().poll_ready(cx))).await.expect("room");
    console.as_mut().start_send(message).expect("queued");
    within(poll_fn(|cx| Sink::poll_flush(console.as_mut(), cx))).await.expect("flushed");
}
