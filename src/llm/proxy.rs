//! One request of an AI tool: refused, or passed on with its answer counted.
//!
//! It changes nothing but what belongs to one connection alone (RFC 9110, section 7.6.1) and the `Host`.

use super::body::{AnswerBody, AskedModel, Passed, RequestBody};
use super::listener::CountGuard;
use super::provider::{PROVIDERS, Provider, model_of, operation};
use super::upstream::Upstream;
use super::usage::{Counter, Uncounted, Usage};
use super::{Counted, LlmReport, MODEL_UNKNOWN};
use crate::config::{ConsoleUrl, Llm, Proxies, is_loopback};
use crate::link::Link;
use crate::link::proxy::ProxyError;
use crate::report::Reporter;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use smol::LocalExecutor;
use std::cell::Cell;
use std::rc::Rc;
use std::time::SystemTime;

/// Headers that belong to one connection, besides those that `Connection` names. `Transfer-Encoding` is among them:
/// hyper frames each side itself.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What all connections share.
pub(super) struct Proxy {
    /// Those of [`PROVIDERS`] whose address is known.
    upstreams: Vec<(&'static str, Rc<Upstream>)>,
    executor: Rc<LocalExecutor<'static>>,
    reporter: Reporter,
    /// A log line has said that an answer cannot be counted.
    has_warned_of_uncounted: Cell<bool>,
    /// How many answers are being passed on.
    in_flight: Rc<Cell<usize>>,
}

/// An answer of the agent's own.
type Refusal = (StatusCode, String);

impl Proxy {
    pub(super) fn new(
        llm: &Llm,
        proxies: &Proxies,
        link: &Link,
        executor: &Rc<LocalExecutor<'static>>,
        reporter: &Reporter,
    ) -> Result<Self, ProxyError> {
        let mut upstreams = Vec::with_capacity(PROVIDERS.len());
        for Provider { name, origin, variable, .. } in PROVIDERS {
            let set = llm.upstreams.iter().find(|(known, _)| known == name).map(|(_, url)| url.clone());
            if let Some(url) = set.or_else(|| ConsoleUrl::parse((*origin)?).ok()) {
                let way = link.upstream(url, proxies, variable)?;
                upstreams.push((*name, Rc::new(Upstream::new(way, Rc::clone(executor)))));
            }
        }
        let (executor, reporter) = (Rc::clone(executor), reporter.clone());
        let has_warned_of_uncounted = Cell::new(false);
        Ok(Self { upstreams, executor, reporter, has_warned_of_uncounted, in_flight: Rc::default() })
    }

    /// How many answers are being passed on.
    pub(super) fn in_flight(&self) -> Rc<Cell<usize>> {
        Rc::clone(&self.in_flight)
    }

    /// The provider's answer, or the agent's own.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        match self.passed_on(request).await {
            Ok(answer) => answer,
            Err((status, sentence)) => {
                // A string as JSON needs nothing but its quotes and escapes.
                let sentence = serde_json::to_string(&sentence).unwrap_or_default();
                let error = format!(r#"{{"error":{{"type":"sindri_agent","message":{sentence}}}}}"#);
                let mut answer = Response::new(AnswerBody::Own(Some(error.into())));
                *answer.status_mut() = status;
                let json = HeaderValue::from_static("application/json");
                answer.headers_mut().insert(header::CONTENT_TYPE, json);
                answer
            }
        }
    }

    async fn passed_on(&self, request: Request<Incoming>) -> Result<Response<AnswerBody>, Refusal> {
        refuse(&request)?;
        let in_flight = CountGuard::new(&self.in_flight);
        let Some((provider, rest)) = Provider::of_path(request.uri().path()) else {
            let known: Vec<&str> = PROVIDERS.iter().map(|provider| provider.name).collect();
            let sentence =
                format!("the agent passes on /v1/<provider>/… alone, and the providers are {}", known.join(", "));
            return Err((StatusCode::NOT_FOUND, sentence));
        };
        let Some((_, upstream)) = self.upstreams.iter().find(|(name, _)| *name == provider.name) else {
            let Provider { name, variable, .. } = provider;
            let sentence = format!("the agent does not know where {name} is: set {variable} to its address");
            return Err((StatusCode::BAD_GATEWAY, sentence));
        };
        let path = provider.path(rest);
        let (request, asked_model) = to_provider(request, upstream.url(), &path)?;
        let (answer, sender) = upstream.send(request).await.map_err(|error| {
            tracing::debug!(provider = provider.name, %error, "an AI tool got no answer");
            (StatusCode::BAD_GATEWAY, format!("the agent got no answer from {}: {error}", provider.name))
        })?;
        let (mut parts, body) = answer.into_parts();
        if parts.status == StatusCode::SWITCHING_PROTOCOLS || has_other_coding(&parts.headers) {
            let sentence =
                format!("{} answered with an upgrade or a transfer coding for which no tool asked", provider.name);
            return Err((StatusCode::BAD_GATEWAY, sentence));
        }
        remove_hop_by_hop(&mut parts.headers);
        parts.version = Version::HTTP_11;
        let counter = self.counter(provider, &parts.headers);
        let done = self.recorder(provider, path, asked_model);
        let upstream = Rc::clone(upstream);
        let passed = Passed { body, counter, sender: Some(sender), upstream, done: Some(done), _in_flight: in_flight };
        Ok(Response::from_parts(parts, AnswerBody::Passed(Box::new(passed))))
    }

