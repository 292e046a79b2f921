//! The handle: starts the server on its own thread and scripts it.
//!
//! Calls here return at once. Waits are in [`View`], which a console dereferences to. The thread and all its
//! connections end with the last clone of the handle.

use std::net::{SocketAddr, TcpListener};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use async_channel::Sender;
use smol::LocalExecutor;

use crate::browser::Browser;
use crate::connection::Connection;
use crate::order::Order;
use crate::personality::Personality;
use crate::script::{Answer, Upgrade};
use crate::server::{self, Acceptor, Control, Plain, Server};
use crate::store::{Keep, Shared, State};
use crate::stream::Tap;
use crate::view::View;

/// The key that a console accepts unless its builder says otherwise.
pub const API_KEY: &str = "drp_test_7f3b9c51e8a2460db4c7_not_a_secret";

/// A running console. Clones are the same console.
#[derive(Clone, Debug)]
pub struct Console {
    view: View,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    address: SocketAddr,
    url: String,
    control: Sender<Control>,
    thread: Option<JoinHandle<()>>,
}

/// Builds a console.
pub struct Builder {
    personality: Personality,
    address: SocketAddr,
    key: String,
    keep: Keep,
    acceptor: Arc<dyn Acceptor>,
    scheme: &'static str,
    host: Option<String>,
}

impl Builder {
    /// Listens here; port 0 is a free one.
    #[must_use]
    pub fn address(mut self, address: SocketAddr) -> Builder {
        self.address = address;
        self
    }

    /// Listens on a loopback address that no other console has, for tests that close the port for a while: on the usual
    /// address another console could get the port meanwhile. Only Linux has such addresses; elsewhere nothing changes.
    #[must_use]
    pub fn own_address(self) -> Builder {
        static NEXT: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(2);
        if cfg!(not(target_os = "linux")) {
            return self;
        }
        let last = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed).clamp(2, 254);
        self.address(([127, 77, 0, last], 0).into())
    }

    /// Accepts only this key.
    #[must_use]
    pub fn key(mut self, key: &str) -> Builder {
        key.clone_into(&mut self.key);
        self
    }

    /// Keeps this much of the output.
    #[must_use]
    pub fn keep(mut self, keep: Keep) -> Builder {
        self.keep = keep;
        self
    }

    /// Puts this in front of every connection; the URL then begins with `scheme`.
    #[must_use]
    pub fn acceptor(mut self, acceptor: Arc<dyn Acceptor>, scheme: &'static str) -> Builder {
        self.acceptor = acceptor;
        self.scheme = scheme;
        self
    }

    /// Names this host in the URL instead of the address.
    #[must_use]
    pub fn host(mut self, host: &str) -> Builder {
        self.host = Some(host.to_owned());
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// When the address cannot be listened on, or no thread can be had.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Console {
        let listener = TcpListener::bind(self.address).unwrap_or_else(|error| panic!("{}: {error}", self.address));
        let address = listener.local_addr().expect("a listener has an address");
        let host = self.host.unwrap_or_else(|| match address {
            SocketAddr::V4(address) => address.ip().to_string(),
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
        });
        let url = format!("{}://{host}:{}{}", self.scheme, address.port(), self.personality.prefix);
        let shared = Arc::new(Shared::new(self.personality, self.key));
        shared.change(|state| state.keep = self.keep);
        let (control, inbox) = async_channel::unbounded();
        let (thread_shared, acceptor) = (shared.clone(), self.acceptor);
        let thread = std::thread::Builder::new().name("console".to_owned()).spawn(move || {
            let executor = Rc::new(LocalExecutor::new());
            let server = Server { shared: thread_shared, acceptor, executor: executor.clone() };
            smol::block_on(executor.run(server::run(server, inbox)));
        });
        let thread = Some(thread.expect("a thread for the console"));
        let inner = Inner { shared: shared.clone(), address, url, control, thread };
        inner.send(Control::Listen(listener));
        Console { view: View::new(shared), inner: Arc::new(inner) }
    }
}

impl Console {
    /// A console on a free port of 127.0.0.1.
    #[must_use]
    #[track_caller]
    pub fn start(personality: Personality) -> Console {
        Console::builder(personality).start()
    }

    /// A builder for a console.
    #[must_use]
    pub fn builder(personality: Personality) -> Builder {
        Builder {
            personality,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            key: API_KEY.to_owned(),
            keep: Keep::default(),
            acceptor: Arc::new(Plain),
            scheme: "http",
            host: None,
        }
    }

    /// The URL for the agent, with the path prefix.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// Where it listens, or listened.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// The key it accepts.
    #[must_use]
    pub fn key(&self) -> String {
        self.inner.shared.look().key.clone()
    }

    /// Accepts another key from now on.
    pub fn set_key(&self, key: &str) {
        self.inner.shared.change(|state| key.clone_into(&mut state.key));
    }

    /// Changes its habits. Open connections keep theirs, except the answers to heartbeats.
    pub fn set_personality(&self, change: impl FnOnce(&mut Personality)) {
        self.inner.shared.change(|state| change(&mut state.personality));
    }

