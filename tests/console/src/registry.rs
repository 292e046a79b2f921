//! The instances that the console knows, and the validation of registrations.
//!
//! The caller passes the time in and sends the answers. It implements the observed rules (CONSOLE.md, "Registration")
//! if the personality has them, and accepts every registration otherwise.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::Request;
use crate::personality::Personality;
use crate::script::Response;

/// The providers that the production console knows.
const PROVIDERS: [&str; 12] = [
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

/// The close reason after a missing or wrong key.
pub(crate) const AUTHENTICATION_REASON: &str = "Authentication required. Use a WebSocket ticket (POST \
     /api/v1/ws/ticket), API key header, or sign in via the web interface.";

/// The close reason for a connection that a newer one has replaced.
pub(crate) const REPLACED_REASON: &str = "Replaced by new connection";

/// The console's tables.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// By id, in the order of the ids.
    instances: BTreeMap<String, Instance>,
    forgotten: BTreeSet<String>,
    /// When the registrations of the last minute came.
    recent: VecDeque<Instant>,
    /// Which connection the frames of a browser are sent to, by instance id.
    routes: BTreeMap<String, u32>,
    last_id: u32,
}

#[derive(Debug)]
struct Instance {
    name: String,
    error: bool,
}

impl Registry {
    /// Validates one registration.
    pub(crate) fn register(&mut self, personality: &Personality, request: &Request, now: Instant) -> Response {
        if let Some(refusal) = self.rate_limit(personality, now) {
            return refusal;
        }
        let body = request.json();
        if !personality.production_registry {
            let id = body["instance_id"].as_str().unwrap_or_default().to_owned();
            self.forgotten.remove(&id);
            self.instances.insert(id.clone(), Instance { name: id, error: false });
            return Response::json(201, &json!({"status": "registered"}));
        }
        if let Some(complaint) = complaint(&body) {
            let body = json!({"error": "Unprocessable Entity", "message": complaint, "details": [complaint]});
            return Response::json(422, &body);
        }
        self.create(&body)
    }

    fn create(&mut self, body: &Value) -> Response {
        let name = ["name", "instance_id", "hostname"].iter().find_map(|key| body[*key].as_str()).unwrap_or_default();
        if self.instances.values().any(|instance| instance.name == name && !instance.error) {
            let message = format!("Instance {name} is already registered");
            return Response::json(409, &json!({"error": "Conflict", "message": message}));
        }
        self.last_id += 1;
        let id = format!("cinst{:020}", self.last_id);
        self.instances.insert(id.clone(), Instance { name: name.to_owned(), error: false });
        Response::json(201, &json!({"id": id, "name": name, "provider": body["provider"]}))
    }

    fn rate_limit(&mut self, personality: &Personality, now: Instant) -> Option<Response> {
        const WINDOW: Duration = Duration::from_secs(60);
        while self.recent.front().is_some_and(|at| now.duration_since(*at) >= WINDOW) {
            self.recent.pop_front();
        }
        let limit = personality.registrations_per_minute? as usize;
        if self.recent.len() < limit {
            self.recent.push_back(now);
            return None;
        }
        let wait = self.recent.front().map_or(WINDOW, |at| WINDOW.saturating_sub(now.duration_since(*at)));
        let mut response =
            Response::json(429, &json!({"error": "Too Many Requests", "message": "Rate limit exceeded"}));
        response.headers.push(("Retry-After".into(), (wait.as_secs() + 1).to_string()));
        Some(response)
    }

    /// Makes an id known, as if it had been given out long ago.
    pub(crate) fn know(&mut self, id: &str) {
        self.forgotten.remove(id);
        self.instances.insert(id.to_owned(), Instance { name: id.to_owned(), error: false });
    }

    /// Makes an id unknown; its next connection is refused with 1008.
    pub(crate) fn forget(&mut self, id: &str) {
        self.instances.remove(id);
        self.routes.remove(id);
        self.forgotten.insert(id.to_owned());
    }

    /// Whether a connection of this id is welcome.
    pub(crate) fn knows(&self, personality: &Personality, id: &str) -> bool {
        !self.forgotten.contains(id) && (!personality.knows_only_its_ids || self.instances.contains_key(id))
    }

