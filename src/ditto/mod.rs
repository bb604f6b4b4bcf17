//! Eclipse Ditto's HTTP API 2: things and all below them, search, and streams of changes (SSE).
//!
//! A request is a [`Path`] and a [`Verb`]; what follows is the same for all of them: check the
//! precondition, submit the change, wait until it is durable, answer. Sources: Eclipse Ditto's
//! OpenAPI description, `httpapi-concepts`, `httpapi-sse`.
//!
//! Not here yet: policies, messages, acknowledgements, the live channel.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::sse::{Event as SseEvent, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use futures_util::stream;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::{broadcast, watch};

use crate::base::clock::now_us;
use crate::base::http::{BODY_LEN_MAX, empty, error, stopped};
use crate::base::telemetry::Telemetry;
use crate::base::time::rfc3339;
use crate::twin::fields::Fields;
use crate::twin::path::{Path, PathError, Verb};
use crate::twin::rql::Filter;
use crate::twin::{Action, Change, Event, Object, Refusal, ThingId, Twin, apply, merge};
use crate::writer::{
    Accepted, Committed, HistoryRecord, NotDurable, Origin, Precondition, Rejected,
    Request as Wanted, Sink, Writer,
};

/// Changes that a slow stream may be behind; older ones are missed, counted, and the stream goes
/// on with what is new.
pub const FEED_LEN_MAX: usize = 4096;
/// An idle stream says so this often (Ditto: 1 s).
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// Hits of one page of a search: by default, and at most (Ditto).
pub const PAGE_LEN_DEFAULT: usize = 25;
/// See [`PAGE_LEN_DEFAULT`].
pub const PAGE_LEN_MAX: usize = 200;
/// Tries of a conditional write while others write the same thing.
const TRIES_MAX: usize = 16;
/// Namespace of things that are created without one (Ditto).
const DEFAULT_NAMESPACE: &str = "org.eclipse.ditto";

/// What the API works with. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    writer: Arc<Writer>,
    telemetry: Arc<Telemetry>,
    feed: Arc<Feed>,
    stop: watch::Receiver<bool>,
}

/// Hands durable changes to streams.
pub struct Feed(broadcast::Sender<Arc<Committed>>);

impl Sink for Feed {
    fn committed(&self, changes: &[Committed]) {
        if self.0.receiver_count() > 0 {
            for change in changes {
                // Nobody listening any more is fine.
                if self.0.send(Arc::new(change.clone())).is_err() {
                    return;
                }
            }
        }
    }
}

impl Api {
    /// An API over `writer`; streams end at `stop`.
    pub fn new(
        writer: Arc<Writer>,
        telemetry: Arc<Telemetry>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let feed = Arc::new(Feed(broadcast::Sender::new(FEED_LEN_MAX)));
        Self { writer, telemetry, feed, stop }
    }

    /// The sink to give to the writer.
    pub fn feed(&self) -> Arc<Feed> {
        self.feed.clone()
    }

    async fn submit(&self, wanted: Wanted) -> Result<Accepted, ApiError> {
        let accepted = self.writer.submit(wanted, now_us())?;
        self.writer.make_durable(accepted.batch).await?;
        Ok(accepted)
    }
}

/// Everything under `/api`, `/health`, `/status` and `/metrics`.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/api/{*rest}", any(dispatch))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .with_state(api)
}

/// An answer that is not what was asked for.
#[derive(Debug)]
struct ApiError {
    status: u16,
    code: &'static str,
    message: String,
    description: Option<&'static str>,
}

impl ApiError {
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), description: None }
    }

    fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(400, code, message)
    }

    fn read_only() -> Self {
        Self {
            description: Some("Reads go on. Look at `edgetwin events`, mend the disk, restart."),
            ..Self::new(
                503,
                "things:thing.unavailable",
                "A write to the disk failed; nothing is changed until a restart.",
            )
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self {
            description: refusal.description(),
            ..Self::new(refusal.status(), refusal.code(), refusal.message())
        }
    }
}

impl From<NotDurable> for ApiError {
    fn from(_: NotDurable) -> Self {
        Self::read_only()
    }
}

impl From<Rejected> for ApiError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Refused(refusal) => refusal.into(),
            Rejected::NotStored(crate::store::AppendError::Full) => Self {
                description: Some("Reads go on. Free space; writing then works again by itself."),
                ..Self::new(
                    507,
                    "things:thing.notmodifiable",
                    "There is no space left on the disk.",
                )
            },
            Rejected::NotStored(crate::store::AppendError::ReadOnly(_)) => Self::read_only(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        error(status, self.code, &self.message, self.description)
    }
}