    /// Keeps this much of the output from now on.
    pub fn keep(&self, keep: Keep) {
        self.inner.shared.change(|state| state.keep = keep);
    }

    /// Passes the bytes of a stream to `tap` as a terminal shows them: in order, without repeats, with replays.
    /// It is called on the server's thread and must not block. See [`View::stream`] for the name.
    pub fn tap(&self, stream: &str, tap: impl Fn(&[u8]) + Send + Sync + 'static) {
        self.set_tap(stream, Some(Tap(Arc::new(tap))));
    }

    /// Removes the tap of a stream.
    pub fn untap(&self, stream: &str) {
        self.set_tap(stream, None);
    }

    fn set_tap(&self, stream: &str, tap: Option<Tap>) {
        let set = |state: &mut State| state.streams.entry(stream.to_owned()).or_default().tap(tap);
        self.inner.shared.change(set);
    }

    /// Answers the next registration (the next after those already queued) like this.
    pub fn answer_registration(&self, answer: Answer) {
        self.inner.shared.change(|state| state.answers.push_back(answer));
    }

    /// Answers every registration like this, once the queue is empty; `None`: as the personality does.
    pub fn answer_registrations(&self, answer: Option<Answer>) {
        self.inner.shared.change(|state| state.usual_answer = answer);
    }

    /// Treats the next upgrade (the next after those already queued) like this.
    pub fn answer_upgrade(&self, upgrade: Upgrade) {
        self.inner.shared.change(|state| state.upgrades.push_back(upgrade));
    }

    /// Treats every upgrade like this, once the queue is empty; `None`: as the personality does.
    pub fn answer_upgrades(&self, upgrade: Option<Upgrade>) {
        self.inner.shared.change(|state| state.usual_upgrade = upgrade);
    }

    /// Knows this id, as if it had registered long ago.
    pub fn know(&self, id: &str) {
        self.inner.shared.change(|state| state.registry.know(id));
    }

    /// No longer knows this id: its next connection is refused with 1008.
    pub fn forget(&self, id: &str) {
        self.inner.shared.change(|state| state.registry.forget(id));
    }

    /// The ids it knows, in order.
    #[must_use]
    pub fn instance_ids(&self) -> Vec<String> {
        self.inner.shared.look().registry.ids()
    }

    /// Whether this instance is marked ERROR.
    #[must_use]
    pub fn is_error(&self, id: &str) -> bool {
        self.inner.shared.look().registry.is_error(id)
    }

    /// Stops listening; returns when the port refuses connections. Those that are up stay.
    pub fn stop_listening(&self) {
        let (done, closed) = async_channel::bounded(1);
        self.inner.send(Control::Deaf(done));
        let _ = closed.recv_blocking(); // an error means that the thread is gone, and the listener with it
    }

    /// Listens again on the same port.
    ///
    /// # Panics
    /// If another program has taken the port.
    #[track_caller]
    pub fn listen(&self) {
        let listener =
            TcpListener::bind(self.inner.address).unwrap_or_else(|error| panic!("{}: {error}", self.inner.address));
        self.inner.send(Control::Listen(listener));
    }

    /// Acts as if the process was killed: it stops listening and resets every connection. Its tables stay, as on a
    /// disk.
    #[track_caller]
    pub fn crash(&self) {
        self.stop_listening();
        let up: Vec<u32> = self.inner.shared.look().links.keys().copied().collect();
        self.inner.shared.look().links.values().for_each(|link| drop(link.orders.try_send((Order::Reset, None))));
        up.into_iter().for_each(|number| drop(self.ended(number)));
    }

    /// Waits until connection `number` (from 1, in the order of the upgrade requests) is up, and gives it.
    ///
    /// # Panics
    /// When that upgrade does not come in time, or is refused.
    #[track_caller]
    pub fn connection(&self, number: u32) -> Connection {
        Connection::wait(&self.view, number)
    }

    /// Waits until some connection is up and listened to, and gives the newest.
    ///
    /// # Panics
    /// When none is in time.
    #[track_caller]
    pub fn link(&self) -> Connection {
        Connection::newest(&self.view)
    }

    /// What [`Console::link`] gives, if it would not wait. It may end at any moment; what is sent then is lost.
    #[must_use]
    pub fn current_link(&self) -> Option<Connection> {
        Connection::current(&self.view)
    }

    /// Whether some connection is up and listened to: [`Console::link`] would not wait.
    #[must_use]
    pub fn has_link(&self) -> bool {
        self.inner.shared.look().links.values().any(|link| link.attached)
    }

    /// What a user of the console does.
    #[must_use]
    pub fn browser(&self) -> Browser {
        Browser::new(self.clone())
    }
}

/// A console is also the view of all its records.
impl Deref for Console {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl Inner {
    fn send(&self, control: Control) {
        // The channel is unbounded. An error means that the thread has ended.
        let _ = self.control.try_send(control);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.control.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // its panic was printed when it happened
        }
    }
}
