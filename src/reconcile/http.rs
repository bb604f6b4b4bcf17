//! The control API: for the command line, as JSON over HTTP under `/edgetwin/v1`.
//!
//! | request | does |
//! |---|---|
//! | `POST /apply` | checks, plans and stores documents: `{"documents", "dryRun", "prune", "set", "base"}` |
//! | `POST /plan` | the same as a dry run |
//! | `GET /objects`, `/objects/KIND`, `/objects/KIND/NAMESPACE/NAME` | objects with status; `?namespace=`, `?labelSelector=`, `?made=true` lists the twins of TwinSets, too; `?watch=true` goes on as server-sent events `{"type": "ADDED"|"MODIFIED"|"DELETED", "object"}`; `/objects?declared=true` leaves status out |
//! | `POST /delete` | marks objects as deleted: `{"objects": [{"kind", "namespace", "name"}]}` |
//! | `DELETE /objects/KIND/NAMESPACE/NAME` | the same for one |
//! | `POST /wait` | answers when all of `{"objects", "for": "Ready"}` are so, or after `timeoutMs` with those that are not; also `"Deleted"`, `"CONDITION=STATUS"` |
//! | `GET /events` | the latest events; `?watch=true` goes on as server-sent events |
//! | `GET /commands` | commands to nodes, by node; `?namespace=` |
//! | `GET /explain/node/NAMESPACE/NAME` | why a node transmits as it does |
//! | `GET /status`, `GET /version` | how the runtime is, and what it is |
//! | `PUT`, `HEAD /artefacts/SHA256` | model files and training data by digest |
//!
//! An error is `{"error": {"code", "message", "hint"}}`, with `diagnostics` where documents have
//! mistakes.
//!
//! Not here: which hosts and origins may ask (the layer that all surfaces share).

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{self, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};

use super::apply::{ApplyError, ApplyOptions};
use super::disk::ARTEFACT_BYTES_MAX;
use super::key::ObjectKey;
use super::plan::PlanError;
use super::reconciler::Reconciler;
use super::wait::Until;
use crate::base::telemetry::Event;
use crate::kinds::Kind;
use crate::manifest::diagnostic;
use crate::twin::ThingId;
use crate::twin::selector::Selector;

/// Largest body of an apply, bytes: 10,000 documents of 1.6 KB. A larger one is answered with 413.
pub const APPLY_BYTES_MAX: usize = 16 << 20;

/// Longest wait of one request; whoever wants to wait longer asks again.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Time between two looks for events that are new.
const EVENTS_PERIOD: Duration = Duration::from_millis(250);

type Control = State<Arc<Reconciler>>;

/// The routes, below `/edgetwin/v1`.
pub fn router(reconciler: Arc<Reconciler>) -> Router {
    let routes = Router::new()
        .route("/apply", post(apply))
        .route("/plan", post(plan))
        .route("/delete", post(delete_many))
        .route("/wait", post(wait))
        .route("/objects", get(list_all))
        .route("/objects/{kind}", get(list))
        .route("/objects/{kind}/{namespace}/{name}", get(one).delete(delete_one))
        .route("/events", get(events))
        .route("/commands", get(commands))
        .route("/explain/node/{namespace}/{name}", get(explain))
        .route("/status", get(status))
        .route("/version", get(version))
        .layer(DefaultBodyLimit::max(APPLY_BYTES_MAX))
        .route(
            "/artefacts/{digest}",
            put(put_artefact).head(has_artefact).layer(DefaultBodyLimit::max(ARTEFACT_BYTES_MAX)),
        )
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "not-found", "no such path") })
        .with_state(reconciler);
    Router::new().nest("/edgetwin/v1", routes)
}

/// Why a request was not carried out.
struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
    hint: Option<String>,
    diagnostics: Option<Value>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), hint: None, diagnostics: None }
    }

    fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", message)
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(hint) = self.hint {
            error["hint"] = hint.into();
        }
        if let Some(diagnostics) = self.diagnostics {
            error["diagnostics"] = diagnostics;
        }
        answer(self.status, &json!({ "error": error }))
    }
}

