//! The I/O boundary: requests in, responses and streams out, health, metrics and the front page.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::sse::{Event as SseEvent, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, get};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

use super::call::Call;
use super::error::DittoError;
use super::search::{PAGE_LEN_MAX, SearchQuery};
use super::stream::Subscription;
use super::things::{self, PastRevision, etag, not_modified, precondition, shown};
use crate::base::clock::now_us;
use crate::base::http::{BODY_LEN_MAX, empty, error, stopped};
use crate::base::telemetry::{Telemetry, head, line};
use crate::twin::path::{Path, Verb};
use crate::twin::{Action, Change, Refusal, ThingId, Twin};
use crate::writer::{
    Committed, Origin, Precondition, Rejected, Request as ChangeRequest, Sink, Writer,
};

/// Changes that a slow stream may be behind; older ones are missed, counted, and the stream goes
/// on with what is new.
const FEED_LEN_MAX: usize = 4096;
/// An idle stream sends an empty event this often (Ditto: 1 s).
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Tries of a conditional write while others write the same thing.
const TRIES_MAX: usize = 16;
/// Time that a conditional write waits for the write that came in between to become visible.
const RETRY_WAIT: Duration = Duration::from_millis(20);
/// Namespace of things that are created without one (Ditto).
const DEFAULT_NAMESPACE: &str = "org.eclipse.ditto";

const FRONT_PAGE: &str = include_str!("../../templates/pages/index.html");
const FRONT_TEXT: &str = include_str!("../../templates/pages/index.txt");

/// What the API works with. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    writer: Arc<Writer>,
    telemetry: Arc<Telemetry>,
    feed: Arc<ChangeFeed>,
    stop: watch::Receiver<bool>,
}

/// Hands durable changes to streams.
pub struct ChangeFeed(broadcast::Sender<Arc<Committed>>);

