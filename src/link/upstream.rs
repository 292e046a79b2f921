//! The way to a provider of models: the steps that lead to the console, to another place and without a key.

use super::dial::Dialer;
use super::error::{Error, Hop};
use super::proxy::{self, ProxyError};
use super::stream::{Progress, Stream};
use super::{Link, Target};
use crate::config::{ConsoleUrl, Proxies, Secret};
use std::rc::Rc;

/// One provider.
pub(crate) struct UpstreamDialer(Dialer);

impl Link {
    /// The way to this address, for which `variable` can name another.
    ///
    /// # Errors
    /// Where the variable of the proxy that counts holds no proxy's URL.
    pub(crate) fn upstream(
        &self,
        url: ConsoleUrl,
        proxies: &Proxies,
        variable: &'static str,
    ) -> Result<UpstreamDialer, ProxyError> {
        let proxy = proxy::choose(proxies, url.is_tls(), url.host(), url.port())?;
        let target = Target { url, key: Secret::new(""), trust: self.dialer.target.trust.clone(), proxy };
        Ok(UpstreamDialer(self.dialer.to_provider(target, Rc::clone(&self.executor), Hop::Provider(variable))))
    }
}

impl UpstreamDialer {
    /// A connection on which nothing has been said yet.
    pub(crate) async fn open(&self) -> Result<Stream, Error> {
        self.0.open(Progress::default()).await
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &ConsoleUrl {
        &self.0.target.url
    }
}
