//! Bodies that pass unchanged, piece by piece, and are counted on the way.

use super::listener::CountGuard;
use super::upstream::{Sender, Upstream};
use super::usage::{Counter, ModelFinder, Usage};
use http_body::{Body, Frame, SizeHint};
use hyper::body::{Bytes, Incoming};
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// What a request says about its model, as soon as it has passed.
pub(super) type AskedModel = Rc<RefCell<ModelFinder>>;

/// The body of a request.
pub(super) struct RequestBody {
    body: Incoming,
    model: AskedModel,
    /// It is text that can be read.
    is_json: bool,
}

impl RequestBody {
    pub(super) fn new(body: Incoming, is_json: bool) -> (Self, AskedModel) {
        let model = AskedModel::default();
        (Self { body, model: Rc::clone(&model), is_json }, model)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let (true, Some(Ok(frame))) = (this.is_json, &frame)
            && let Some(piece) = frame.data_ref()
        {
            this.model.borrow_mut().feed(piece);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer.
pub(super) enum AnswerBody {
    /// One of the agent's own sentences.
    Own(Option<Bytes>),
    /// The provider's.
    Passed(Box<Passed>),
}

/// A provider's answer on its way.
pub(super) struct Passed {
    pub(super) body: Incoming,
    /// Nothing for an answer that cannot tell its usage.
    pub(super) counter: Option<Counter>,
    /// The connection, until the answer has ended.
    pub(super) sender: Option<Sender>,
    pub(super) upstream: Rc<Upstream>,
    /// Called once, when the answer ends or is given up, with its usage.
    pub(super) done: Option<Box<dyn FnOnce(Usage)>>,
    /// It counts as long as it is passed on.
    pub(super) _in_flight: CountGuard,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Own(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Passed(passed) => {
                let frame = ready!(Pin::new(&mut passed.body).poll_frame(cx));
                match &frame {
                    Some(Ok(frame)) => {
                        if let (Some(counter), Some(piece)) = (&mut passed.counter, frame.data_ref()) {
                            counter.feed(piece);
                        }
                    }
                    Some(Err(_)) => passed.sender = None,
                    None => passed.give_back(),
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(text) => text.is_none(),
            Self::Passed(passed) => passed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Passed(passed) => passed.body.size_hint(),
        }
    }
}

impl Passed {
    fn give_back(&mut self) {
        if let Some(sender) = self.sender.take() {
            self.upstream.keep(sender);
        }
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        // What writes the answer need not ask for what comes after its last byte.
        if self.body.is_end_stream() {
            self.give_back();
        }
        if let (Some(usage), Some(done)) = (self.counter.as_ref().and_then(Counter::usage), self.done.take()) {
            done(usage);
        }
    }
}
