//! The providers that the proxy knows: where each is, and how its paths and its usage look.

use super::usage::{ANTHROPIC, COHERE, GOOGLE, OLLAMA, OPENAI, Table};

/// A provider.
#[derive(Debug)]
pub struct Provider {
    /// Its name: the second part of a path, and what Mimir knows it by.
    pub name: &'static str,
    /// The variable that names another address for it.
    pub variable: &'static str,
    /// Where it is; nowhere for one whose customers have addresses of their own.
    pub origin: Option<&'static str>,
    /// What stands before the version in its paths.
    stem: &'static str,
    /// The version for a path without one; empty where its paths may have none.
    version: &'static str,
    /// First parts of a path that stand as they are, beside versions.
    roots: &'static [&'static str],
    /// How its answers tell their usage.
    pub(super) tables: &'static [Table],
}

/// All of them.
pub const PROVIDERS: &[Provider] = &[
    Provider {
        name: "anthropic",
        variable: "SINDRI_LLM_UPSTREAM_ANTHROPIC",
        origin: Some("https://api.anthropic.com"),
        stem: "",
        version: "v1",
        roots: &["api"],
        tables: &[ANTHROPIC],
    },
    openai_like("openai", "SINDRI_LLM_UPSTREAM_OPENAI", "https://api.openai.com", ""),
    Provider {
        name: "google",
        variable: "SINDRI_LLM_UPSTREAM_GOOGLE",
        origin: Some("https://generativelanguage.googleapis.com"),
        stem: "",
        version: "v1beta",
        roots: &["upload", "download"],
        tables: &[GOOGLE, OPENAI],
    },
    openai_like("groq", "SINDRI_LLM_UPSTREAM_GROQ", "https://api.groq.com", "openai"),
    openai_like("mistral", "SINDRI_LLM_UPSTREAM_MISTRAL", "https://api.mistral.ai", ""),
    Provider {
        name: "cohere",
        variable: "SINDRI_LLM_UPSTREAM_COHERE",
        origin: Some("https://api.cohere.com"),
        stem: "",
        version: "v1",
        roots: &["compatibility"],
        tables: &[COHERE, OPENAI],
    },
    openai_like("together", "SINDRI_LLM_UPSTREAM_TOGETHER", "https://api.together.xyz", ""),
    openai_like("xai", "SINDRI_LLM_UPSTREAM_XAI", "https://api.x.ai", ""),
    Provider {
        name: "azure",
        variable: "SINDRI_LLM_UPSTREAM_AZURE",
        origin: None,
        stem: "",
        version: "",
        roots: &[],
        tables: &[OPENAI],
    },
    Provider {
        name: "ollama",
        variable: "SINDRI_LLM_UPSTREAM_OLLAMA",
        origin: Some("http://localhost:11434"),
        stem: "",
        version: "",
        roots: &[],
        tables: &[OLLAMA, OPENAI],
    },
];

const fn openai_like(name: &'static str, variable: &'static str, origin: &'static str, stem: &'static str) -> Provider {
    Provider { name, variable, origin: Some(origin), stem, version: "v1", roots: &[], tables: &[OPENAI] }
}

impl Provider {
    /// The provider of a request, and what of its path is the provider's own: `/v1/<provider>/<rest>`.
    pub fn of_path(path: &str) -> Option<(&'static Self, &str)> {
        let (name, rest) = path.strip_prefix("/v1/").map(|rest| rest.split_once('/').unwrap_or((rest, "")))?;
        PROVIDERS.iter().find(|provider| provider.name == name).map(|provider| (provider, rest))
    }

    /// The path at the provider. The base URLs of SDKs differ in whether the version is in them; here they are all the
    /// same, and so what lacks it gets it.
    pub fn path(&self, rest: &str) -> String {
        let rest = rest.trim_start_matches('/');
        let first = rest.split('/').next().unwrap_or_default();
        let is_stem = !self.stem.is_empty() && first == self.stem;
        if self.version.is_empty() || is_stem || self.roots.contains(&first) {
            return format!("/{rest}");
        }
        let stem = if self.stem.is_empty() { String::new() } else { format!("/{}", self.stem) };
        if is_version(first) { format!("{stem}/{rest}") } else { format!("{stem}/{}/{rest}", self.version) }
    }
}