type Answer = Result<Response, ApiError>;

async fn health() -> Response {
    json_answer(StatusCode::OK, &json!({"status": "UP"}))
}

async fn metrics(State(api): State<Api>) -> Response {
    use crate::base::telemetry::{head, line};
    let mut text = api.telemetry.prometheus();
    let counts = api.writer.counts();
    for (name, help, kind, value) in [
        ("edgetwin_twins", "Twins that exist.", "gauge", api.writer.twin_count() as u64),
        ("edgetwin_log_events_total", "Events recorded.", "counter", counts.events),
        ("edgetwin_log_batches_total", "Batches made durable.", "counter", counts.batches),
        ("edgetwin_log_bytes_total", "Bytes handed to the disk.", "counter", counts.bytes),
        ("edgetwin_log_full_total", "Changes refused for lack of space.", "counter", counts.full),
    ] {
        head(&mut text, name, help, kind);
        line(&mut text, name, value);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// What a request asks for beside its path and body.
struct Call {
    method: Method,
    headers: HeaderMap,
    query: Vec<(String, String)>,
}

impl Call {
    /// A query parameter or, Ditto allows either, the header of that name.
    fn option(&self, name: &str) -> Option<&str> {
        let query = self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        query.or_else(|| self.headers.get(name).and_then(|value| value.to_str().ok()))
    }

    fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn wants_stream(&self) -> bool {
        self.header(header::ACCEPT).is_some_and(|accept| accept.contains("text/event-stream"))
    }

    /// Whether an answer is wanted; without one, 202 says that the change was made.
    fn wants_answer(&self) -> bool {
        let timeout = self.option("timeout").map(|text| text.trim_end_matches(['m', 's']));
        self.option("response-required") != Some("false") && timeout != Some("0")
    }

    fn fields(&self) -> Result<Option<Fields>, ApiError> {
        self.query("fields")
            .map(|text| {
                Fields::parse(text)
                    .map_err(|why| ApiError::bad("things:field.selection.invalid", why))
            })
            .transpose()
    }
}

async fn dispatch(State(api): State<Api>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let correlation = correlation_id(&parts.headers);
    let call = Call { method: parts.method, headers: parts.headers, query: query_of(&parts.uri) };
    let answer = route(&api, &call, &parts.uri, body).await;
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    response.headers_mut().insert("correlation-id", correlation);
    response
}

fn query_of(uri: &Uri) -> Vec<(String, String)> {
    axum::extract::Query::try_from_uri(uri).map_or(Vec::new(), |query| query.0)
}

fn correlation_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get("x-correlation-id").or_else(|| headers.get("correlation-id"));
    if let Some(given) = given {
        return given.clone();
    }
    HeaderValue::from_str(&uuid()).unwrap_or(HeaderValue::from_static("-"))
}

/// A random UUID (RFC 9562, version 4).
fn uuid() -> String {
    let random: u128 = rand::random();
    let bits = random & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

async fn route(api: &Api, call: &Call, uri: &Uri, body: Body) -> Answer {
    let path = uri.path().trim_end_matches('/');
    let mut segments = Vec::new();
    for segment in path.split('/').skip(2) {
        let decoded = percent_encoding::percent_decode_str(segment).decode_utf8();
        let decoded = decoded.map_err(|_| {
            ApiError::bad("json.pointer.invalid", "The path is not UTF-8 once it is decoded.")
        })?;
        segments.push(decoded.into_owned());
    }
    let names: Vec<&str> = segments.iter().map(String::as_str).collect();
    match names.as_slice() {
        [version, ..] if *version != "2" => Err(ApiError::new(
            404,
            "api.version.notsupported",
            format!("API version `{version}` is not served; `2` is."),
        )),
        ["2", "things"] => things(api, call, body).await,
        ["2", "things", id, rest @ ..] => {
            let id = ThingId::parse(id)?;
            let rest = rest.iter().map(|segment| (*segment).to_owned()).collect();
            let path = Path::from_segments(rest).map_err(path_error)?;
            thing(api, call, id, path, body).await
        }
        ["2", "search", "things"] => search(api, &search_call(call, body).await?),
        ["2", "search", "things", "count"] => count(api, &search_call(call, body).await?),
        ["2", "whoami"] => Ok(json_answer(
            StatusCode::OK,
            &json!({"defaultSubject": "pre:local", "subjects": ["pre:local"]}),
        )),
        _ => Err(ApiError::new(404, "gateway:resource.notfound", format!("There is no `{path}`."))),
    }
}

fn path_error(error: PathError) -> ApiError {
    match error {
        PathError::Unknown => {
            ApiError::new(404, "gateway:resource.notfound", "A thing has no such resource.")
        }
        PathError::Invalid => ApiError::bad(
            "json.pointer.invalid",
            "A segment of the path is empty or has control characters, or the path is too deep.",
        ),
    }
}

fn verb_of(method: &Method) -> Option<Verb> {
    match *method {
        Method::GET | Method::HEAD => Some(Verb::Retrieve),
        Method::PUT => Some(Verb::Modify),
        Method::PATCH => Some(Verb::Merge),
        Method::DELETE => Some(Verb::Delete),
        _ => None,
    }
}

fn not_allowed(call: &Call) -> ApiError {
    ApiError::new(
        405,
        "gateway:method.notallowed",
        format!("{} is not possible here.", call.method),
    )
}

async fn things(api: &Api, call: &Call, body: Body) -> Answer {
    match call.method {
        Method::GET if call.wants_stream() => stream_things(api, call),
        Method::GET => {
            let fields = call.fields()?;
            let twins: Vec<Arc<Twin>> = match call.query("ids") {
                Some(ids) => {
                    let ids = ids.split(',').filter(|id| !id.is_empty());
                    let ids = ids.map(ThingId::parse).collect::<Result<Vec<_>, _>>()?;
                    ids.iter().filter_map(|id| api.writer.twin(id.as_str())).collect()
                }
                None => {
                    let mut all = api.writer.twins();
                    all.sort_by(|a, b| a.id.cmp(&b.id));
                    all.truncate(PAGE_LEN_MAX);
                    all
                }
            };
            let items: Vec<Value> = twins.iter().map(|twin| shown(twin, fields.as_ref())).collect();
            Ok(json_answer(StatusCode::OK, &Value::Array(items)))
        }
        Method::POST => {
            let value = read_json(call, body, false).await?;
            if value.get("thingId").is_some() {
                return Err(ApiError::bad(
                    "things:id.notsettable",
                    "A thing that is created by POST gets its ID from the server; use PUT to set one.",
                ));
            }
            let namespace = call.query("namespace").unwrap_or(DEFAULT_NAMESPACE);
            let id = ThingId::parse(&format!("{namespace}:{}", uuid()))?;
            create(api, call, id, value).await
        }
        _ => Err(not_allowed(call)),
    }
}

async fn create(api: &Api, call: &Call, id: ThingId, value: Value) -> Answer {
    let change = Change::Modify(Path::Thing, value);
    let wanted = Wanted {
        id: id.clone(),
        change,
        only_if: Precondition::Absent,
        origin: Origin::Client,
        depth: 0,
    };
    let accepted = api.submit(wanted).await?;
    if !call.wants_answer() {
        return Ok(empty(StatusCode::ACCEPTED));
    }
    let thing = accepted.change.after.as_deref().map(Twin::to_json);
    let mut response = json_answer(StatusCode::CREATED, &thing.unwrap_or_default());
    set(&mut response, header::LOCATION, &format!("/api/2/things/{id}"));
    set(&mut response, header::ETAG, &format!("\"rev:{}\"", accepted.change.revision));
    Ok(response)
}

async fn thing(api: &Api, call: &Call, id: ThingId, path: Path, body: Body) -> Answer {
    let Some(verb) = verb_of(&call.method).filter(|verb| path.allows(*verb)) else {
        return Err(not_allowed(call));
    };
    if verb == Verb::Retrieve {
        if call.wants_stream() {
            return stream_thing(api, call, id, path);
        }
        return retrieve(api, call, &id, &path);
    }
    let change = match verb {
        Verb::Delete => Change::Delete(path.clone()),
        Verb::Merge => Change::Merge(path.clone(), read_json(call, body, true).await?),
        _ => Change::Modify(path.clone(), read_json(call, body, false).await?),
    };
    let condition = call
        .option("condition")
        .map(|text| {
            Filter::parse(text).map_err(|why| ApiError::bad("things:condition.invalid", why))
        })
        .transpose()?;
    let conditional = condition.is_some()
        || call.headers.contains_key(header::IF_MATCH)
        || call.headers.contains_key(header::IF_NONE_MATCH);
    let mut tries = 0;
    let accepted = loop {
        tries += 1;
        let mut only_if = Precondition::Always;
        if conditional {
            let twin = api.writer.twin(id.as_str());
            let current = twin.as_ref().and_then(|twin| twin.get(&path).map(|value| (twin, value)));
            let tag = current.map(|(twin, value)| etag(twin, &path, &value));
            precondition(call, tag.as_deref(), verb)?;
            if let (Some(condition), Some(twin)) = (&condition, &twin)
                && !condition.matches(twin)
            {
                return Err(ApiError::new(
                    412,
                    "things:condition.failed",
                    "The thing does not meet the condition.",
                ));
            }
            only_if =
                twin.map_or(Precondition::Absent, |twin| Precondition::Revision(twin.revision));
        }
        let wanted = Wanted {
            id: id.clone(),
            change: change.clone(),
            only_if: only_if.clone(),
            origin: Origin::Client,
            depth: 0,
        };
        match api.writer.submit(wanted, now_us()) {
            Ok(accepted) => break accepted,
            // Someone else wrote in between: look again once that is visible.
            Err(Rejected::Refused(
                Refusal::PreconditionFailed(_)
                | Refusal::Conflict(_)
                | Refusal::NotFound(_, Path::Thing),
            )) if conditional && only_if != Precondition::Always && tries < TRIES_MAX => {
                let visible = api.writer.twin(id.as_str()).is_none();
                if only_if == Precondition::Absent && visible && tries > 1 {
                    return Err(Refusal::NotFound(id, Path::Thing).into());
                }
                let next = api.writer.durable_now().batch + 1;
                let durable = api.writer.make_durable(next);
                let waited = tokio::time::timeout(Duration::from_millis(20), durable);
                if let Ok(Err(error)) = waited.await {
                    return Err(error.into());
                }
            }
            Err(rejected) => return Err(rejected.into()),
        }
    };
    api.writer.make_durable(accepted.batch).await?;
    if !call.wants_answer() {
        return Ok(empty(StatusCode::ACCEPTED));
    }
    Ok(written(&id, &path, &accepted.change))
}

/// 201 with the value where something is new, else 204.
fn written(id: &ThingId, path: &Path, change: &Committed) -> Response {
    let value = change.after.as_ref().and_then(|twin| twin.get(path));
    let created = change.event.action == Action::Created;
    let mut response = match &value {
        Some(value) if created => json_answer(StatusCode::CREATED, value),
        _ => empty(StatusCode::NO_CONTENT),
    };
    if created {
        let below = if *path == Path::Thing { String::new() } else { path.to_string() };
        set(&mut response, header::LOCATION, &format!("/api/2/things/{id}{below}"));
    }
    if let (Some(twin), Some(value)) = (&change.after, &value) {
        set(&mut response, header::ETAG, &etag(twin, path, value));
    }
    response
}

fn retrieve(api: &Api, call: &Call, id: &ThingId, path: &Path) -> Answer {
    let not_found = |path: Path| ApiError::from(Refusal::NotFound(id.clone(), path));
    let mut twin = api.writer.twin(id.as_str()).ok_or_else(|| not_found(Path::Thing))?;
    let historical = call.option("at-historical-revision");
    if let Some(revision) = historical {
        let revision = revision.parse().map_err(|_| {
            ApiError::bad("command.headers.invalid", "`at-historical-revision` is not a number.")
        })?;
        twin = Arc::new(as_of(api, id, revision)?);
    }
    let value = twin.get(path).ok_or_else(|| not_found(twin.missing(path)))?;
    let tag = etag(&twin, path, &value);
    if historical.is_none() {
        precondition(call, Some(&tag), Verb::Retrieve)?;
        if not_modified(call, &tag) {
            let mut response = empty(StatusCode::NOT_MODIFIED);
            set(&mut response, header::ETAG, &tag);
            return Ok(response);
        }
    }
    let value = match (path, call.query("fields")) {
        (_, None) => value,
        (Path::Thing, Some(_)) => shown(&twin, call.fields()?.as_ref()),
        (_, Some(text)) => {
            let fields = Fields::parse_pointers(text)
                .map_err(|why| ApiError::bad("json.fieldselector.invalid", why))?;
            match &value {
                Value::Object(map) => Value::Object(fields.select(map)),
                _ => value,
            }
        }
    };
    let mut response = json_answer(StatusCode::OK, &value);
    set(&mut response, header::ETAG, &tag);
    Ok(response)
}

/// The twin as it was at `revision`, replayed from its history.
fn as_of(api: &Api, id: &ThingId, revision: u64) -> Result<Twin, ApiError> {
    let mut events: Vec<(i64, Event)> = Vec::new();
    let mut base = None;
    let mut complete = false;
    let read = api.writer.history(id, |at, time_us, record| {
        match record {
            HistoryRecord::State(twin) if at <= revision => {
                base = Some(*twin);
                complete = true;
                return false;
            }
            HistoryRecord::State(_) => {}
            HistoryRecord::Event(event) => {
                let first = at == 1;
                if at <= revision {
                    events.push((time_us, event));
                }
                if first {
                    complete = true;
                    return false;
                }
            }
        }
        true
    });
    read.map_err(|error| {
        ApiError::new(
            500,
            "things:thing.history.corrupt",
            format!("The history cannot be read: {error}."),
        )
    })?;
    let mut twin = base;
    for (time_us, event) in events.into_iter().rev() {
        twin = apply(id, twin.as_ref(), &event, time_us);
    }
    match twin {
        Some(twin) if complete && twin.revision == revision => Ok(twin),
        _ => Err(ApiError::new(
            404,
            "things:thing.history.notfound",
            format!("The thing `{id}` has no revision {revision} in its history."),
        )),
    }
}

fn etag(twin: &Twin, path: &Path, value: &Value) -> String {
    if *path == Path::Thing {
        return format!("\"rev:{}\"", twin.revision);
    }
    let digest = Sha256::digest(value.to_string().as_bytes());
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("\"hash:{hex}\"")
}

/// Judges `If-Match` and, for writes, `If-None-Match` (RFC 9110, 13.1).
fn precondition(call: &Call, tag: Option<&str>, verb: Verb) -> Result<(), ApiError> {
    let failed = |header: &str, wanted: &str| {
        let is = tag.unwrap_or("nothing");
        ApiError::new(
            412,
            "things:precondition.failed",
            format!("`{header}: {wanted}` does not hold: the resource is {is}."),
        )
    };
    if let Some(wanted) = call.header(header::IF_MATCH)
        && !tag_matches(wanted, tag)
    {
        return Err(failed("If-Match", wanted));
    }
    if verb != Verb::Retrieve
        && let Some(wanted) = call.header(header::IF_NONE_MATCH)
        && tag_matches(wanted, tag)
    {
        return Err(failed("If-None-Match", wanted));
    }
    Ok(())
}

fn not_modified(call: &Call, tag: &str) -> bool {
    call.header(header::IF_NONE_MATCH).is_some_and(|wanted| tag_matches(wanted, Some(tag)))
}

fn tag_matches(wanted: &str, tag: Option<&str>) -> bool {
    match tag {
        None => false,
        Some(tag) => wanted.split(',').map(str::trim).any(|wanted| wanted == "*" || wanted == tag),
    }
}

/// The whole thing, or the selected part with the special fields that were asked for.
fn shown(twin: &Twin, fields: Option<&Fields>) -> Value {
    let Value::Object(mut thing) = twin.to_json() else { return Value::Null };
    let Some(fields) = fields else { return Value::Object(thing) };
    add_special(&mut thing, twin, fields);
    Value::Object(fields.select(&thing))
}

fn add_special(thing: &mut Object, twin: &Twin, fields: &Fields) {
    let mut add = |name: &str, value: Value| {
        if fields.names(name) {
            thing.insert(name.to_owned(), value);
        }
    };
    add("_revision", twin.revision.into());
    add("_created", rfc3339(twin.created_us).into());
    add("_modified", rfc3339(twin.modified_us).into());
    add("_namespace", twin.id.namespace().into());
}

async fn read_json(call: &Call, body: Body, merge: bool) -> Result<Value, ApiError> {
    let given = call.header(header::CONTENT_TYPE).unwrap_or_default();
    let media = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let fits = match media.as_str() {
        "application/merge-patch+json" => merge,
        "application/json" | "application/octet-stream" | "" => !merge,
        _ => false,
    };
    if !fits {
        let wanted = if merge { "application/merge-patch+json" } else { "application/json" };
        return Err(ApiError {
            description: Some(if merge {
                "Set Content-Type: application/merge-patch+json."
            } else {
                "Set Content-Type: application/json."
            }),
            ..ApiError::new(
                415,
                "mediatype.unsupported",
                format!("`{given}` is not taken here; {wanted} is."),
            )
        });
    }
    let bytes = read_body(body).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::bad("json.invalid", format!("The body is not JSON: {error}.")))
}

async fn read_body(body: Body) -> Result<Bytes, ApiError> {
    to_bytes(body, BODY_LEN_MAX).await.map_err(|_| {
        ApiError::new(
            413,
            "things:thing.toolarge",
            format!("The body is larger than {BODY_LEN_MAX} bytes, or was cut off."),
        )
    })
}

fn json_answer(status: StatusCode, value: &Value) -> Response {
    let body = value.to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn set(response: &mut Response, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

// ---- search -------------------------------------------------------------------------------

struct Search {
    filters: Vec<Filter>,
    namespaces: Option<Vec<String>>,
    fields: Option<Fields>,
    sort: Vec<(Vec<String>, bool)>,
    size: usize,
    offset: usize,
}

async fn search_call(call: &Call, body: Body) -> Result<Search, ApiError> {
    let form: Vec<(String, String)> = match call.method {
        Method::GET => call.query.clone(),
        Method::POST => {
            let bytes = read_body(body).await?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let uri = Uri::builder().path_and_query(format!("/?{text}")).build();
            uri.map(|uri| query_of(&uri)).map_err(|_| {
                ApiError::bad("json.invalid", "The body is not application/x-www-form-urlencoded.")
            })?
        }
        _ => return Err(not_allowed(call)),
    };
    let option_error = |why: String| ApiError::bad("thing-search:search.option.invalid", why);
    let mut search = Search {
        filters: Vec::new(),
        namespaces: None,
        fields: None,
        sort: Vec::new(),
        size: PAGE_LEN_DEFAULT,
        offset: 0,
    };
    for (key, value) in form {
        match key.as_str() {
            "filter" => search.filters.push(
                Filter::parse(&value)
                    .map_err(|why| ApiError::bad("rql.expression.invalid", why))?,
            ),
            "namespaces" => {
                search.namespaces = Some(value.split(',').map(str::to_owned).collect());
            }
            "fields" => {
                let fields = Fields::parse(&value)
                    .map_err(|why| ApiError::bad("things:field.selection.invalid", why))?;
                search.fields = Some(fields);
            }
            "option" => search_options(&mut search, &value).map_err(option_error)?,
            _ => {}
        }
    }
    Ok(search)
}

/// `sort(+a,-b),size(n),cursor(c),limit(offset,n)`
fn search_options(search: &mut Search, text: &str) -> Result<(), String> {
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('(').ok_or(format!("`{rest}` is not an option."))?;
        let (arguments, after) = after.split_once(')').ok_or(format!("`{name}(` has no `)`."))?;
        let number = |text: &str| {
            text.trim().parse::<usize>().map_err(|_| format!("`{text}` is not a number."))
        };
        match name.trim() {
            "size" => search.size = page_len(number(arguments)?)?,
            "limit" => {
                let (offset, size) =
                    arguments.split_once(',').ok_or("limit takes an offset and a count.")?;
                search.offset = number(offset)?;
                search.size = page_len(number(size)?)?;
            }
            "cursor" => {
                let offset = arguments.strip_prefix("at-").and_then(|text| text.parse().ok());
                search.offset = offset.ok_or(format!("`{arguments}` is not a cursor."))?;
            }
            "sort" => {
                for key in arguments.split(',') {
                    let descending = key.starts_with('-');
                    let path = key.trim_start_matches(['+', '-', ' ', '/']);
                    if path.is_empty() {
                        return Err("sort names an empty property.".to_owned());
                    }
                    search.sort.push((path.split('/').map(str::to_owned).collect(), descending));
                }
            }
            other => {
                return Err(format!(
                    "`{other}` is not an option; sort, size, cursor and limit are."
                ));
            }
        }
        rest = after.trim_start_matches([',', ' ']);
    }
    Ok(())
}

fn page_len(size: usize) -> Result<usize, String> {
    if size > PAGE_LEN_MAX {
        return Err(format!("A page has at most {PAGE_LEN_MAX} things."));
    }
    Ok(size)
}

fn hits(api: &Api, search: &Search) -> Vec<Arc<Twin>> {
    let mut twins = api.writer.twins();
    twins.retain(|twin| {
        let named = |all: &Vec<String>| all.iter().any(|name| name == twin.id.namespace());
        search.namespaces.as_ref().is_none_or(named)
            && search.filters.iter().all(|filter| filter.matches(twin))
    });
    twins
}

fn search(api: &Api, search: &Search) -> Answer {
    let mut found: Vec<(Vec<Value>, Arc<Twin>)> = hits(api, search)
        .into_iter()
        .map(|twin| (search.sort.iter().map(|(key, _)| sort_key(&twin, key)).collect(), twin))
        .collect();
    found.sort_by(|(a, twin_a), (b, twin_b)| {
        let each = a.iter().zip(b).zip(&search.sort).map(|((a, b), (_, descending))| {
            let order = compare(a, b);
            if *descending { order.reverse() } else { order }
        });
        each.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
            .then_with(|| twin_a.id.cmp(&twin_b.id))
    });
    let end = search.offset.saturating_add(search.size);
    let more = found.len() > end;
    let page = found.into_iter().skip(search.offset).take(search.size);
    let items: Vec<Value> = page.map(|(_, twin)| shown(&twin, search.fields.as_ref())).collect();
    let mut body = json!({"items": items});
    if more && let Some(map) = body.as_object_mut() {
        map.insert("cursor".to_owned(), format!("at-{end}").into());
        map.insert("nextPageOffset".to_owned(), end.into());
    }
    Ok(json_answer(StatusCode::OK, &body))
}

fn count(api: &Api, search: &Search) -> Answer {
    Ok(json_answer(StatusCode::OK, &hits(api, search).len().into()))
}

fn sort_key(twin: &Twin, key: &[String]) -> Value {
    match key {
        [only] => match only.as_str() {
            "thingId" => twin.id.as_str().into(),
            "_revision" => twin.revision.into(),
            "_created" => twin.created_us.into(),
            "_modified" => twin.modified_us.into(),
            _ => twin.to_json().get(only).cloned().unwrap_or_default(),
        },
        key => Path::from_segments(key.to_vec())
            .ok()
            .and_then(|path| twin.get(&path))
            .unwrap_or_default(),
    }
}

fn compare(a: &Value, b: &Value) -> std::cmp::Ordering {
    let rank = |value: &Value| match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        _ => 4,
    };
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0))
        }
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        _ => rank(a).cmp(&rank(b)),
    }
}

