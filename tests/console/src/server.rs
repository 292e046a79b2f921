//! The accept loop and the HTTP part: answers registrations and upgrades.
//!
//! `link` handles messages. An [`Acceptor`] can put another layer, such as TLS, on every accepted TCP connection.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_channel::Receiver;
use async_net::{TcpListener, TcpStream};
use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use futures_lite::{AsyncRead, AsyncWrite, FutureExt};
use smol::{LocalExecutor, Timer};

use crate::ending::reset;
use crate::fault::Faults;
use crate::http::{self, Request};
use crate::link::Link;
use crate::order::{Order, Ordered};
use crate::personality::Personality;
use crate::poison::INSTANCE_ID_CHARS_MAX;
use crate::record::What;
use crate::registry::{AUTHENTICATION_REASON, REPLACED_REASON};
use crate::script::{Answer, AnswerKind, Response, UpgradeKind};
use crate::store::{LinkEntry, Shared};

/// The stream under HTTP and WebSocket.
pub trait Wire: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

/// An accepted connection on its way to becoming a [`Wire`].
pub type Accepting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Wire>>>>>;

/// Turns an accepted TCP connection into a stream, for example with TLS.
pub trait Acceptor: Send + Sync + 'static {
    /// Called once for each connection; an error drops it.
    fn accept(&self, tcp: TcpStream) -> Accepting;
}

/// No acceptor: HTTP and WebSocket directly on TCP.
pub(crate) struct Plain;

impl Acceptor for Plain {
    fn accept(&self, tcp: TcpStream) -> Accepting {
        Box::pin(async move { Ok(Box::new(tcp) as Box<dyn Wire>) })
    }
}

/// An order from the handle to the server's thread.
pub(crate) enum Control {
    /// Accept on this listener from now on, instead of any other.
    Listen(std::net::TcpListener),
    /// Accept no more; the answer comes when the old listener is closed.
    Deaf(async_channel::Sender<()>),
}

/// What every connection needs.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) shared: Arc<Shared>,
    pub(crate) acceptor: Arc<dyn Acceptor>,
    pub(crate) executor: Rc<LocalExecutor<'static>>,
}

/// Accepts connections until the handle is gone.
pub(crate) async fn run(server: Server, control: Receiver<Control>) {
    let mut listener: Option<TcpListener> = None;
    loop {
        let order = async { Turn::Control(control.recv().await.ok()) };
        let turn = match &listener {
            Some(listener) => order.or(async { Turn::Accepted(listener.accept().await) }).await,
            None => order.await,
        };
        match turn {
            Turn::Control(None) => return,
            Turn::Control(Some(Control::Listen(socket))) => {
                listener = TcpListener::try_from(socket).ok();
            }
            Turn::Control(Some(Control::Deaf(done))) => {
                listener = None;
                let _ = done.send(()).await; // the receiver may be gone
            }
            Turn::Accepted(Ok((tcp, _))) => {
                server.shared.change(|state| state.accepted += 1);
                let connection = server.clone();
                server.executor.spawn(async move { connection.serve(tcp).await }).detach();
            }
            // For example without free descriptors: wait a moment instead of spinning.
            Turn::Accepted(Err(_)) => drop(Timer::after(Duration::from_millis(50)).await),
        }
    }
}

enum Turn {
    Control(Option<Control>),
    Accepted(io::Result<(TcpStream, std::net::SocketAddr)>),
}

impl Server {
    /// Serves one TCP connection. An error ends it without an answer.
    async fn serve(self, tcp: TcpStream) {
        let _ = tcp.set_nodelay(true); // only latency
        let Ok(mut wire) = self.acceptor.accept(tcp.clone()).await else {
            return;
        };
        let mut buffer = Vec::new();
        while let Ok(Some(request)) = http::read_request(&mut *wire, &mut buffer).await {
            if request.is_upgrade() {
                return self.upgrade(wire, tcp, request, buffer).await;
            }
            let last = request.is_last();
            if self.answer(&mut *wire, &tcp, request).await.is_err() || last {
                return;
            }
        }
    }

