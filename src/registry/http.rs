//! Eureka's API over HTTP (I/O boundary): [`router`] serves the registry, [`EurekaClient`] registers an instance
//! with any Eureka.
//!
//! Served below `/eureka`, `/eureka/v2` and `/v2` (clients differ), with or without a slash at the
//! end: register, heartbeat, cancel, status overrides, metadata; all applications, the delta, one
//! application, one instance, by virtual address. JSON where `Accept` says so, else XML.
//!
//! | path below the base | GET | POST | PUT | DELETE |
//! |---|---|---|---|---|
//! | `apps` | 200 all | | | |
//! | `apps/delta` | 200 changes | | | |
//! | `apps/{APP}` | 200, 404 | 204 register, 400, 415 | | |
//! | `apps/{APP}/{id}` | 200, 404 | | 200 heartbeat, 404 | 200 cancel, 404 |
//! | `apps/{APP}/{id}/status` | | | 200, 404, 500 | 200, 404, 500 |
//! | `apps/{APP}/{id}/metadata` | | | 200, 404 | |
//! | `instances/{id}` | 200, 404 | | | |
//! | `vips/{vip}`, `svips/{svip}` | 200 | | | |
//!
//! Not here: what the texts mean (`wire`), what the calls do (`table`), peers, the Host and Origin
//! checks (the shared HTTP layer).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde_json::json;

use super::wire::{self, Document, Format};
use super::{Heartbeat, Instance, Now, RegistrationRefusal, Registry, Status};
use crate::base::http::client::{Outgoing, Pool, SendError, encode_segment};

/// Largest registration, in bytes (64 KiB). Why: a full one takes 2 KB; a larger body is 413.
pub const BODY_BYTES_MAX: usize = 64 << 10;

/// Both clocks of this process.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock {
    /// The time now. Take all times of a registry from one clock.
    #[must_use]
    pub fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            unix_ms: i64::try_from(unix.as_millis()).unwrap_or(i64::MAX),
            mono_ms: u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Nanoseconds since the clock was made, for balancers.
    #[must_use]
    pub fn nanos(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

#[derive(Clone)]
struct Served {
    registry: Arc<Registry>,
    clock: Clock,
}

/// The Eureka API on a registry.
pub fn router(registry: Arc<Registry>, clock: Clock) -> Router {
    Router::new()
        .route("/eureka/{*rest}", any(handle))
        .route("/v2/{*rest}", any(handle))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Served { registry, clock })
}

/// Path segments below the base, decoded; none if the path is below no base.
fn below_base(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix("/eureka/v2/").or_else(|| path.strip_prefix("/eureka/"));
    path.map(segments)
}

fn segments(path: &str) -> Vec<String> {
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split('/').map(|s| decode(s, false)).collect()
}

/// Percent-decodes; in a query `+` is a space. Bytes that are no UTF-8 are replaced.
fn decode(text: &str, query: bool) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&b, after)) = rest.split_first() {
        let hex = |at: usize| after.get(at).and_then(|b| char::from(*b).to_digit(16));
        let (byte, left) = match (b, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => ((high * 16 + low) as u8, &after[2..]),
            (b'+', ..) if query => (b' ', after),
            _ => (b, after),
        };
        out.push(byte);
        rest = left;
    }
    String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// The query's parameters, the first value of each.
fn parameters(query: Option<&str>) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::new();
    for pair in query.unwrap_or_default().split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        parameters.entry(decode(key, true)).or_insert_with(|| decode(value, true));
    }
    parameters
}