// ---- streams ------------------------------------------------------------------------------

fn stream_filter(call: &Call) -> Result<Vec<Filter>, ApiError> {
    call.query
        .iter()
        .filter(|(key, _)| key == "filter")
        .map(|(_, text)| {
            Filter::parse(text).map_err(|why| ApiError::bad("rql.expression.invalid", why))
        })
        .collect()
}

fn stream_things(api: &Api, call: &Call) -> Answer {
    let list = |name: &str| -> Option<Vec<String>> {
        call.query(name).map(|text| text.split(',').map(str::to_owned).collect())
    };
    let (ids, namespaces) = (list("ids"), list("namespaces"));
    let filters = stream_filter(call)?;
    let fields = call.fields()?;
    Ok(stream(api, move |change| {
        let wanted = |list: &Option<Vec<String>>, name: &str| {
            list.as_ref().is_none_or(|list| list.iter().any(|item| item == name))
        };
        if !wanted(&ids, change.id.as_str()) || !wanted(&namespaces, change.id.namespace()) {
            return None;
        }
        let twin = change.after.as_deref().or(change.before.as_deref())?;
        if !filters.iter().all(|filter| filter.matches(twin)) {
            return None;
        }
        shown_change(change, twin, fields.as_ref())
    }))
}

fn stream_thing(api: &Api, call: &Call, id: ThingId, path: Path) -> Answer {
    let twin = api.writer.twin(id.as_str());
    let twin = twin.ok_or_else(|| Refusal::NotFound(id.clone(), Path::Thing))?;
    drop(twin);
    let filters = stream_filter(call)?;
    let fields = if path == Path::Thing { call.fields()? } else { None };
    Ok(stream(api, move |change| {
        if change.id != id {
            return None;
        }
        let twin = change.after.as_deref().or(change.before.as_deref())?;
        if !filters.iter().all(|filter| filter.matches(twin)) {
            return None;
        }
        if path == Path::Thing {
            return shown_change(change, twin, fields.as_ref());
        }
        // Below a thing: the bare new value, whenever it is another one.
        let before = change.before.as_ref().and_then(|twin| twin.get(&path));
        let after = change.after.as_ref().and_then(|twin| twin.get(&path));
        if before == after { None } else { after }
    }))
}