impl From<ApplyError> for Problem {
    fn from(error: ApplyError) -> Self {
        let message = error.to_string();
        match error {
            ApplyError::Invalid(diagnostics) => Self {
                diagnostics: Some(diagnostic::to_json(&diagnostics)["diagnostics"].take()),
                ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message)
            },
            ApplyError::Plan(PlanError::PruneWithoutSet) => {
                Self::bad(message).hint("name the set: `--prune --set NAME`")
            }
            ApplyError::Plan(PlanError::OwnedByOther { set, .. }) => {
                Self::new(StatusCode::CONFLICT, "conflict", message)
                    .hint(format!("apply it with `--set {set}`, or delete it first"))
            }
            ApplyError::BaseMoved => {
                Self::new(StatusCode::CONFLICT, "base-moved", message).hint("make the plan again")
            }
            ApplyError::TooLarge(..) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message)
            }
            ApplyError::NotStored(_) => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "not-stored", message)
            }
        }
    }
}

fn json_text(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// A list of items that are JSON text already.
fn list_text(items: &str) -> Response {
    json_text(StatusCode::OK, format!(r#"{{"kind":"List","items":{items}}}"#))
}

fn answer(status: StatusCode, value: &Value) -> Response {
    json_text(status, value.to_string())
}

fn ok(value: &Value) -> Response {
    answer(StatusCode::OK, value)
}

/// A body, or why there is none that could be taken.
type Body = Result<Bytes, BytesRejection>;
/// A query, or what is wrong with it.
type Asked<T> = Result<Query<T>, QueryRejection>;

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the body is too large")
            }
            _ => Self::bad(rejection.body_text()),
        }
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad(rejection.body_text())
    }
}

/// The body of an apply.
#[derive(Deserialize)]
struct Apply {
    documents: Vec<Value>,
    #[serde(flatten)]
    options: Value,
}

async fn run_apply(
    reconciler: Arc<Reconciler>,
    body: &[u8],
    dry_run: bool,
) -> Result<Response, Problem> {
    let body: Apply = parse(body)?;
    let mut options: ApplyOptions =
        serde_json::from_value(body.options).map_err(|error| Problem::bad(error.to_string()))?;
    options.dry_run |= dry_run;
    let report = reconciler.apply(body.documents, options).await?;
    Ok(json_text(StatusCode::OK, report.to_json()))
}

async fn apply(State(reconciler): Control, body: Body) -> Result<Response, Problem> {
    run_apply(reconciler, &body?, false).await
}

async fn plan(State(reconciler): Control, body: Body) -> Result<Response, Problem> {
    run_apply(reconciler, &body?, true).await
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::bad(format!("the body: {error}")))
}

/// What a list is limited to.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Listing {
    namespace: Option<String>,
    label_selector: Option<String>,
    made: bool,
    /// All objects, without status.
    declared: bool,
    /// Go on with what changes.
    watch: bool,
}

async fn list_all(state: Control, query: Asked<Listing>) -> Result<Response, Problem> {
    let query = query?.0;
    if query.declared {
        return Ok(list_text(&state.declared_json()));
    }
    list_of(&state, None, query)
}

async fn list(
    state: Control,
    Path(kind): Path<String>,
    query: Asked<Listing>,
) -> Result<Response, Problem> {
    list_of(&state, Some(find_kind(&kind)?), query?.0)
}

fn list_of(
    reconciler: &Arc<Reconciler>,
    kind: Option<Kind>,
    query: Listing,
) -> Result<Response, Problem> {
    let selector: Selector = query.label_selector.as_deref().unwrap_or_default().parse().map_err(
        |error: crate::base::units::ScalarError| Problem::bad(error.message).hint(error.help),
    )?;
    if query.watch {
        let watch = Watch {
            reconciler: reconciler.clone(),
            kind,
            query,
            selector,
            seen: BTreeMap::new(),
            waiting: VecDeque::new(),
            pause: Duration::ZERO,
        };
        let stream = stream::unfold(watch, Watch::next);
        return Ok(Sse::new(stream).keep_alive(sse::KeepAlive::default()).into_response());
    }
    let items = reconciler.list(kind, query.namespace.as_deref(), &selector, query.made);
    Ok(list_text(&items))
}

/// Follows a list.
struct Watch {
    reconciler: Arc<Reconciler>,
    kind: Option<Kind>,
    query: Listing,
    selector: Selector,
    /// What was sent, by key: a digest of it, since it may be 100,000 objects.
    seen: BTreeMap<String, u64>,
    waiting: VecDeque<Value>,
    pause: Duration,
}

