//! How a registration names the instance and its provider (CONSOLE.md, "Registration").

use crate::order::{ProviderName, RegisterPath};

/// The names under which the production console knows providers.
pub const PROVIDERS_KNOWN: &[&str] = &[
    "fly",
    "docker",
    "devpod",
    "e2b",
    "kubernetes",
    "digitalocean",
    "gcp",
    "azure",
    "aws",
    "runpod",
    "northflank",
    "ssh",
];

/// The `hostname` of a registration, by which the console names the instance: the id that the operator configured, else
/// the host name. With provider `docker` always the host name, because the console runs `docker exec <hostname>`.
pub fn registered_name<'a>(
    configured_id: Option<&'a str>,
    host_name: Option<&'a str>,
    provider: Option<&str>,
) -> Option<&'a str> {
    configured_id.filter(|_| provider != Some("docker")).or(host_name)
}

/// The `provider` of a registration. Only the production console serves [`RegisterPath::Observed`], and it refuses
/// `k8s`: there the agent sends `kubernetes` at once, because the console limits registrations by address.
pub fn registered_provider(provider: Option<&str>, path: RegisterPath, name: ProviderName) -> Option<&str> {
    match (name, path) {
        (ProviderName::Configured, RegisterPath::Observed) if provider == Some("k8s") => Some("kubernetes"),
        (ProviderName::Configured, RegisterPath::Observed | RegisterPath::Designed) => provider,
        (ProviderName::Alias, RegisterPath::Observed | RegisterPath::Designed) => Some(alias(provider)),
    }
}

/// How the production console calls a provider; its generic one where it has no name for it.
fn alias(provider: Option<&str>) -> &str {
    match provider {
        Some("k8s") => "kubernetes",
        Some(known) if PROVIDERS_KNOWN.contains(&known) => known,
        Some(_) | None => "ssh",
    }
}