async fn handle(
    State(served): State<Served>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return (rejection.status(), rejection.body_text()).into_response(),
    };
    let path = uri.path();
    let path = below_base(path).or_else(|| path.strip_prefix("/v2/").map(segments));
    let path = path.unwrap_or_default();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let call = Call {
        registry: &served.registry,
        now: served.clock.now(),
        headers: &headers,
        parameters: parameters(uri.query()),
    };
    let get = method == Method::GET || method == Method::HEAD;
    match &path[..] {
        ["apps"] if get => call.all(),
        ["apps", "delta"] if get => call.delta(),
        ["apps", app] if get => call.application(app),
        ["apps", app] if method == Method::POST => call.register(app, &body),
        ["apps", app, id] if get => {
            call.instance(served.registry.read(|t| t.get(&super::app_name(app), id)))
        }
        ["apps", app, id] if method == Method::PUT => call.heartbeat(app, id),
        ["apps", app, id] if method == Method::DELETE => {
            found(served.registry.cancel(app, id, call.now))
        }
        ["apps", app, id, "status"] if method == Method::PUT => call.set_status(app, id),
        ["apps", app, id, "status"] if method == Method::DELETE => call.clear_status(app, id),
        ["apps", app, id, "metadata"] if method == Method::PUT => {
            let entries = call.parameters.clone();
            found(served.registry.set_metadata(app, id, entries, call.now))
        }
        ["instances", id] if get => call.instance(served.registry.read(|t| t.find(id))),
        ["vips", vip] if get => call.by_vip(vip, false),
        ["svips", vip] if get => call.by_vip(vip, true),
        ["apps" | "instances" | "vips" | "svips", ..] if path.len() <= 4 => {
            empty(StatusCode::METHOD_NOT_ALLOWED)
        }
        _ => empty(StatusCode::NOT_FOUND),
    }
}

/// An answer without a body. It says JSON all the same: one client (aiohttp's) fails without, and
/// none minds.
fn empty(status: StatusCode) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")]).into_response()
}

fn found(found: bool) -> Response {
    empty(if found { StatusCode::OK } else { StatusCode::NOT_FOUND })
}

/// One request.
struct Call<'a> {
    registry: &'a Registry,
    now: Now,
    headers: &'a HeaderMap,
    parameters: BTreeMap<String, String>,
}