impl Watch {
    async fn next(mut self) -> Option<(Result<sse::Event, Infallible>, Self)> {
        loop {
            if let Some(next) = self.waiting.pop_front() {
                return Some((Ok(sse::Event::default().data(next.to_string())), self));
            }
            let mut stopping = self.reconciler.stopping.subscribe();
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return None,
                () = tokio::time::sleep(self.pause) => {}
            }
            let started = tokio::time::Instant::now();
            self.look();
            // A long list takes a tenth of a processor at most.
            self.pause = EVENTS_PERIOD.max(10 * started.elapsed());
        }
    }

    fn look(&mut self) {
        let namespace = self.query.namespace.as_deref();
        let text = self.reconciler.list(self.kind, namespace, &self.selector, self.query.made);
        // The list is JSON that was made here.
        let items: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
        let mut former = std::mem::take(&mut self.seen);
        for item in items {
            let words = |path| item.pointer(path).and_then(Value::as_str).unwrap_or_default();
            let key = format!(
                "{}/{}/{}",
                words("/kind"),
                words("/metadata/namespace"),
                words("/metadata/name")
            );
            let mut hasher = DefaultHasher::new();
            item.to_string().hash(&mut hasher);
            let digest = hasher.finish();
            let change = match former.remove(&key) {
                None => Some("ADDED"),
                Some(before) if before != digest => Some("MODIFIED"),
                Some(_) => None,
            };
            self.seen.insert(key, digest);
            if let Some(change) = change {
                self.waiting.push_back(json!({ "type": change, "object": item }));
            }
        }
        for key in former.into_keys() {
            let mut parts = key.splitn(3, '/');
            let mut part = || parts.next().unwrap_or_default();
            let object = json!({
                "kind": part(),
                "metadata": { "namespace": part(), "name": part() },
            });
            self.waiting.push_back(json!({ "type": "DELETED", "object": object }));
        }
    }
}

fn find_kind(word: &str) -> Result<Kind, Problem> {
    Kind::find(word).ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "unknown-kind", format!("there is no kind `{word}`"))
    })
}

fn key(kind: &str, namespace: String, name: String) -> Result<ObjectKey, Problem> {
    Ok(ObjectKey { kind: find_kind(kind)?, namespace, name })
}

fn missing(key: &ObjectKey) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not-found", format!("there is no {key}"))
}

async fn one(
    State(reconciler): Control,
    Path((kind, namespace, name)): Path<(String, String, String)>,
) -> Result<Response, Problem> {
    let key = key(&kind, namespace, name)?;
    reconciler.get(&key).map(|value| ok(&value)).ok_or_else(|| missing(&key))
}

async fn delete_one(
    State(reconciler): Control,
    Path((kind, namespace, name)): Path<(String, String, String)>,
) -> Result<Response, Problem> {
    let key = key(&kind, namespace, name)?;
    let (deleted, _) = reconciler.delete(vec![key.clone()]).await?;
    if deleted.is_empty() {
        return Err(missing(&key));
    }
    Ok(answer(StatusCode::ACCEPTED, &json!({ "deleted": deleted, "missing": [] })))
}

/// The body of a deletion.
#[derive(Deserialize)]
struct Delete {
    objects: Vec<ObjectKey>,
}

async fn delete_many(State(reconciler): Control, body: Body) -> Result<Response, Problem> {
    let body: Delete = parse(&body?)?;
    let (deleted, missing) = reconciler.delete(body.objects).await?;
    Ok(answer(StatusCode::ACCEPTED, &json!({ "deleted": deleted, "missing": missing })))
}

/// The body of a wait.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wait {
    objects: Vec<ObjectKey>,
    #[serde(rename = "for")]
    until: String,
    timeout_ms: u64,
}

async fn wait(State(reconciler): Control, body: Body) -> Result<Response, Problem> {
    let body: Wait = parse(&body?)?;
    let until: Until = body.until.parse().map_err(Problem::bad)?;
    let timeout = Duration::from_millis(body.timeout_ms).min(WAIT_MAX);
    let waiting = reconciler.wait_until(&body.objects, &until, timeout).await;
    let waiting: Vec<Value> = waiting
        .iter()
        .map(|key| json!({ "object": key.to_string(), "why": reconciler.why_not(key) }))
        .collect();
    Ok(ok(&json!({ "waiting": waiting })))
}

/// How to show events.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Watching {
    watch: bool,
}

