//! Whether AI tools on this instance are pointed at the agent, and where their providers are.
//!
//! Sindri points eight variables at `http://localhost:9090/v1/<provider>` for the whole instance. By default the agent
//! listens exactly where its own environment says that tools rely on it.

use super::reader::Reader;
use super::{ConsoleUrl, InvalidUrl};
use crate::llm::provider::{PROVIDERS, Provider};
use std::ffi::OsString;
use std::net::IpAddr;

/// The port where nothing else is said: Sindri's variables name it.
pub const LLM_PORT_DEFAULT: u16 = 9090;

/// Seconds between usage records where nothing else is said.
pub const LLM_REPORT_SECONDS_DEFAULT: f64 = 30.0;

/// The variables by which AI tools find their providers, as Sindri sets them.
pub const LLM_BASE_URLS: [&str; 8] = [
    "ANTHROPIC_BASE_URL",
    "OPENAI_BASE_URL",
    "GOOGLE_API_BASE_URL",
    "GROQ_BASE_URL",
    "MISTRAL_BASE_URL",
    "CO_API_URL",
    "TOGETHER_API_BASE",
    "AZURE_OPENAI_ENDPOINT",
];

const ADAPTER: &str = "SINDRI_LLM_ADAPTER";
const PORT: &str = "SINDRI_LLM_PROXY_PORT";
const PORT_ALLOWED: &str = "a port from 1 to 65535";

/// How usage is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Llm {
    /// Where the proxy listens, on loopback alone.
    pub port: u16,
    /// Longest time until a record is sent, in milliseconds.
    pub report_ms: u64,
    /// Names of providers and their addresses, where they are not the usual ones.
    pub upstreams: Vec<(&'static str, ConsoleUrl)>,
}

impl<F: Fn(&str) -> Option<OsString>> Reader<'_, F> {
    /// How usage is counted, if it is.
    pub(super) fn llm(&mut self) -> Option<Llm> {
        let report_ms = self.interval_ms("SINDRI_LLM_REPORT_INTERVAL", LLM_REPORT_SECONDS_DEFAULT);
        let set_port = self.llm_port();
        let port = match self.text(ADAPTER, "auto, proxy or none").as_deref() {
            None | Some("auto") => self.pointed_at(set_port),
            Some("proxy") => Some(set_port.unwrap_or(LLM_PORT_DEFAULT)),
            Some("ebpf") => {
                self.warn(format!("{ADAPTER} is ebpf, which this agent does not have; it counts by proxy"));
                Some(set_port.unwrap_or(LLM_PORT_DEFAULT))
            }
            Some("none") => None,
            Some(other) => {
                self.problem(ADAPTER, other, "auto, proxy or none");
                None
            }
        };
        let known = PROVIDERS.iter().filter_map(|provider| Some((provider.name, self.upstream(provider, port)?)));
        let upstreams = known.collect();
        port.map(|port| Llm { port, report_ms, upstreams })
    }

    fn llm_port(&mut self) -> Option<u16> {
        let text = self.text(PORT, PORT_ALLOWED)?;
        let port = text.parse().ok().filter(|port| *port > 0);
        if port.is_none() {
            self.problem(PORT, &text, PORT_ALLOWED);
        }
        port
    }

    fn upstream(&mut self, known: &'static Provider, port: Option<u16>) -> Option<ConsoleUrl> {
        let text = self.text(known.variable, &InvalidUrl::NotAUrl.to_string())?;
        match ConsoleUrl::parse(&text) {
            Ok(url) if is_loopback(url.host()) && Some(url.port()) == port => {
                self.problem(known.variable, &text, "the provider's own address, not the agent's");
                None
            }
            Ok(url) => Some(url),
            Err(error) => {
                self.problem(known.variable, &super::url::without_user_information(&text), &error.to_string());
                None
            }
        }
    }

    /// The port on this machine that the tools' variables name, if they agree on one.
    fn pointed_at(&mut self, set_port: Option<u16>) -> Option<u16> {
        let value = |name: &str| self.raw(name)?.into_string().ok();
        let mut ports = LLM_BASE_URLS.into_iter().filter_map(|name| proxy_port(&value(name)?));
        let first = ports.next()?;
        if let Some(second) = ports.find(|port| *port != first) {
            self.warn(format!(
                "AI tools are pointed at several ports of this machine ({first}, {second}), so their usage is not \
                 counted; give {} and the others one port",
                LLM_BASE_URLS[0]
            ));
            return None;
        }
        if let Some(set_port) = set_port.filter(|set_port| *set_port != first) {
            self.warn(format!(
                "{PORT} is {set_port}, but AI tools are pointed at port {first}, where the agent listens; set {ADAPTER} \
                 to proxy to listen at {set_port}"
            ));
        }
        Some(first)
    }
}

/// The port of a URL that leads to the agent's proxy: clear text, loopback, `/v1/<known provider>`.
fn proxy_port(text: &str) -> Option<u16> {
    let url = ConsoleUrl::parse(text.trim()).ok()?;
    let is_ours = !url.is_tls() && is_loopback(url.host()) && Provider::of_path(url.prefix()).is_some();
    is_ours.then(|| url.port())
}

/// Whether a host is this machine, whatever its network is.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_of_the_proxy_name_a_port() {
        for (text, port) in [
            ("http://localhost:9090/v1/anthropic", Some(9090)),
            ("http://127.0.0.1:1/v1/openai/v1/", Some(1)),
            ("http://[::1]:9/v1/google/", Some(9)),
            ("https://localhost:9090/v1/anthropic", None),
            ("http://localhost:9090/v1/unknown", None),
            ("http://localhost:9090/anthropic", None),
            ("http://localhost:9090", None),
            ("http://10.0.0.1:9090/v1/anthropic", None),
            ("http://localhost.evil.test:9090/v1/anthropic", None),
            ("https://api.anthropic.com", None),
            ("", None),
        ] {
            assert_eq!(proxy_port(text), port, "{text}");
        }
    }
}