    fn counter(&self, provider: &'static Provider, headers: &HeaderMap) -> Option<Counter> {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match Counter::new(provider, text(header::CONTENT_TYPE), text(header::CONTENT_ENCODING)) {
            Ok(counter) => Some(counter),
            Err(Uncounted::OtherType) => None,
            Err(Uncounted::Compressed(coding)) => {
                if !self.has_warned_of_uncounted.replace(true) {
                    let provider = provider.name;
                    tracing::warn!(provider, coding, "usage not counted: the agent cannot read this compression");
                }
                None
            }
        }
    }

    /// What is done with the usage of an answer.
    fn recorder(&self, provider: &'static Provider, path: String, asked: AskedModel) -> Box<dyn FnOnce(Usage)> {
        let (executor, reporter) = (Rc::clone(&self.executor), self.reporter.clone());
        Box::new(move |mut usage| {
            let of_request = || asked.borrow_mut().take().or_else(|| model_of(&path).and_then(super::usage::model));
            let model = usage.model.take().or_else(of_request).unwrap_or_else(|| MODEL_UNKNOWN.to_owned());
            let (provider, operation, at) = (provider.name, operation(&path), SystemTime::now());
            let report = LlmReport::Counted(Counted { provider, model, operation, usage, at });
            // As many of these wait as there are connections, at most.
            executor.spawn(async move { reporter.report(report).await }).detach();
        })
    }
}

/// What the agent does not pass on, whatever the provider would say.
fn refuse(request: &Request<Incoming>) -> Result<(), Refusal> {
    let headers = request.headers();
    if headers.contains_key(header::ORIGIN) {
        let sentence = "web pages may not use the agent's proxy: the request has an Origin header";
        return Err((StatusCode::FORBIDDEN, sentence.to_owned()));
    }
    let hosts = headers.get_all(header::HOST);
    let named = hosts.iter().map(|host| host.to_str().unwrap_or_default());
    let mut named = named.chain(request.uri().authority().map(|authority| authority.as_str()));
    if hosts.iter().count() != 1 || !named.all(is_this_machine) {
        let sentence = "the agent's proxy serves this machine alone: Host must be localhost or a loopback address";
        return Err((StatusCode::FORBIDDEN, sentence.to_owned()));
    }
    // Clients that offer HTTP/2 this way take an ordinary answer (RFC 9110, section 7.8).
    let offers_h2 = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"h2c");
    if request.method() == Method::CONNECT || headers.get_all(header::UPGRADE).iter().any(|value| !offers_h2(value)) {
        let sentence = "the agent's proxy passes on HTTP/1.1 alone, no upgrades such as WebSockets";
        return Err((StatusCode::NOT_IMPLEMENTED, sentence.to_owned()));
    }
    if has_other_coding(headers) {
        let sentence = "the agent's proxy knows no transfer coding but chunked";
        return Err((StatusCode::NOT_IMPLEMENTED, sentence.to_owned()));
    }
    Ok(())
}

/// Whether the body has another transfer coding than `chunked`. It would be passed on without its mark (RFC 9112,
/// section 6.1).
fn has_other_coding(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    codings.next().is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) || codings.next().is_some()
}

/// Whether a `Host` names this machine; a foreign one is a page's way to another's name for it (DNS rebinding).
fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    is_loopback(name)
}

/// The same request, to the provider.
fn to_provider(
    request: Request<Incoming>,
    url: &ConsoleUrl,
    path: &str,
) -> Result<(Request<RequestBody>, AskedModel), Refusal> {
    let (mut parts, body) = request.into_parts();
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    // It was a legal URI, and a prefix of legal ones stands before it. So only its length can be wrong.
    parts.uri = Uri::try_from(format!("{}{query}", url.path(path))).map_err(|_| {
        let sentence = "the path at the provider is longer than 64 KiB".to_owned();
        (StatusCode::URI_TOO_LONG, sentence)
    })?;
    parts.version = Version::HTTP_11;
    remove_hop_by_hop(&mut parts.headers);
    if let Ok(host) = HeaderValue::try_from(url.authority()) {
        parts.headers.insert(header::HOST, host);
    }
    let text = |name: HeaderName| parts.headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
    let is_json = text(header::CONTENT_TYPE).to_ascii_lowercase().windows(4).any(|part| part == b"json");
    let (body, model) = RequestBody::new(body, is_json && text(header::CONTENT_ENCODING).is_empty());
    Ok((Request::from_parts(parts, body), model))
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // Of two that say where the body ends, only chunks count (RFC 9112, section 6.3). With the length left, the body
    // would be cut to it.
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    let named = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<HeaderName> = named
        .flat_map(|list| list.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        // These say where a body ends; no client may have them left out.
        .filter(|name| *name != header::CONTENT_LENGTH && *name != header::HOST)
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_must_be_this_machine() {
        for host in ["localhost", "LocalHost:9090", "127.0.0.1:9090", "127.1.2.3", "[::1]", "[::1]:9090"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "",
            "evil.test",
            "localhost.evil.test:9090",
            "10.0.0.1:9090",
            "[::2]:9090",
            "127.0.0.1.evil.test",
            "localhost:9090@evil.test",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }

    #[test]
    fn headers_of_one_connection_stay_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Own"),
            ("x-own", "1"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("authorization", "Bearer k"),
            ("expect", "100-continue"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        remove_hop_by_hop(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "expect"]);
    }

    #[test]
    fn length_stays_unless_there_are_chunks() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("3"));
        // No client may have it left out.
        headers.insert(header::CONNECTION, HeaderValue::from_static("content-length, close"));
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers.get(header::CONTENT_LENGTH), Some(&HeaderValue::from_static("3")));
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        remove_hop_by_hop(&mut headers);
        assert!(headers.is_empty(), "{headers:?}");
    }
}