impl Sink for ChangeFeed {
    fn committed(&self, changes: &[Committed]) {
        if self.0.receiver_count() > 0 {
            for change in changes {
                // No receiver is left: that is fine.
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
        let feed = Arc::new(ChangeFeed(broadcast::Sender::new(FEED_LEN_MAX)));
        Self { writer, telemetry, feed, stop }
    }

    /// The sink to give to the writer.
    pub fn feed(&self) -> Arc<ChangeFeed> {
        self.feed.clone()
    }
}

/// Everything under `/api`, `/health` and `/metrics`, and the front page.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/", get(front_page))
        .route("/api/{*rest}", any(dispatch))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(unknown)
        .with_state(api)
}

type Answer = Result<Response, DittoError>;

impl IntoResponse for DittoError {
    fn into_response(self) -> Response {
        let row = self.row();
        let status = StatusCode::from_u16(row.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = error(status, row.code, &row.message, row.description);
        if let Some(seconds) = row.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// What is where: a page for browsers, text for everybody else.
async fn front_page(headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("text/html")) {
        Html(FRONT_PAGE).into_response()
    } else {
        FRONT_TEXT.into_response()
    }
}

async fn unknown(uri: Uri) -> DittoError {
    DittoError::UnknownPath(uri.path().to_owned())
}

async fn health() -> Response {
    json_response(StatusCode::OK, &json!({"status": "UP"}))
}

async fn metrics(State(api): State<Api>) -> Response {
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
        segments.push(decoded.map_err(|_| DittoError::PathEncoding)?.into_owned());
    }
    let names: Vec<&str> = segments.iter().map(String::as_str).collect();
    match names.as_slice() {
        [version, ..] if *version != "2" => Err(DittoError::UnknownVersion((*version).to_owned())),
        ["2", "things"] => many(api, call, body).await,
        ["2", "things", id, rest @ ..] => {
            let id = ThingId::parse(id)?;
            let rest = rest.iter().map(|segment| (*segment).to_owned()).collect();
            one(api, call, id, Path::from_segments(rest)?, body).await
        }
        ["2", "search", "things"] => {
            let query = search_query(call, body).await?;
            Ok(json_response(StatusCode::OK, &query.page(api.writer.twins())))
        }
        ["2", "search", "things", "count"] => {
            let query = search_query(call, body).await?;
            Ok(json_response(StatusCode::OK, &query.count(&api.writer.twins()).into()))
        }
        ["2", "whoami"] => Ok(json_response(
            StatusCode::OK,
            &json!({"defaultSubject": "pre:local", "subjects": ["pre:local"]}),
        )),
        _ => Err(DittoError::UnknownPath(path.to_owned())),
    }
}

/// `/things`: a list of them, a stream of their changes, or a new one.
async fn many(api: &Api, call: &Call, body: Body) -> Answer {
    match call.method {
        Method::GET if call.wants_stream() => Ok(events(api, Subscription::to_things(call)?)),
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
            Ok(json_response(StatusCode::OK, &Value::Array(items)))
        }
        Method::POST => {
            let value = read_json(call, body, false).await?;
            if value.get("thingId").is_some() {
                return Err(DittoError::IdNotSettable);
            }
            let namespace = call.query("namespace").unwrap_or(DEFAULT_NAMESPACE);
            let id = ThingId::parse(&format!("{namespace}:{}", uuid()))?;
            create(api, call, id, value).await
        }
        _ => Err(call.not_allowed()),
    }
}

async fn create(api: &Api, call: &Call, id: ThingId, value: Value) -> Answer {
    let request = ChangeRequest {
        id: id.clone(),
        change: Change::Modify(Path::Thing, value),
        only_if: Precondition::Absent,
        origin: Origin::Client,
        depth: 0,
    };
    let accepted = api.writer.submit(request, now_us())?;
    api.writer.make_durable(accepted.batch).await?;
    if !call.wants_result() {
        return Ok(empty(StatusCode::ACCEPTED));
    }
    let thing = accepted.change.after.as_deref().map(Twin::to_json);
    let mut response = json_response(StatusCode::CREATED, &thing.unwrap_or_default());
    set(&mut response, header::LOCATION, &format!("/api/2/things/{id}"));
    set(&mut response, header::ETAG, &things::revision_tag(accepted.change.revision));
    Ok(response)
}

/// `/things/ID` and everything below it.
async fn one(api: &Api, call: &Call, id: ThingId, path: Path, body: Body) -> Answer {
    let Some(verb) = call.verb().filter(|verb| path.allows(*verb)) else {
        return Err(call.not_allowed());
    };
    let change = match verb {
        Verb::Retrieve if call.wants_stream() => {
            if api.writer.twin(id.as_str()).is_none() {
                return Err(Refusal::NotFound(id, Path::Thing).into());
            }
            return Ok(events(api, Subscription::to_part(call, id, path)?));
        }
        Verb::Retrieve => return retrieve(api, call, &id, &path),
        Verb::Delete => Change::Delete(path.clone()),
        Verb::Merge => Change::Merge(path.clone(), read_json(call, body, true).await?),
        Verb::Modify => Change::Modify(path.clone(), read_json(call, body, false).await?),
    };
    let accepted = if call.is_conditional() {
        write_if(api, call, &id, &path, verb, change).await?
    } else {
        let request = ChangeRequest {
            id: id.clone(),
            change,
            only_if: Precondition::Always,
            origin: Origin::Client,
            depth: 0,
        };
        api.writer.submit(request, now_us())?
    };
    api.writer.make_durable(accepted.batch).await?;
    if !call.wants_result() {
        return Ok(empty(StatusCode::ACCEPTED));
    }
    Ok(written(&id, &path, &accepted.change))
}

/// Submits a change if the thing meets the request's conditions, and again while others write it
/// in between.
async fn write_if(
    api: &Api,
    call: &Call,
    id: &ThingId,
    path: &Path,
    verb: Verb,
    change: Change,
) -> Result<crate::writer::Accepted, DittoError> {
    let condition = call.condition()?;
    let mut tries = 0;
    loop {
        tries += 1;
        let twin = api.writer.twin(id.as_str());
        let current = twin.as_ref().and_then(|twin| twin.get(path).map(|value| (twin, value)));
        let tag = current.map(|(twin, value)| etag(twin, path, &value));
        precondition(call, tag.as_deref(), verb)?;
        if let (Some(condition), Some(twin)) = (&condition, &twin)
            && !condition.matches(twin)
        {
            return Err(DittoError::ConditionFailed);
        }
        let only_if =
            twin.map_or(Precondition::Absent, |twin| Precondition::Revision(twin.revision));
        let request = ChangeRequest {
            id: id.clone(),
            change: change.clone(),
            only_if: only_if.clone(),
            origin: Origin::Client,
            depth: 0,
        };
        match api.writer.submit(request, now_us()) {
            Ok(accepted) => return Ok(accepted),
            // Another client wrote in between: look again once that is visible.
            Err(Rejected::Refused(
                Refusal::PreconditionFailed(_)
                | Refusal::Conflict(_)
                | Refusal::NotFound(_, Path::Thing),
            )) if tries < TRIES_MAX => {
                let absent = api.writer.twin(id.as_str()).is_none();
                if only_if == Precondition::Absent && absent && tries > 1 {
                    return Err(Refusal::NotFound(id.clone(), Path::Thing).into());
                }
                let next = api.writer.durable_now().batch + 1;
                let durable = api.writer.make_durable(next);
                // It may have become visible already, and no batch may follow.
                if let Ok(Err(error)) = tokio::time::timeout(RETRY_WAIT, durable).await {
                    return Err(error.into());
                }
            }
            Err(rejected) => return Err(rejected.into()),
        }
    }
}

/// 201 with the value where something is new, else 204.
fn written(id: &ThingId, path: &Path, change: &Committed) -> Response {
    let value = change.after.as_ref().and_then(|twin| twin.get(path));
    let created = change.event.action == Action::Created;
    let mut response = match &value {
        Some(value) if created => json_response(StatusCode::CREATED, value),
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
    let not_found = |path: Path| DittoError::from(Refusal::NotFound(id.clone(), path));
    let mut twin = api.writer.twin(id.as_str()).ok_or_else(|| not_found(Path::Thing))?;
    let historical = call.historical_revision()?;
    if let Some(revision) = historical {
        let mut past = PastRevision::new(revision);
        let read = api.writer.history(id, |at, time_us, record| past.take(at, time_us, record));
        read.map_err(|error| DittoError::HistoryUnreadable(error.to_string()))?;
        twin = Arc::new(past.finish(id)?);
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
    let value = things::selected(&twin, path, value, call.query("fields"))?;
    let mut response = json_response(StatusCode::OK, &value);
    set(&mut response, header::ETAG, &tag);
    Ok(response)
}

async fn search_query(call: &Call, body: Body) -> Result<SearchQuery, DittoError> {
    match call.method {
        Method::GET => SearchQuery::parse(&call.query),
        Method::POST => {
            let bytes = read_body(body).await?;
            let text = String::from_utf8_lossy(&bytes);
            let uri = Uri::builder().path_and_query(format!("/?{text}")).build();
            SearchQuery::parse(&query_of(&uri.map_err(|_| DittoError::NotAForm)?))
        }
        _ => Err(call.not_allowed()),
    }
}

async fn read_json(call: &Call, body: Body, merge: bool) -> Result<Value, DittoError> {
    call.check_media_type(merge)?;
    let bytes = read_body(body).await?;
    serde_json::from_slice(&bytes).map_err(|error| DittoError::NotJson(error.to_string()))
}

async fn read_body(body: Body) -> Result<Bytes, DittoError> {
    to_bytes(body, BODY_LEN_MAX).await.map_err(|_| DittoError::BodyTooLarge)
}

fn json_response(status: StatusCode, value: &Value) -> Response {
    let body = value.to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// The stream of changes that `subscription` shows.
fn events(api: &Api, subscription: Subscription) -> Response {
    struct Open {
        changes: broadcast::Receiver<Arc<Committed>>,
        telemetry: Arc<Telemetry>,
        stop: watch::Receiver<bool>,
        subscription: Subscription,
    }
    let open = Open {
        changes: api.feed.0.subscribe(),
        telemetry: api.telemetry.clone(),
        stop: api.stop.clone(),
        subscription,
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
                    let remedy = "have it read faster, or ask for fewer things";
                    tracing::warn!(
                        missed,
                        remedy,
                        "a reader of a stream was too slow for some events"
                    );
                    continue;
                }
                Ok(Ok(change)) => match open.subscription.show(&change) {
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

    #[test]
    fn ids_are_random_uuids() {
        let (a, b) = (uuid(), uuid());
        assert_ne!(a, b);
        assert_eq!((a.len(), &a[14..15]), (36, "4"));
        assert!("89ab".contains(&a[19..20]));
    }
}