/// `v1`, `v1beta`, `v2`.
fn is_version(part: &str) -> bool {
    part.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// What kind of work a path asks for, as the records call it.
pub(super) fn operation(path: &str) -> &'static str {
    let kinds = [("embed", "embedding"), ("images/", "image"), ("audio/", "audio"), ("rerank", "rerank")];
    kinds.iter().find(|(mark, _)| path.contains(mark)).map_or("chat", |(_, kind)| kind)
}

/// The model that a path names: Google's do, Azure's name the deployment.
pub(super) fn model_of(path: &str) -> Option<&str> {
    let rest = path.split_once("/models/").or_else(|| path.split_once("/deployments/"))?.1;
    let model = rest.split(['/', ':', '?']).next()?;
    (!model.is_empty()).then_some(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_every_sdk_lead_to_the_provider() {
        for (asked, provider, path) in [
            ("/v1/anthropic/v1/messages", "anthropic", "/v1/messages"),
            ("/v1/anthropic/messages", "anthropic", "/v1/messages"),
            ("/v1/anthropic/api/event_logging/batch", "anthropic", "/api/event_logging/batch"),
            ("/v1/openai/chat/completions", "openai", "/v1/chat/completions"),
            ("/v1/openai/v1/responses", "openai", "/v1/responses"),
            ("/v1/groq/openai/v1/chat/completions", "groq", "/openai/v1/chat/completions"),
            ("/v1/groq/v1/models", "groq", "/openai/v1/models"),
            ("/v1/groq/chat/completions", "groq", "/openai/v1/chat/completions"),
            ("/v1/mistral/v1/chat/completions", "mistral", "/v1/chat/completions"),
            ("/v1/together/chat/completions", "together", "/v1/chat/completions"),
            ("/v1/xai/v1/chat/completions", "xai", "/v1/chat/completions"),
            ("/v1/google/v1beta/models/g:generateContent", "google", "/v1beta/models/g:generateContent"),
            ("/v1/google/models/g:generateContent", "google", "/v1beta/models/g:generateContent"),
            ("/v1/google/upload/v1beta/files", "google", "/upload/v1beta/files"),
            ("/v1/cohere/v2/chat", "cohere", "/v2/chat"),
            ("/v1/cohere/chat", "cohere", "/v1/chat"),
            ("/v1/azure/openai/deployments/d/chat/completions", "azure", "/openai/deployments/d/chat/completions"),
            ("/v1/ollama/api/chat", "ollama", "/api/chat"),
            ("/v1/ollama/v1/chat/completions", "ollama", "/v1/chat/completions"),
            ("/v1/openai", "openai", "/v1/"),
        ] {
            let (found, rest) = Provider::of_path(asked).expect(asked);
            assert_eq!((found.name, found.path(rest).as_str()), (provider, path), "{asked}");
        }
        for foreign in ["/", "/v1", "/v1/", "/v1/unknown/x", "/v2/openai/x", "/openai/v1", "v1/openai/x"] {
            assert!(Provider::of_path(foreign).is_none(), "{foreign}");
        }
    }

    #[test]
    fn model_and_operation_come_from_the_path() {
        assert_eq!(model_of("/v1beta/models/gemini-2.5-pro:generateContent"), Some("gemini-2.5-pro"));
        assert_eq!(model_of("/openai/deployments/gpt-4o/chat/completions"), Some("gpt-4o"));
        assert_eq!(model_of("/v1/models/"), None);
        assert_eq!(model_of("/v1/chat/completions"), None);
        assert_eq!(operation("/v1/embeddings"), "embedding");
        assert_eq!(operation("/v1beta/models/m:embedContent"), "embedding");
        assert_eq!(operation("/v1/messages"), "chat");
    }
}