async fn events(State(reconciler): Control, query: Asked<Watching>) -> Result<Response, Problem> {
    if !query?.watch {
        let events = reconciler.context.telemetry.events();
        let items: Vec<Value> = events.iter().map(event).collect();
        return Ok(ok(&json!({ "kind": "List", "items": items })));
    }
    let start = (reconciler, i64::MIN, VecDeque::<Event>::new());
    let stream = stream::unfold(start, |(reconciler, mut seen, mut waiting)| async move {
        loop {
            if let Some(next) = waiting.pop_front() {
                let data = sse::Event::default().data(event(&next).to_string());
                return Some((Ok::<_, Infallible>(data), (reconciler, seen, waiting)));
            }
            let events = reconciler.context.telemetry.events();
            waiting.extend(events.into_iter().filter(|event| event.last_us > seen));
            if let Some(newest) = waiting.back() {
                seen = newest.last_us;
                continue;
            }
            let mut stopping = reconciler.stopping.subscribe();
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return None,
                () = tokio::time::sleep(EVENTS_PERIOD) => {}
            }
        }
    });
    Ok(Sse::new(stream).keep_alive(sse::KeepAlive::default()).into_response())
}

async fn commands(State(reconciler): Control, query: Asked<Listing>) -> Result<Response, Problem> {
    let namespace = query?.0.namespace;
    let mut items = reconciler.context.control.commands();
    items.retain(|one| {
        namespace.as_deref().is_none_or(|wanted| one["metadata"]["namespace"] == wanted)
    });
    Ok(ok(&json!({ "kind": "List", "items": items })))
}

async fn explain(
    State(reconciler): Control,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let missing = || {
        let message = format!("there is no node `{namespace}/{name}`");
        Problem::new(StatusCode::NOT_FOUND, "not-found", message)
            .hint("a twin has a node if its manifest declares one, or once a node has published its state")
    };
    let id = ThingId::parse(&format!("{namespace}:{name}")).map_err(|_| missing())?;
    reconciler.context.control.explain(&id).map(|value| ok(&value)).ok_or_else(missing)
}

/// An event with readable times.
fn event(event: &Event) -> Value {
    json!({
        "type": event.severity,
        "reason": event.reason,
        "object": event.object,
        "message": event.message,
        "count": event.count,
        "first": crate::base::time::rfc3339(event.first_us),
        "last": crate::base::time::rfc3339(event.last_us),
    })
}

async fn status(State(reconciler): Control) -> Response {
    let writer = &reconciler.context.writer;
    let counts = writer.counts();
    let durable = writer.durable_now();
    let objects: serde_json::Map<String, Value> = reconciler
        .counts()
        .into_iter()
        .map(|(kind, (all, ready))| (kind.to_string(), json!({ "total": all, "ready": ready })))
        .collect();
    let models = reconciler.models();
    let models = models.read().unwrap_or_else(std::sync::PoisonError::into_inner).len();
    ok(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "twins": writer.twin_count(),
        "stalledTwins": writer.stalled().iter().map(|id| id.as_str()).collect::<Vec<_>>(),
        "objects": objects,
        "models": models,
        "store": {
            "durability": "synced",
            "readOnly": writer.read_only(),
            "failed": durable.failed,
            "events": counts.events,
            "batches": counts.batches,
            "bytes": counts.bytes,
            "refusedForSpace": counts.full,
            "commitMicroseconds": counts.commit_time.as_micros(),
        },
    }))
}

async fn version() -> Response {
    ok(&json!({
        "name": "edgetwin",
        "version": env!("CARGO_PKG_VERSION"),
        "apiVersion": crate::kinds::API_VERSION,
    }))
}

async fn put_artefact(
    State(reconciler): Control,
    Path(digest): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    let body = body?;
    let digest = digest.strip_prefix("sha256:").unwrap_or(&digest).to_owned();
    let this = reconciler.clone();
    let kept = tokio::task::spawn_blocking(move || this.artefacts.put(&digest, &body)).await;
    match kept.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
        Ok(()) => {
            reconciler.wake_models();
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(Problem::bad(error.to_string()))
        }
        Err(error) => Err(Problem::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "not-stored",
            format!("the artefact cannot be kept: {error}"),
        )),
    }
}

async fn has_artefact(State(reconciler): Control, Path(digest): Path<String>) -> StatusCode {
    let digest = digest.strip_prefix("sha256:").unwrap_or(&digest);
    if reconciler.artefacts.has(digest) { StatusCode::OK } else { StatusCode::NOT_FOUND }
}
