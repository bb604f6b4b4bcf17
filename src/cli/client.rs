//! A client of a runtime's control API: one request, one connection, one answer.
//!
//! The first thing that goes wrong is that no runtime is there; that has an exit code of its own
//! and a sentence that says how to start one.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, Uri, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::error::{CliError, ErrorKind};

use crate::manifest::{Code, Diagnostic, Object, Region};
use crate::reconcile::ObjectKey;
use crate::reconcile::disk::NeededFile;

/// Time to connect: a host that does not answer in it is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for an answer. The longest is a wait, which the runtime ends after a minute.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Largest answer, bytes: a list of 100,000 twins with their status is 100 MB.
const ANSWER_BYTES_MAX: usize = 512 << 20;
/// Longest wait of one request.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A runtime's control API.
pub(super) struct Client {
    threads: Runtime,
    server: String,
    host: String,
    port: u16,
    prefix: String,
}

/// What the runtime answered.
struct Answer {
    status: u16,
    body: Bytes,
}

impl Client {
    /// Takes the address as the user gave it; nothing is sent yet.
    pub(super) fn new(server: &str) -> Result<Self, CliError> {
        let usage = |why: &str| {
            CliError::new(ErrorKind::Usage, format!("`{server}` is not the address of a runtime"))
                .hint(why)
        };
        let uri: Uri = server.parse().map_err(|_| usage("write http://HOST:PORT"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(usage("TLS is not there yet; use a tunnel and http://")),
            _ => return Err(usage("write http://HOST:PORT")),
        }
        let host = uri.host().ok_or_else(|| usage("write http://HOST:PORT"))?.to_owned();
        let threads = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| CliError::new(ErrorKind::Failed, "no threads").because(&error))?;
        Ok(Self {
            threads,
            server: server.trim_end_matches('/').to_owned(),
            host,
            port: uri.port_u16().unwrap_or(80),
            prefix: format!("{}/edgetwin/v1", uri.path().trim_end_matches('/')),
        })
    }