/// What changed, as a thing that holds only that, and the ID.
fn shown_change(change: &Committed, twin: &Twin, fields: Option<&Fields>) -> Option<Value> {
    let Event { action, path, value, .. } = &*change.event;
    let mut thing = match (action, path, value) {
        (Action::Deleted, Path::Thing, _) => Map::new(),
        (Action::Read, _, Some(Value::Object(values))) => {
            let features = values
                .iter()
                .map(|(feature, values)| (feature.clone(), json!({"properties": values})));
            Map::from_iter([("features".to_owned(), Value::Object(features.collect()))])
        }
        (Action::ReadLate | Action::BootReset, ..) => return None,
        (Action::Deleted, ..) | (_, _, None) => Map::new(),
        (_, Path::Thing, Some(value)) => value.as_object().cloned().unwrap_or_default(),
        (_, path, Some(value)) => {
            let pointer: Vec<String> =
                path.to_string().split('/').skip(1).map(str::to_owned).collect();
            merge::wrap(&pointer, value.clone()).as_object().cloned().unwrap_or_default()
        }
    };
    thing.insert("thingId".to_owned(), change.id.as_str().into());
    let Some(fields) = fields else { return Some(Value::Object(thing)) };
    let own = fields.select(&thing);
    let only_id = own.keys().all(|key| key == "thingId") && !fields.names("thingId");
    if own.is_empty() || only_id {
        return None;
    }
    add_special(&mut thing, twin, fields);
    if fields.names("_context") {
        thing.insert("_context".to_owned(), context(change));
    }
    Some(Value::Object(fields.select(&thing)))
}