    /// Answers a request that is no upgrade. An error means that the connection is over.
    async fn answer(&self, wire: &mut dyn Wire, tcp: &TcpStream, request: Request) -> io::Result<()> {
        let personality = self.shared.look().personality.clone();
        let path = request.path.strip_prefix(&personality.prefix).unwrap_or_default();
        if !path.starts_with("/api/v1/instances") {
            self.shared.change(|state| state.push(0, What::Other(request)));
            return http::write(wire, &http::encode(&Response::new(404))).await;
        }
        let served = path == personality.registration_path && request.method == "POST";
        let answer = self.shared.change(|state| {
            let scripted = state.answers.pop_front().or_else(|| state.usual_answer.clone()).unwrap_or_default();
            // Scripts apply to the served path only; another path gets 404.
            if served { scripted } else { requeue(scripted, state) }
        });
        Timer::after(answer.delay).await;
        let kind = match answer.kind {
            AnswerKind::Usual => AnswerKind::Response(self.judge(&personality, served, &request)),
            kind => kind,
        };
        self.record_registration(request, &kind);
        self.write_answer(wire, tcp, kind).await
    }

    fn record_registration(&self, request: Request, kind: &AnswerKind) {
        let status = match kind {
            AnswerKind::Response(response) => response.status,
            AnswerKind::Usual | AnswerKind::Garbage(_) | AnswerKind::Silence | AnswerKind::ResetMidway(_) => 0,
        };
        self.shared.change(|state| state.push(0, What::Registration(request, status)));
    }

    async fn write_answer(&self, wire: &mut dyn Wire, tcp: &TcpStream, kind: AnswerKind) -> io::Result<()> {
        match kind {
            AnswerKind::Usual => Ok(()),
            AnswerKind::Response(response) => http::write(wire, &http::encode(&response)).await,
            AnswerKind::Garbage(bytes) => {
                http::write(wire, &bytes).await?;
                Err(io::ErrorKind::Other.into())
            }
            AnswerKind::Silence => wait_for_the_end(wire).await,
            AnswerKind::ResetMidway(response) => {
                let bytes = http::encode(&response);
                http::write(wire, bytes.get(..bytes.len() / 2).unwrap_or_default()).await?;
                reset(tcp);
                Err(io::ErrorKind::Other.into())
            }
        }
    }

    fn judge(&self, personality: &Personality, served: bool, request: &Request) -> Response {
        if !served {
            return Response::json(404, &serde_json::json!({"error": "Not Found"}));
        }
        self.shared.change(|state| {
            if request.header("Authorization") != Some(&format!("Bearer {}", state.key)) {
                return Response::json(
                    401,
                    &serde_json::json!({"error": "Unauthorized", "message": "Invalid API key"}),
                );
            }
            state.registry.register(personality, request, Instant::now())
        })
    }