impl Call<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    fn answer(&self, document: &Document<'_>) -> Response {
        let format = Format::accepted(self.header("accept"));
        let compact = self.header("x-eureka-accept").is_some_and(|a| a == "compact");
        let text = wire::write(document, format, compact);
        ([(header::CONTENT_TYPE, format.content_type())], text).into_response()
    }

    fn all(&self) -> Response {
        // Copied under the lock, written outside it.
        let (apps, hash) = self.registry.read(|t| {
            let apps: Vec<_> = t.apps().map(|(name, list)| (name.to_owned(), list)).collect();
            (apps, t.hash_code())
        });
        self.answer(&Document::Applications { apps: &apps, version: 1, hash: &hash })
    }

    fn delta(&self) -> Response {
        let (version, changes, hash) = self.registry.delta(self.now);
        let mut apps: Vec<(String, Vec<Arc<Instance>>)> = Vec::new();
        for change in changes {
            match apps.iter_mut().find(|(name, _)| *name == change.app) {
                Some((_, list)) => list.push(change),
                None => apps.push((change.app.clone(), vec![change])),
            }
        }
        self.answer(&Document::Applications {
            apps: &apps,
            version: i64::from(version),
            hash: &hash,
        })
    }

    fn application(&self, app: &str) -> Response {
        let name = super::app_name(app);
        let instances = self.registry.read(|t| t.app(&name));
        if instances.is_empty() {
            return empty(StatusCode::NOT_FOUND);
        }
        self.answer(&Document::Application { name: &name, instances: &instances })
    }

    fn instance(&self, instance: Option<Arc<Instance>>) -> Response {
        match instance {
            Some(instance) => self.answer(&Document::Instance(&instance)),
            None => empty(StatusCode::NOT_FOUND),
        }
    }

    fn by_vip(&self, vip: &str, secure: bool) -> Response {
        let (apps, hash) = self.registry.read(|t| (t.by_vip(vip, secure), t.hash_code()));
        self.answer(&Document::Applications { apps: &apps, version: -1, hash: &hash })
    }

    fn register(&self, app: &str, body: &[u8]) -> Response {
        let content_type = self.header("content-type").unwrap_or_default().to_ascii_lowercase();
        let format = if content_type.contains("json") {
            Format::Json
        } else if content_type.contains("xml") {
            Format::Xml
        } else {
            return empty(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        };
        let Some(value) = wire::read(body, format) else {
            const WHY: &str = "cannot parse request body";
            let text = match format {
                Format::Json => json!({ "error": WHY }).to_string(),
                Format::Xml => format!("<error><message>{WHY}</message></error>"),
            };
            let headers = [(header::CONTENT_TYPE, format.content_type())];
            return (StatusCode::BAD_REQUEST, headers, text).into_response();
        };
        let instance = match wire::instance_of(&value, app) {
            Ok(instance) => instance,
            Err(why) => return (StatusCode::BAD_REQUEST, why).into_response(),
        };
        match self.registry.register(instance, self.now) {
            Ok(()) => empty(StatusCode::NO_CONTENT),
            Err(full @ RegistrationRefusal::Full) => {
                (StatusCode::SERVICE_UNAVAILABLE, full.to_string()).into_response()
            }
            Err(why) => (StatusCode::BAD_REQUEST, why.to_string()).into_response(),
        }
    }

    fn dirty_ms(&self) -> Option<i64> {
        self.parameters.get("lastDirtyTimestamp").and_then(|t| t.trim().parse().ok())
    }

    fn heartbeat(&self, app: &str, id: &str) -> Response {
        let beat = self.registry.heartbeat(app, id, self.dirty_ms(), self.now);
        found(beat != Heartbeat::Register)
    }

    fn set_status(&self, app: &str, id: &str) -> Response {
        let status = self.parameters.get("value").and_then(|v| Status::from_name(v));
        match status {
            Some(status) => {
                found(self.registry.set_status(app, id, status, self.dirty_ms(), self.now))
            }
            None => empty(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    fn clear_status(&self, app: &str, id: &str) -> Response {
        let fallback = match self.parameters.get("value") {
            None => Some(Status::Unknown),
            Some(value) => Status::from_name(value),
        };
        match fallback {
            Some(fallback) => {
                found(self.registry.clear_status(app, id, fallback, self.dirty_ms(), self.now))
            }
            None => empty(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

/// Why a registry did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientError {
    /// The address is not one of a Eureka: `http://host:port/path`.
    Address(String),
    /// No answer.
    Send(SendError),
    /// No answer in time.
    Timeout,
    /// An answer that is not the one hoped for.
    Status(u16, String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(given) => {
                write!(f, "`{given}` is no address like http://127.0.0.1:8761/eureka")
            }
            Self::Send(e) => e.fmt(f),
            Self::Timeout => write!(f, "the registry did not answer in time"),
            Self::Status(status, body) if body.is_empty() => {
                write!(f, "the registry answered with status {status}")
            }
            Self::Status(status, body) => {
                write!(f, "the registry answered with status {status}: {body}")
            }
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Send(e) => Some(e),
            _ => None,
        }
    }
}

/// Registers an instance with a Eureka server, ours or another's.
#[derive(Debug)]
pub struct EurekaClient {
    pool: Pool,
    host_port: String,
    base: String,
    timeout: Duration,
}

impl EurekaClient {
    /// A client of the server at `url`, as `http://127.0.0.1:8761/eureka`.
    ///
    /// # Errors
    /// [`ClientError::Address`] for anything else, https included.
    pub fn new(url: &str, timeout: Duration) -> Result<Self, ClientError> {
        let bad = || ClientError::Address(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let authority = uri.authority().filter(|a| !a.as_str().contains('@')).ok_or_else(bad)?;
        if uri.scheme_str() != Some("http") || uri.query().is_some() {
            return Err(bad());
        }
        let host_port = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
        let base = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { pool: Pool::new(), host_port, base, timeout })
    }

    /// Registers `instance`, or again.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn register(&self, instance: &Instance) -> Result<(), ClientError> {
        let path = format!("{}/apps/{}", self.base, encode_segment(&instance.app));
        let body = wire::write(&Document::Instance(instance), Format::Json, false);
        self.ask(Outgoing::json("POST", &path, body)).await
    }

    /// Renews the lease; [`ClientError::Status`] with 404 means: register again.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn heartbeat(&self, instance: &Instance) -> Result<(), ClientError> {
        let path = format!(
            "{}?status={}&lastDirtyTimestamp={}",
            self.path_of(instance),
            instance.status.name(),
            instance.dirty_ms
        );
        self.ask(Outgoing::new("PUT", &path)).await
    }

    /// Ends the lease.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn cancel(&self, instance: &Instance) -> Result<(), ClientError> {
        self.ask(Outgoing::new("DELETE", &self.path_of(instance))).await
    }

    fn path_of(&self, instance: &Instance) -> String {
        let (app, id) = (encode_segment(&instance.app), encode_segment(&instance.id));
        format!("{}/apps/{app}/{id}", self.base)
    }

    async fn ask(&self, request: Outgoing) -> Result<(), ClientError> {
        let sent = self.pool.send(&self.host_port, request);
        let answer = tokio::time::timeout(self.timeout, sent);
        let (status, body) =
            answer.await.map_err(|_| ClientError::Timeout)?.map_err(ClientError::Send)?;
        if status.is_success() {
            return Ok(());
        }
        let body: String = String::from_utf8_lossy(&body).chars().take(200).collect();
        Err(ClientError::Status(status.as_u16(), body))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;
    use serde_json::Value;
    use tokio::net::TcpListener;

    use super::*;
    use crate::registry::Endpoint;

    fn registration(id: &str) -> String {
        json!({"instance": {"instanceId": id, "hostName": "127.0.0.1", "app": "demo",
            "ipAddr": "127.0.0.1", "port": {"$": 9001, "@enabled": "true"}, "vipAddress": "demo-vip",
            "dataCenterInfo": {"name": "MyOwn"}, "leaseInfo": {"durationInSecs": 1}}})
        .to_string()
    }

    struct Asked {
        status: u16,
        content_type: String,
        text: String,
    }

    impl Asked {
        fn json(&self) -> Value {
            serde_json::from_str(&self.text).unwrap()
        }
    }

    async fn ask(router: &Router, line: &str, headers: &[(&str, &str)], body: &str) -> Asked {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = axum::http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(axum::body::Body::from(body.to_owned())).unwrap();
        let service = TowerToHyperService::new(router.clone());
        let answer = service.call(request).await.unwrap();
        let status = answer.status().as_u16();
        let content_type = answer.headers().get("content-type");
        let content_type = content_type.map_or("", |v| v.to_str().unwrap()).to_owned();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        Asked { status, content_type, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    const JSON: &[(&str, &str)] =
        &[("content-type", "application/json"), ("accept", "application/json")];

    fn served() -> (Arc<Registry>, Router) {
        let registry = Arc::new(Registry::new(1));
        (Arc::clone(&registry), router(registry, Clock::default()))
    }

    #[tokio::test]
    async fn an_instance_lives_through_all_calls_below_every_base() {
        for base in ["/eureka", "/eureka/v2", "/v2"] {
            let (_, router) = served();
            let ask = async |line: &str, body: &str| {
                let line = line.replace(" /", &format!(" {base}/"));
                ask(&router, &line, JSON, body).await
            };
            let id = "127.0.0.1%3Ademo%2F1";
            assert_eq!(ask("POST /apps/DEMO", &registration("127.0.0.1:demo/1")).await.status, 204);
            let all = ask("GET /apps/", "").await;
            assert_eq!((all.status, all.content_type.as_str()), (200, "application/json"));
            assert_eq!(all.json()["applications"]["apps__hashcode"], "UP_1_");
            assert_eq!(ask("GET /apps/demo", "").await.json()["application"]["name"], "DEMO");
            let one = ask(&format!("GET /apps/DEMO/{id}"), "").await.json();
            assert_eq!(one["instance"]["instanceId"], "127.0.0.1:demo/1");
            assert_eq!(ask(&format!("GET /instances/{id}"), "").await.json(), one);
            let vip = ask("GET /vips/demo-vip", "").await.json();
            assert_eq!(vip["applications"]["application"][0]["instance"][0], one["instance"]);
            assert_eq!(
                ask("GET /vips/nobody", "").await.json()["applications"]["application"],
                json!([])
            );
            assert_eq!(ask(&format!("PUT /apps/DEMO/{id}?status=UP"), "").await.status, 200);
            let status = format!("PUT /apps/DEMO/{id}/status?value=OUT_OF_SERVICE");
            assert_eq!(ask(&status, "").await.status, 200);
            let hash = &ask("GET /apps", "").await.json()["applications"]["apps__hashcode"];
            assert_eq!(hash, "OUT_OF_SERVICE_1_");
            assert_eq!(
                ask(&format!("DELETE /apps/DEMO/{id}/status?value=UP"), "").await.status,
                200
            );
            let metadata = format!("PUT /apps/DEMO/{id}/metadata?zone=a+b&zone=c&x=%3D");
            assert_eq!(ask(&metadata, "").await.status, 200);
            let one = ask(&format!("GET /apps/DEMO/{id}/"), "").await.json();
            assert_eq!(one["instance"]["metadata"], json!({"zone": "a b", "x": "="}));
            let delta = ask("GET /apps/delta", "").await.json();
            assert_eq!(delta["applications"]["application"][0]["instance"][0], one["instance"]);
            assert_eq!(ask(&format!("DELETE /apps/demo/{id}"), "").await.status, 200);
            assert_eq!(ask(&format!("PUT /apps/DEMO/{id}"), "").await.status, 404);
            assert_eq!(ask("GET /apps/DEMO", "").await.status, 404);
        }
    }

    #[tokio::test]
    async fn whoever_does_not_ask_for_json_gets_xml() {
        let (_, router) = served();
        ask(&router, "POST /eureka/apps/demo", JSON, &registration("1")).await;
        for accept in [&[][..], &[("accept", "*/*")], &[("accept", "text/html")]] {
            let all = ask(&router, "GET /eureka/apps", accept, "").await;
            assert_eq!(all.content_type, "application/xml");
            assert!(all.text.starts_with("<applications><versions__delta>1<"), "{}", all.text);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_done_has_eurekas_status() {
        let (_, router) = served();
        let json = [("content-type", "application/json")];
        let other = registration("1").replace("demo", "other");
        let large = " ".repeat(BODY_BYTES_MAX + 1);
        for (line, headers, body, status, says) in [
            (
                "POST /eureka/apps/demo",
                &json[..],
                "{",
                400,
                "{\"error\":\"cannot parse request body\"}",
            ),
            (
                "POST /eureka/apps/demo",
                &[("content-type", "text/xml")],
                "<",
                400,
                "<error><message>",
            ),
            ("POST /eureka/apps/demo", &json, &other, 400, "Mismatched appName, expecting DEMO"),
            ("POST /eureka/apps/demo", &[("content-type", "text/plain")], "x", 415, ""),
            ("POST /eureka/apps/demo", &json, &large, 413, ""),
            ("PUT /eureka/apps/demo/1", &[], "", 404, ""),
            ("DELETE /eureka/apps/demo/1", &[], "", 404, ""),
            ("PUT /eureka/apps/demo/1/status?value=UP", &[], "", 404, ""),
            ("PUT /eureka/apps/demo/1/status?value=odd", &[], "", 500, ""),
            ("PATCH /eureka/apps/demo/1", &[], "", 405, ""),
            ("GET /eureka/nothing", &[], "", 404, ""),
            ("GET /eureka/apps//", &[], "", 404, ""),
        ] {
            let asked = ask(&router, line, headers, body).await;
            assert_eq!(asked.status, status, "{line} {}", asked.text);
            assert!(asked.text.starts_with(says), "{line} {}", asked.text);
        }
    }

    #[tokio::test]
    async fn our_client_registers_with_our_server_and_leases_end() {
        let registry = Arc::new(Registry::new(1));
        let clock = Clock::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/eureka/", listener.local_addr().unwrap());
        let served = router(Arc::clone(&registry), clock);
        tokio::spawn(async move { axum::serve(listener, served).await });
        let client = EurekaClient::new(&url, Duration::from_secs(5)).unwrap();
        let endpoint = Endpoint::Http { host: "127.0.0.1".to_owned(), port: 9 };
        let mut instance = Instance::new("judge", "judge:9", endpoint);
        instance.lease.duration_s = 1;
        let again = client.heartbeat(&instance).await;
        assert!(matches!(again, Err(ClientError::Status(404, _))), "{again:?}");
        client.register(&instance).await.unwrap();
        client.heartbeat(&instance).await.unwrap();
        assert_eq!(registry.balancer("judge").unwrap().len(), 1);
        client.cancel(&instance).await.unwrap();
        assert!(registry.balancer("judge").unwrap().is_empty());

        client.register(&instance).await.unwrap();
        assert!(registry.expire(clock.now()).is_empty());
        let mut later = clock.now();
        later.mono_ms += 1000;
        let gone = registry.expire(later);
        assert_eq!((gone.len(), gone[0].id.as_str()), (1, "judge:9"));
    }

    #[test]
    fn only_addresses_of_plain_http_are_taken() {
        for url in ["", "127.0.0.1:8761", "https://a/eureka", "http://u:p@a/eureka", "http://a/?b"]
        {
            let client = EurekaClient::new(url, Duration::from_secs(1));
            assert!(matches!(client, Err(ClientError::Address(_))), "{url}");
        }
        let client = EurekaClient::new("http://[::1]/eureka/", Duration::from_secs(1)).unwrap();
        assert_eq!((client.host_port.as_str(), client.base.as_str()), ("[::1]:80", "/eureka"));
    }
}