    /// The objects that match, with their status. `query` as in `kind?namespace=lab`.
    pub(super) fn list(&self, query: &str) -> Result<Vec<Value>, CliError> {
        let path = match query {
            "" => "/objects".to_owned(),
            query if query.starts_with('?') => format!("/objects{query}"),
            query => format!("/objects/{query}"),
        };
        let mut list = self.get(&path)?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Err(self.stranger("no list")),
        }
    }

    /// One object; `None` if there is none.
    pub(super) fn object(&self, key: &ObjectKey) -> Result<Option<Value>, CliError> {
        let answer = self.send(Method::GET, &format!("/objects/{key}"), Bytes::new())?;
        match self.json(&answer) {
            Ok(value) => Ok(Some(value)),
            Err(_) if answer.status == 404 && answer.body.starts_with(b"{\"error\"") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the runtime has, as declared, for checking references.
    pub(super) fn known(&self) -> Result<Vec<Object>, CliError> {
        let read = |item| {
            Object::typed(item).map_err(|why| {
                CliError::new(ErrorKind::Failed, "the runtime is of another version")
                    .hint(format!("what it has cannot be read here: {why}"))
            })
        };
        self.list("?declared=true")?.into_iter().map(read).collect()
    }

    /// GET, as JSON.
    pub(super) fn get(&self, path: &str) -> Result<Value, CliError> {
        self.json(&self.send(Method::GET, path, Bytes::new())?)
    }

    /// POST of JSON, answered with JSON.
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        self.json(&self.send(Method::POST, path, body.to_string().into())?)
    }

    /// Brings a file to the runtime, unless it is there.
    pub(super) fn bring(&self, file: &NeededFile) -> Result<(), CliError> {
        let path = format!("/artefacts/{}", file.digest);
        if self.send(Method::HEAD, &path, Bytes::new())?.status == 200 {
            return Ok(());
        }
        let answer = self.send(Method::PUT, &path, file.bytes.clone().into())?;
        if answer.status == 204 { Ok(()) } else { self.json(&answer).map(drop) }
    }

    /// Waits until `what` (`Ready`, `Deleted`, `CONDITION=STATUS`) holds for all objects. Returns
    /// those for which it does not: each with its `object` and `why`.
    pub(super) fn wait(
        &self,
        keys: &[ObjectKey],
        what: &str,
        timeout: Duration,
    ) -> Result<Vec<Value>, CliError> {
        let started = std::time::Instant::now();
        loop {
            let left = timeout.saturating_sub(started.elapsed());
            let part = u64::try_from(left.min(WAIT_MAX).as_millis()).unwrap_or(u64::MAX);
            let body = json!({ "objects": keys, "for": what, "timeoutMs": part });
            let mut answer = self.post("/wait", &body)?;
            let Value::Array(waiting) = answer["waiting"].take() else {
                return Err(self.stranger("no list"));
            };
            if waiting.is_empty() || left <= WAIT_MAX {
                return Ok(waiting);
            }
        }
    }

    /// Follows server-sent events until the runtime ends them; each is JSON.
    pub(super) fn follow(
        &self,
        path: &str,
        mut use_event: impl FnMut(&Value),
    ) -> Result<(), CliError> {
        self.threads.block_on(async {
            let mut response = self.connect(Method::GET, path, Bytes::new()).await?;
            let mut text = Vec::new();
            while let Some(frame) = response.body_mut().frame().await {
                let Ok(frame) = frame else { break };
                text.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = text.drain(..=end).collect();
                    let data = line.strip_prefix(b"data:").unwrap_or_default();
                    if let Ok(event) = serde_json::from_slice(data) {
                        use_event(&event);
                    }
                }
            }
            Ok(())
        })
    }

    fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, CliError> {
        self.threads.block_on(async {
            let answered = async {
                let response = self.connect(method, path, body).await?;
                let status = response.status().as_u16();
                let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
                let body = body.map_err(|error| {
                    CliError::new(ErrorKind::Failed, format!("{} broke off", self.server))
                        .because(&*error)
                })?;
                Ok(Answer { status, body: body.to_bytes() })
            };
            tokio::time::timeout(ANSWER_TIMEOUT, answered).await.unwrap_or_else(|_| {
                let seconds = ANSWER_TIMEOUT.as_secs();
                let message = format!("{} gave no answer in {seconds} s", self.server);
                Err(CliError::new(ErrorKind::Unreachable, message))
            })
        })
    }

    async fn connect(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, CliError> {
        let host = self.host.trim_matches(['[', ']']);
        let connecting = TcpStream::connect((host, self.port));
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.unreachable().because(&error)),
            Err(_) => return Err(self.unreachable()),
        };
        let broke = |error: hyper::Error| self.stranger("no HTTP").because(&error);
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.prefix))
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("edgetwin/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|error| {
                CliError::new(ErrorKind::Usage, format!("`{path}` cannot be asked for"))
                    .because(&error)
            })?;
        sender.send_request(request).await.map_err(broke)
    }

    fn unreachable(&self) -> CliError {
        CliError::new(ErrorKind::Unreachable, format!("no runtime answers at {}", self.server))
            .hint(format!(
                "start one with `{} run`, in another terminal",
                super::outcome::program()
            ))
            .hint("one that is elsewhere is named by `--server URL` or EDGETWIN_SERVER")
    }

    fn stranger(&self, why: &str) -> CliError {
        let message = format!("{} does not answer like an edgetwin runtime: {why}", self.server);
        CliError::new(ErrorKind::Unreachable, message)
    }

    fn json(&self, answer: &Answer) -> Result<Value, CliError> {
        let value: Value = serde_json::from_slice(&answer.body)
            .map_err(|_| self.stranger(&format!("status {}, no JSON", answer.status)))?;
        if answer.status < 300 {
            return Ok(value);
        }
        // The control API answers with an object, the layer in front of it as Ditto does.
        let error = &value["error"];
        let words = |key: &str| error[key].as_str().unwrap_or_default();
        if error.is_string() {
            let message = value["message"].as_str().unwrap_or_default().to_owned();
            let kind = match answer.status {
                401 | 403 => ErrorKind::Unauthorised,
                _ => ErrorKind::Failed,
            };
            let failure = CliError::new(kind, message);
            return Err(match value["description"].as_str() {
                Some(hint) => failure.hint(hint),
                None => failure,
            });
        }
        let kind = match (answer.status, words("code")) {
            (_, "invalid") => {
                let all = error["diagnostics"].as_array().into_iter().flatten();
                let diagnostics = all.filter_map(diagnostic).collect();
                return Err(CliError::invalid(diagnostics, 1, "Nothing was applied."));
            }
            (409, _) => ErrorKind::Conflict,
            (401 | 403, _) => ErrorKind::Unauthorised,
            _ => ErrorKind::Failed,
        };
        let failure = CliError::new(kind, words("message"));
        Err(match words("hint") {
            "" => failure,
            hint => failure.hint(hint),
        })
    }
}

/// A diagnostic as the runtime gave it: about an object, without a place.
fn diagnostic(value: &Value) -> Option<Diagnostic> {
    let text = |key: &str| value[key].as_str().unwrap_or_default();
    let code = Code::find(text("code"))?;
    let diagnostic = Diagnostic::error(code, text("file"), Region::default(), text("message"));
    (value["severity"] == "error").then(|| match text("help") {
        "" => diagnostic,
        help => diagnostic.help(help),
    })
}
