//! Models over HTTP by the Open Inference Protocol (I/O boundary): [`router`] serves them, [`ModelClient`] calls
//! served ones.
//!
//! Not here: what the bytes mean (`oip`), connections (`crate::base::http::client`), which instance is called and whether again (`registry`,
//! `trigger`), authentication and the checks of Host and Origin (the shared HTTP layer).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post};
use serde_json::json;
use tokio::time::{Instant, timeout_at};

pub use super::oip::ServiceReply;

use super::Model;
use super::oip::{self, InferRequest, Layout};
use crate::base::http::client::{Outgoing, Pool, SendError, SendErrorKind, encode_segment};

/// Largest request, in bytes (1 MiB). Why: `ROWS_MAX` rows of a dozen inputs. A larger one is 413.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// Rows that are judged on the spot; more move to a thread that may block. Why: 16 rows of the
/// slowest default model take 0.3 ms, about what moving costs others.
const ROWS_ON_THE_SPOT_MAX: usize = 16;

/// Where the router finds models. Implemented by the runtime; models may come and go.
pub trait ModelProvider: Send + Sync + 'static {
    /// The model of this name, and of this version if one is asked for.
    fn model(&self, name: &str, version: Option<&str>) -> Option<Arc<Model>>;

    /// Whether all models that should be served are.
    fn ready(&self) -> bool {
        true
    }
}

/// One model under one name.
impl ModelProvider for (String, Arc<Model>) {
    fn model(&self, name: &str, version: Option<&str>) -> Option<Arc<Model>> {
        let fits = name == self.0 && version.is_none_or(|v| v == self.1.version());
        fits.then(|| Arc::clone(&self.1))
    }
}

/// Models by name.
impl ModelProvider for HashMap<String, Arc<Model>> {
    fn model(&self, name: &str, version: Option<&str>) -> Option<Arc<Model>> {
        let model = self.get(name)?;
        version.is_none_or(|v| v == model.version()).then(|| Arc::clone(model))
    }
}

type Models = Arc<dyn ModelProvider>;