    /// Answers an upgrade, and serves the link when there is one.
    async fn upgrade(self, mut wire: Box<dyn Wire>, tcp: TcpStream, request: Request, rest: Vec<u8>) {
        let (number, personality, script) = self.shared.change(|state| {
            state.last_connection += 1;
            state.push(state.last_connection, What::Upgrade(request.clone()));
            let script = state.upgrades.pop_front().or_else(|| state.usual_upgrade.clone()).unwrap_or_default();
            (state.last_connection, state.personality.clone(), script)
        });
        Timer::after(script.delay).await;
        let mut switching = Response::new(101);
        let accept = match &script.kind {
            UpgradeKind::Hang => return drop(wait_for_the_end(&mut *wire).await),
            UpgradeKind::Reset => return reset(&tcp),
            UpgradeKind::Refuse(response) => {
                return drop(http::write(&mut *wire, &http::encode(response)).await);
            }
            UpgradeKind::WrongAccept => "AAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned(),
            UpgradeKind::Usual | UpgradeKind::Close(..) => request.accept_key(),
        };
        let refusal = match self.welcome(&personality, &request) {
            Welcome::Destroy => return reset(&tcp),
            Welcome::Refuse(response) => {
                return drop(http::write(&mut *wire, &http::encode(&response)).await);
            }
            Welcome::CloseAfterwards(reason) => Some((1008, reason)),
            Welcome::Come => None,
        };
        for (name, value) in [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", &accept)] {
            switching.headers.push((name.to_owned(), value.to_owned()));
        }
        let id = request.header("X-Instance-ID").filter(|id| !id.is_empty()).map(str::to_owned);
        let (orders, inbox) = async_channel::unbounded();
        self.open(number, id.clone().filter(|_| refusal.is_none()), orders);
        if http::write(&mut *wire, &http::encode(&switching)).await.is_err() {
            return;
        }
        let config = WebSocketConfig::default()
            .max_message_size(Some(personality.message_bytes_max))
            .max_frame_size(Some(personality.message_bytes_max));
        let faults = Faults::new(wire);
        let socket = WebSocketStream::from_partially_read(faults, rest, Role::Server, Some(config)).await;
        let id = id.filter(|_| refusal.is_none());
        Link::new(self.shared, number, id, (socket, tcp), inbox, &personality, (script, refusal)).run().await;
    }

    /// Enters the link in the tables, just before the 101 goes out.
    fn open(&self, number: u32, id: Option<String>, orders: async_channel::Sender<Ordered>) {
        self.shared.change(|state| {
            if let Some(id) = &id {
                if id.chars().count() > INSTANCE_ID_CHARS_MAX && state.personality.dies_of_poison {
                    state
                        .poison
                        .get_or_insert_with(|| format!("an X-Instance-ID of {} characters", id.chars().count()));
                }
                let replaced = state.registry.connected(id, number).and_then(|old| state.links.get(&old));
                if let Some(old) = replaced.filter(|_| state.personality.replaces) {
                    // It may just have ended.
                    let _ = old.orders.try_send((Order::Close(1001, REPLACED_REASON.to_owned()), None));
                }
            }
            state.links.insert(number, LinkEntry { orders, id, attached: false });
            state.push(number, What::Opened);
        });
    }

    /// The personality's answer to an upgrade.
    fn welcome(&self, personality: &Personality, request: &Request) -> Welcome {
        let path = request.path.strip_prefix(&personality.prefix).unwrap_or_default();
        if path != "/ws/agent" {
            let slash = path.ends_with('/') && personality.refuses_after_upgrade;
            return if slash { Welcome::Destroy } else { Welcome::Refuse(Response::new(404)) };
        }
        let state = self.shared.look();
        if request.header("Authorization") != Some(&format!("Bearer {}", state.key)) {
            return match personality.refuses_after_upgrade {
                true => Welcome::CloseAfterwards(AUTHENTICATION_REASON.to_owned()),
                false => Welcome::Refuse(Response::new(401)),
            };
        }
        match request.header("X-Instance-ID").filter(|id| !id.is_empty()) {
            Some(id) if !state.registry.knows(personality, id) => {
                Welcome::CloseAfterwards(format!("Unknown instance ID: {id}"))
            }
            Some(_) | None => Welcome::Come,
        }
    }
}

enum Welcome {
    /// The socket is destroyed without an answer.
    Destroy,
    Refuse(Response),
    /// 101, then close 1008 with this reason.
    CloseAfterwards(String),
    Come,
}

/// Puts an answer back that was meant for another path.
fn requeue(answer: Answer, state: &mut crate::store::State) -> Answer {
    if state.usual_answer.is_none() && !matches!((&answer.kind, answer.delay), (AnswerKind::Usual, Duration::ZERO)) {
        state.answers.push_front(answer);
    }
    Answer::default()
}

/// Sends nothing until the other side closes.
async fn wait_for_the_end(wire: &mut dyn Wire) -> io::Result<()> {
    use futures_lite::AsyncReadExt;
    let mut rest = [0_u8; 1024];
    while wire.read(&mut rest).await? > 0 {}
    Err(io::ErrorKind::UnexpectedEof.into())
}