fn context(change: &Committed) -> Value {
    let action = match change.event.action {
        Action::Created => "created",
        Action::Modified => "modified",
        Action::Merged | Action::Read | Action::ReadLate | Action::BootReset => "merged",
        Action::Deleted => "deleted",
    };
    let (namespace, name) = (change.id.namespace(), change.id.name());
    json!({
        "topic": format!("{namespace}/{name}/things/twin/events/{action}"),
        "path": change.event.path.to_string(),
        "value": change.event.value,
    })
}

fn stream(api: &Api, show: impl Fn(&Committed) -> Option<Value> + Send + 'static) -> Response {
    struct Open<F> {
        changes: broadcast::Receiver<Arc<Committed>>,
        telemetry: Arc<Telemetry>,
        stop: watch::Receiver<bool>,
        show: F,
    }
    let open = Open {
        changes: api.feed.0.subscribe(),
        telemetry: api.telemetry.clone(),
        stop: api.stop.clone(),
        show,
    };
    let events = stream::unfold(open, |mut open| async move {
        loop {
            let change = tokio::select! {
                () = stopped(&mut open.stop) => return None,
                change = tokio::time::timeout(HEARTBEAT, open.changes.recv()) => change,
            };
            let event = match change {
                Err(_) => SseEvent::default().data(""),
                Ok(Err(broadcast::error::RecvError::Closed)) => return None,
                Ok(Err(broadcast::error::RecvError::Lagged(missed))) => {
                    open.telemetry.stream_missed.add(missed);
                    continue;
                }
                Ok(Ok(change)) => match (open.show)(&change) {
                    Some(value) => SseEvent::default().data(value.to_string()),
                    None => continue,
                },
            };
            return Some((Ok::<_, Infallible>(event), open));
        }
    });
    Sse::new(events).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(headers: &[(&str, &str)]) -> Call {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = header::HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.insert(name, value.parse().unwrap());
        }
        Call { method: Method::GET, headers: map, query: Vec::new() }
    }

    #[test]
    fn preconditions_hold_as_the_rfc_says() {
        let tag = Some("\"rev:3\"");
        for (headers, verb, holds) in [
            (("if-match", "\"rev:3\""), Verb::Modify, true),
            (("if-match", "\"rev:2\", \"rev:3\""), Verb::Delete, true),
            (("if-match", "\"rev:2\""), Verb::Modify, false),
            (("if-match", "*"), Verb::Modify, true),
            (("if-none-match", "*"), Verb::Modify, false),
            (("if-none-match", "\"rev:2\""), Verb::Merge, true),
            (("if-none-match", "\"rev:3\""), Verb::Retrieve, true),
        ] {
            assert_eq!(precondition(&call(&[headers]), tag, verb).is_ok(), holds, "{headers:?}");
        }
        assert!(precondition(&call(&[("if-match", "*")]), None, Verb::Modify).is_err());
        assert!(precondition(&call(&[("if-none-match", "*")]), None, Verb::Modify).is_ok());
    }

    #[test]
    fn ids_are_random_uuids() {
        let (a, b) = (uuid(), uuid());
        assert_ne!(a, b);
        assert_eq!((a.len(), &a[14..15]), (36, "4"));
        assert!("89ab".contains(&a[19..20]));
    }

    #[test]
    fn search_options_are_read_or_refused() {
        let mut search = Search {
            filters: Vec::new(),
            namespaces: None,
            fields: None,
            sort: Vec::new(),
            size: PAGE_LEN_DEFAULT,
            offset: 0,
        };
        search_options(&mut search, "sort(+thingId,-attributes/a),size(5),cursor(at-10)").unwrap();
        assert_eq!((search.size, search.offset, search.sort.len()), (5, 10, 2));
        for text in ["size(201)", "size(x)", "page(1)", "size(1", "cursor(x)", "limit(1)", "sort()"]
        {
            assert!(search_options(&mut search, text).is_err(), "{text}");
        }
    }
}