/// `/v2` and what lies below it. Every error is `{"error": "…"}` with a status of 400 and up.
pub fn router(models: Arc<dyn ModelProvider>) -> Router {
    let not_allowed = || async { error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed") };
    let only = |handler: MethodRouter<Models>| handler.fallback(not_allowed);
    Router::new()
        .route("/v2", only(get(server)))
        .route("/v2/health/live", only(get(live)))
        .route("/v2/health/ready", only(get(ready)))
        .route("/v2/models/{name}", only(get(model_metadata)))
        .route("/v2/models/{name}/ready", only(get(model_ready)))
        .route("/v2/models/{name}/infer", only(post(model_infer)))
        .route("/v2/models/{name}/versions/{version}", only(get(model_metadata)))
        .route("/v2/models/{name}/versions/{version}/ready", only(get(model_ready)))
        .route("/v2/models/{name}/versions/{version}/infer", only(post(model_infer)))
        .route("/v2/{*rest}", any(|| async { error(StatusCode::NOT_FOUND, "no such resource") }))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(models)
}

fn error(status: StatusCode, message: &str) -> Response {
    json_response(status, &json!({ "error": message }))
}

fn json_response(status: StatusCode, body: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

async fn server() -> Response {
    let body = json!({
        "name": "edgetwin",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": [],
    });
    json_response(StatusCode::OK, &body)
}

async fn live() -> Response {
    json_response(StatusCode::OK, &json!({"live": true}))
}

async fn ready(State(models): State<Models>) -> Response {
    // The protocol wants a 4xx for "no"; Triton answers 400.
    let ready = models.ready();
    let status = if ready { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    json_response(status, &json!({ "ready": ready }))
}

/// Name, and version if the path has one.
type Named = Path<HashMap<String, String>>;

#[expect(clippy::result_large_err, reason = "the error is the answer, made once and sent")]
fn find(models: &Models, path: &HashMap<String, String>) -> Result<(String, Arc<Model>), Response> {
    let name = path.get("name").map_or("", String::as_str);
    let version = path.get("version").map(String::as_str);
    match models.model(name, version) {
        Some(model) => Ok((name.to_owned(), model)),
        None => {
            let version = version.map_or(String::new(), |v| format!(" version `{v}`"));
            Err(error(StatusCode::NOT_FOUND, &format!("there is no model `{name}`{version}")))
        }
    }
}

async fn model_metadata(State(models): State<Models>, Path(path): Named) -> Response {
    match find(&models, &path) {
        Ok((name, model)) => json_response(StatusCode::OK, &oip::metadata(&name, &model)),
        Err(response) => response,
    }
}

async fn model_ready(State(models): State<Models>, Path(path): Named) -> Response {
    match find(&models, &path) {
        Ok((name, _)) => json_response(StatusCode::OK, &json!({"name": name, "ready": true})),
        Err(response) => response,
    }
}

async fn model_infer(
    State(models): State<Models>,
    Path(path): Named,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let (name, model) = match find(&models, &path) {
        Ok(found) => found,
        Err(response) => return response,
    };
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return error(rejection.status(), &rejection.body_text()),
    };
    if headers.contains_key("inference-header-content-length") {
        return error(StatusCode::BAD_REQUEST, "binary tensors are not taken; send JSON");
    }
    let request: InferRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(e) => return error(StatusCode::BAD_REQUEST, &format!("not a request: {e}")),
    };
    let rows = match oip::rows_of(&request, model.meta()) {
        Ok(rows) => rows,
        Err(why) => return error(StatusCode::BAD_REQUEST, &why),
    };
    let few = rows.len() <= ROWS_ON_THE_SPOT_MAX * model.meta().inputs.len();
    let judge = move || oip::answer(&name, &model, &rows, &request);
    let answer = if few {
        judge()
    } else {
        match tokio::task::spawn_blocking(judge).await {
            Ok(answer) => answer,
            Err(e) => return error(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
        }
    };
    match answer {
        Ok(answer) => json_response(StatusCode::OK, &answer),
        Err(why) => error(StatusCode::BAD_REQUEST, &why),
    }
}

/// What went wrong in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallFailure {
    /// No connection: refused, unreachable, no such host. Nothing was sent.
    Connect,
    /// The connection ended before the answer was complete.
    Broken,
    /// The deadline passed.
    Deadline,
    /// The service is there but not able now, or has no such model: 404, 429, 502, 503, 504.
    Unavailable(u16),
    /// The service failed: another status from 500 up.
    Failed(u16),
    /// The service refuses the request: another status below 500.
    Refused(u16),
    /// The answer is too large or makes no sense.
    BadAnswer,
    /// The row cannot be sent: a value is missing, or the model takes another number of inputs.
    Row,
}

/// Whose fault it is that a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request: it would fail anywhere.
    Caller,
    /// The instance that was called.
    Service,
    /// What lies between.
    Network,
}

/// Why a call has no reply, whose fault that is, and whether to try elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallError {
    /// What went wrong.
    pub cause: CallFailure,
    /// For people; it names no host.
    pub message: String,
}