    /// The ids known, in order.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.instances.keys().cloned().collect()
    }

    /// Records a new connection of this instance, and returns the one that it replaces.
    pub(crate) fn connected(&mut self, id: &str, connection: u32) -> Option<u32> {
        self.routes.insert(id.to_owned(), connection)
    }

    /// Records the end of a connection of this instance.
    pub(crate) fn ended(&mut self, personality: &Personality, id: &str, connection: u32) {
        if let Some(instance) = self.instances.get_mut(id) {
            instance.error = true;
        }
        if personality.loses_routes || self.routes.get(id) == Some(&connection) {
            self.routes.remove(id);
        }
    }

    /// Records a heartbeat of this instance.
    pub(crate) fn heartbeat(&mut self, id: &str) {
        if let Some(instance) = self.instances.get_mut(id) {
            instance.error = false;
        }
    }

    /// Whether the instance is marked ERROR.
    pub(crate) fn is_error(&self, id: &str) -> bool {
        self.instances.get(id).is_some_and(|instance| instance.error)
    }

    /// Whether the frames of a browser reach this connection.
    pub(crate) fn routes_to(&self, connection: u32) -> bool {
        self.routes.values().any(|route| *route == connection)
    }
}

/// Why the production console refuses this body with 422.
fn complaint(body: &Value) -> Option<String> {
    let provider = body["provider"].as_str().unwrap_or_default();
    if !PROVIDERS.contains(&provider) {
        return Some(format!("provider must be one of {}", PROVIDERS.join(", ")));
    }
    if body.get("tags").is_some_and(|tags| !tags.is_object()) {
        return Some("tags must be an object".to_owned());
    }
    let distro = body.get("distro").map(|distro| distro.as_str().unwrap_or_default());
    if distro.is_some_and(|distro| !["ubuntu", "fedora", "opensuse"].contains(&distro)) {
        return Some(format!("unknown distro {distro:?}"));
    }
    let names = body["extensions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_name = |name: &Value| name.as_str().is_some_and(|name| name.chars().count() <= 128);
    if names.len() > 200 || !names.iter().all(is_name) {
        return Some("extensions must be at most 200 names of at most 128 characters".to_owned());
    }
    let empty = ["hostname", "instance_id", "name"].iter().find(|key| body[**key].as_str() == Some(""));
    empty.map(|key| format!("{key} must not be empty"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(registry: &mut Registry, personality: &Personality, body: &Value) -> (u16, Value) {
        let request = Request { body: body.to_string().into_bytes(), ..Request::default() };
        let response = registry.register(personality, &request, Instant::now());
        (response.status, serde_json::from_slice(&response.body).expect("a JSON body"))
    }

    #[test]
    fn the_production_rules() {
        let (mut registry, production) = (Registry::default(), Personality::production().without_rate_limit());
        for bad in [
            json!({"instance_id": "a"}),
            json!({"instance_id": "a", "provider": "k8s"}),
            json!({"instance_id": "a", "provider": null}),
            json!({"instance_id": "a", "provider": "ssh", "tags": null}),
            json!({"instance_id": "a", "provider": "ssh", "hostname": ""}),
            json!({"instance_id": "a", "provider": "ssh", "distro": "arch"}),
            json!({"instance_id": "a", "provider": "ssh", "extensions": [null]}),
        ] {
            assert_eq!(post(&mut registry, &production, &bad).0, 422, "{bad}");
        }
        let good = json!({"instance_id": "a", "provider": "ssh", "tags": {}, "hostname": "h"});
        let (status, body) = post(&mut registry, &production, &good);
        let id = body["id"].as_str().expect("an id").to_owned();
        assert_eq!((status, body["name"].as_str()), (201, Some("a")));
        assert_eq!(post(&mut registry, &production, &good).0, 409);
        registry.ended(&production, &id, 1);
        assert!(registry.is_error(&id));
        let (status, second) = post(&mut registry, &production, &good);
        assert_eq!(status, 201);
        assert_ne!(second["id"], body["id"]);
        registry.heartbeat(&id);
        assert!(!registry.is_error(&id));
    }

    #[test]
    fn the_eleventh_in_a_minute_waits() {
        let (mut registry, production) = (Registry::default(), Personality::production());
        let now = Instant::now();
        let register = |registry: &mut Registry, at| registry.register(&production, &Request::default(), at);
        for _ in 0..10 {
            assert_eq!(register(&mut registry, now).status, 422);
        }
        let refused = register(&mut registry, now + Duration::from_secs(20));
        assert_eq!(refused.status, 429);
        assert!(refused.headers.contains(&("Retry-After".to_owned(), "41".to_owned())));
        assert_eq!(register(&mut registry, now + Duration::from_secs(60)).status, 422);
    }

    #[test]
    fn end_of_the_old_connection_unroutes_the_new_one() {
        let production = Personality::production();
        let mut registry = Registry::default();
        registry.know("i");
        assert_eq!(registry.connected("i", 1), None);
        assert_eq!(registry.connected("i", 2), Some(1));
        registry.ended(&production, "i", 1);
        assert!(!registry.routes_to(2));
        registry.connected("i", 2);
        registry.ended(&Personality::designed(), "i", 1);
        assert!(registry.routes_to(2));
    }
}