impl CallError {
    fn new(cause: CallFailure, message: impl fmt::Display) -> Self {
        Self { cause, message: message.to_string() }
    }

    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self.cause {
            CallFailure::Refused(_) | CallFailure::Row => Fault::Caller,
            CallFailure::Unavailable(_)
            | CallFailure::Failed(_)
            | CallFailure::BadAnswer
            | CallFailure::Deadline => Fault::Service,
            CallFailure::Connect | CallFailure::Broken => Fault::Network,
        }
    }

    /// Whether another instance may do better. Inference changes nothing, so whatever is not the
    /// caller's fault may be tried again.
    #[must_use]
    pub fn retryable(&self) -> bool {
        self.fault() != Fault::Caller
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CallError {}

/// Models whose layout is remembered; at the limit all are asked for again.
const LAYOUTS_MAX: usize = 4096;

/// Calls models that are served elsewhere. Share one.
#[derive(Debug, Default)]
pub struct ModelClient {
    pool: Pool,
    /// How each model wants its inputs, by address and name.
    layouts: Mutex<HashMap<(String, String), Arc<Layout>>>,
}

impl ModelClient {
    /// A client without connections.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `model`, served at `host_port`, judge one row.
    ///
    /// The first call asks the model how it wants its inputs. A kept connection that the service
    /// has closed in the meantime is replaced, once, without the caller's notice.
    ///
    /// * `host_port`: as `10.0.0.7:8080` or `edge-2:8080`.
    /// * `row`: the model's inputs in its order.
    /// * `deadline`: of the whole call, connecting included.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn infer(
        &self,
        host_port: &str,
        model: &str,
        row: &[f32],
        deadline: Instant,
    ) -> Result<ServiceReply, CallError> {
        match timeout_at(deadline, self.infer_once(host_port, model, row)).await {
            Ok(reply) => reply,
            Err(_) => Err(CallError::new(CallFailure::Deadline, "no answer within the deadline")),
        }
    }

    async fn infer_once(
        &self,
        host_port: &str,
        model: &str,
        row: &[f32],
    ) -> Result<ServiceReply, CallError> {
        let path = format!("/v2/models/{}", encode_segment(model));
        let key = (host_port.to_owned(), model.to_owned());
        let known = self.layouts().get(&key).map(Arc::clone);
        let layout = match known {
            Some(layout) => layout,
            None => {
                let (status, body) = self.pool.send(host_port, Outgoing::get(&path)).await?;
                // A service without descriptions may still infer.
                let layout = if status == StatusCode::OK {
                    Layout::of(&body, row.len())
                } else {
                    Layout::default()
                };
                let layout = Arc::new(layout);
                let mut layouts = self.layouts();
                if layouts.len() >= LAYOUTS_MAX {
                    layouts.clear();
                }
                layouts.insert(key.clone(), Arc::clone(&layout));
                layout
            }
        };
        let body = oip::request(&layout, row)
            .ok_or_else(|| CallError::new(CallFailure::Row, "a value of the row is missing"))?;
        let infer = Outgoing::json("POST", &(path + "/infer"), body);
        let (status, body) = self.pool.send(host_port, infer).await?;
        if status == StatusCode::OK {
            return oip::read_reply(&body)
                .map_err(|why| CallError::new(CallFailure::BadAnswer, why));
        }
        // The instance may have been replaced by one that wants its inputs otherwise.
        self.layouts().remove(&key);
        let code = status.as_u16();
        let cause = match code {
            404 | 429 | 502 | 503 | 504 => CallFailure::Unavailable(code),
            500.. => CallFailure::Failed(code),
            _ => CallFailure::Refused(code),
        };
        let message: Option<String> = serde_json::from_slice::<serde_json::Value>(&body)
            .ok()
            .and_then(|v| Some(v.get("error")?.as_str()?.chars().take(200).collect()));
        Err(CallError::new(cause, format!("status {code}: {}", message.unwrap_or_default())))
    }

    fn layouts(&self) -> MutexGuard<'_, HashMap<(String, String), Arc<Layout>>> {
        // The map is whole after each of its methods: a panic elsewhere cannot break it.
        self.layouts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<SendError> for CallError {
    fn from(e: SendError) -> Self {
        let cause = match e.kind {
            SendErrorKind::Connect => CallFailure::Connect,
            SendErrorKind::Broken => CallFailure::Broken,
            SendErrorKind::TooLarge => CallFailure::BadAnswer,
            SendErrorKind::Request => CallFailure::Row,
        };
        Self::new(cause, e)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests listen on loopback")]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use serde_json::Value;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::edgeai::oip::ROWS_MAX;
    use crate::edgeai::train::{Dataset, Recipe, fit};
    use crate::edgeai::{Classifier, Prediction};

    fn model() -> Arc<Model> {
        let rows: Vec<([f32; 2], &str)> = (0..60_u8)
            .map(|i| ([f32::from(i), f32::from(i % 7)], if i < 30 { "low" } else { "high" }))
            .collect();
        let data = Dataset::from_rows(
            &["a".to_owned(), "b".to_owned()],
            rows.iter().map(|(row, label)| (&row[..], *label)),
        )
        .unwrap();
        Arc::new(fit(&data, &Recipe::new(Classifier::Forest)).unwrap())
    }

    async fn serve(router: Router) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    /// Sends a request as bytes on a connection of its own; status and JSON body.
    async fn call(to: SocketAddr, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(to).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // A refused body may be cut off while it is being sent.
        drop(stream.write_all(body.as_bytes()).await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
    }

    #[tokio::test]
    async fn client_and_server_agree_with_the_model() {
        let model = model();
        let at = serve(router(Arc::new(("m".to_owned(), Arc::clone(&model))))).await.to_string();
        let client = ModelClient::new();
        let mut out = Prediction::default();
        for i in 0..100_u8 {
            let row = [f32::from(i) * 0.6, 3.5];
            let reply = client.infer(&at, "m", &row, soon()).await.unwrap();
            model.predict(&row, &mut out).unwrap();
            assert_eq!(reply.label, model.label(out.label));
            assert_eq!(reply.score, out.score);
            assert_eq!(reply.probabilities, out.probabilities);
            assert_eq!((reply.model.as_str(), reply.version.as_str()), ("m", model.version()));
        }
        assert_eq!(client.pool.idle(&at), 1, "one connection was kept and used again");
    }

    #[tokio::test]
    async fn protocol_is_answered_as_specified() {
        let model = model();
        let at = serve(router(Arc::new(("m".to_owned(), Arc::clone(&model))))).await;
        let version = model.version();
        let (status, body) = call(at, "GET", "/v2", "").await;
        assert_eq!((status, &body["name"]), (200, &json!("edgetwin")));
        assert_eq!(call(at, "GET", "/v2/health/live", "").await.0, 200);
        assert_eq!(call(at, "GET", "/v2/health/ready", "").await.0, 200);
        assert_eq!(call(at, "GET", "/v2/models/m/ready", "").await.0, 200);
        let (_, body) = call(at, "GET", &format!("/v2/models/m/versions/{version}"), "").await;
        assert_eq!(
            body["inputs"],
            json!([{"name": "input", "datatype": "FP32", "shape": [-1, 2]}])
        );
        assert_eq!(body["parameters"]["labels"], json!(["high", "low"]));
        let batch = json!({"id": "7", "outputs": [{"name": "label"}, {"name": "probabilities"}],
            "inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP64", "data": [[1, 1], [55, 1]]}]});
        let (status, body) = call(at, "POST", "/v2/models/m/infer", &batch.to_string()).await;
        assert_eq!((status, &body["id"]), (200, &json!("7")), "{body}");
        assert_eq!(body["outputs"][0]["data"], json!(["low", "high"]));
        assert_eq!(body["outputs"][1]["shape"], json!([2, 2]));
        let columns = json!({"inputs": [
            {"name": "b", "shape": [3], "datatype": "FP32", "data": [1, 1, 1]},
            {"name": "a", "shape": [3, 1], "datatype": "INT32", "data": [[1], [55], [2]]}]});
        let (_, body) = call(at, "POST", "/v2/models/m/infer", &columns.to_string()).await;
        assert_eq!(body["outputs"][0]["data"], json!(["low", "high", "low"]), "{body}");
    }

    #[tokio::test]
    async fn every_fault_of_a_request_is_told_as_json() {
        let at = serve(router(Arc::new(("m".to_owned(), model())))).await;
        let tensor = |shape: &str, data: &str, datatype: &str| {
            format!(
                r#"{{"inputs":[{{"name":"input","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}"#
            )
        };
        let infer = "/v2/models/m/infer";
        let large = tensor("[1,2]", &"1,".repeat(BODY_BYTES_MAX), "FP32");
        let rows = format!("[{}]", vec!["[1,1]"; ROWS_MAX + 1].join(","));
        let rows = tensor(&format!("[{},2]", ROWS_MAX + 1), &rows, "FP32");
        for (method, path, body, expected) in [
            ("GET", "/v2/models/other", String::new(), 404),
            ("GET", "/v2/models/m/versions/1/ready", String::new(), 404),
            ("POST", "/v2/models/other/infer", String::new(), 404),
            ("GET", "/v2/nothing", String::new(), 404),
            ("GET", infer, String::new(), 405),
            ("POST", infer, "{".to_owned(), 400),
            ("POST", infer, "{}".to_owned(), 400),
            ("POST", infer, r#"{"inputs":[]}"#.to_owned(), 400),
            ("POST", infer, tensor("[1,2]", "[1]", "FP32"), 400),
            ("POST", infer, tensor("[1,2]", "[1,null]", "FP32"), 400),
            ("POST", infer, tensor("[1,2]", "[1,1e39]", "FP32"), 400),
            ("POST", infer, tensor("[-1,-2]", "[1,2]", "FP32"), 400),
            ("POST", infer, tensor("[9223372036854775807,3]", "[1,2]", "FP32"), 400),
            ("POST", infer, tensor("[1,3]", "[1,2,3]", "FP32"), 400),
            ("POST", infer, tensor("[1,2]", r#"["a","b"]"#, "BYTES"), 400),
            ("POST", infer, tensor("[1,2]", r#"["a","b"]"#, "FP32"), 400),
            ("POST", infer, rows, 400),
            ("POST", infer, large, 413),
        ] {
            let (status, answer) = call(at, method, path, &body).await;
            let body = &body[..body.len().min(100)];
            assert_eq!(status, expected, "{method} {path} {body}: {answer}");
            assert!(answer["error"].is_string(), "{method} {path} {body}: {answer}");
        }
    }

    #[tokio::test]
    async fn a_connection_closed_while_idle_costs_no_call() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                // One answer, of a model without a description, then the end without a word.
                let mut buffer = [0; 4096];
                let n = stream.read(&mut buffer).await.unwrap();
                let answer = if buffer[..n].starts_with(b"GET") {
                    "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned()
                } else {
                    let body = r#"{"model_name":"m","outputs":[{"name":"label","shape":[1],"datatype":"INT64","data":[1]}]}"#;
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                };
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let client = ModelClient::new();
        for _ in 0..20 {
            let reply = client.infer(&at, "m", &[1.0], soon()).await.unwrap();
            assert_eq!(reply.label, "1");
        }
    }

    #[tokio::test]
    async fn failures_say_whose_fault_and_whether_to_retry() {
        let client = ModelClient::new();
        let model = model();
        let at = serve(router(Arc::new(("m".to_owned(), model)))).await.to_string();
        let cause = |e: Result<ServiceReply, CallError>| e.unwrap_err();
        let e = cause(client.infer(&at, "other", &[1.0, 2.0], soon()).await);
        assert_eq!(
            (e.cause, e.fault(), e.retryable()),
            (CallFailure::Unavailable(404), Fault::Service, true)
        );
        assert!(e.message.contains("no model `other`"), "{e}");
        let e = cause(client.infer(&at, "m", &[1.0], soon()).await);
        assert_eq!(
            (e.cause, e.fault(), e.retryable()),
            (CallFailure::Refused(400), Fault::Caller, false)
        );
        let e = cause(client.infer(&at, "m", &[1.0, f32::NAN], soon()).await);
        assert_eq!((e.cause, e.retryable()), (CallFailure::Row, false));

        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = closed.local_addr().unwrap().to_string();
        drop(closed);
        let e = cause(client.infer(&nobody, "m", &[1.0], soon()).await);
        assert_eq!(
            (e.cause, e.fault(), e.retryable()),
            (CallFailure::Connect, Fault::Network, true)
        );

        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = silent.local_addr().unwrap().to_string();
        let deadline = Instant::now() + Duration::from_millis(30);
        let e = cause(client.infer(&at, "m", &[1.0], deadline).await);
        assert_eq!((e.cause, e.fault()), (CallFailure::Deadline, Fault::Service));
    }
}
