//! The one HTTP layer that all surfaces share: connections within limits, Host and Origin checked,
//! a graceful end.
//!
//! A web page that a person has open can make their browser send requests to loopback, and with a
//! name of its own that resolves to 127.0.0.1 (DNS rebinding) it can even read the answers. So
//! every request, WebSocket upgrades included, must name a host that is ours, and one with an
//! Origin must come from that very host. Programs other than browsers send no Origin.

#[expect(clippy::disallowed_methods, reason = "I/O boundary: opens connections")]
pub mod client;
mod malformed;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Sleep;

use self::malformed::Explained;
use crate::base::telemetry::Telemetry;

/// Open connections of one listener; further ones wait to be accepted.
pub const CONNECTIONS_MAX: usize = 1024;
/// Largest request body, bytes, unless a route says otherwise (Ditto's gateway: 1 MiB).
pub const BODY_LEN_MAX: usize = 1 << 20;
/// Time to send the head of a request; a connection that takes longer is closed.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time to send the body of a request; one that takes longer is taken for cut off.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Time that requests in progress have at shutdown.
pub const DRAIN_TIMEOUT: Duration = Duration::from_millis(1200);
/// Largest head of a request, bytes.
const HEAD_LEN_MAX: usize = 64 * 1024;

/// Which hosts are ours.
#[derive(Debug, Clone)]
pub struct Guard {
    names: Arc<[String]>,
    telemetry: Arc<Telemetry>,
}

impl Guard {
    /// Takes requests to `address`, to the loopback names, and to `names`.
    pub fn new(address: SocketAddr, names: &[String], telemetry: Arc<Telemetry>) -> Self {
        let mut all = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        all.push(address.ip().to_string());
        all.extend(names.iter().map(|name| name.to_ascii_lowercase()));
        Self { names: all.into(), telemetry }
    }

    /// Judges a request's headers: `Err` says why it is refused.
    fn check(&self, uri_host: Option<&str>, headers: &HeaderMap) -> Result<(), Refused> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        if headers.get_all(header::HOST).iter().count() > 1 {
            return Err(Refused::Host("more than one".to_owned()));
        }
        // A request line with a host overrides the header (RFC 9112, 3.2.2).
        let host = uri_host.or(text(header::HOST)).ok_or(Refused::NoHost)?;
        let name = name_of(host).to_ascii_lowercase();
        let ours = self.names.contains(&name)
            || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if !ours {
            return Err(Refused::Host(host.chars().take(100).collect()));
        }
        match text(header::ORIGIN) {
            None => Ok(()),
            Some(origin) => {
                let authority =
                    origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
                match authority {
                    Some(authority) if authority.eq_ignore_ascii_case(host) => Ok(()),
                    _ => Err(Refused::Origin(origin.chars().take(100).collect())),
                }
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Refused {
    NoHost,
    Host(String),
    Origin(String),
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, code, message, hint) = match self {
            Self::NoHost => (
                StatusCode::BAD_REQUEST,
                "gateway:host.missing",
                "The request names no host.".to_owned(),
                "Send a Host header.",
            ),
            Self::Host(host) => (
                StatusCode::MISDIRECTED_REQUEST,
                "gateway:host.notallowed",
                format!("`{host}` is not a host of this runtime."),
                "Use the address that it listens on, or add the name with --allow-host.",
            ),
            Self::Origin(origin) => (
                StatusCode::FORBIDDEN,
                "gateway:origin.notallowed",
                format!("Requests from web pages of `{origin}` are not taken."),
                "Only pages that this runtime itself serves may call it.",
            ),
        };
        error(status, code, &message, Some(hint))
    }
}

/// An error in Ditto's form: `{"status", "error", "message", "description"}`.
pub fn error(status: StatusCode, code: &str, message: &str, description: Option<&str>) -> Response {
    let mut body = json!({"status": status.as_u16(), "error": code, "message": message});
    if let (Some(text), Some(map)) = (description, body.as_object_mut()) {
        map.insert("description".to_owned(), text.into());
    }
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn name_of(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

async fn guarded(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    guard.telemetry.http_requests.inc();
    match guard
        .check(request.uri().authority().map(|authority| authority.as_str()), request.headers())
    {
        Ok(()) => next.run(request.map(|body| Body::new(Timely { body, late: None }))).await,
        Err(refused) => {
            guard.telemetry.http_refused.inc();
            refused.into_response()
        }
    }
}

/// A body that ends with an error if it takes longer than [`BODY_TIMEOUT`]. One that is there when it
/// is asked for costs no timer.
struct Timely {
    body: Body,
    late: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for Timely {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        let late = self.late.get_or_insert_with(|| Box::pin(tokio::time::sleep(BODY_TIMEOUT)));
        late.as_mut().poll(context).map(|()| {
            let why = format!("the body did not come within {} s", BODY_TIMEOUT.as_secs());
            Some(Err(axum::Error::new(std::io::Error::new(std::io::ErrorKind::TimedOut, why))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Serves `router` on `listener` until `stop` turns true, then lets requests in progress finish
/// for [`DRAIN_TIMEOUT`].
pub async fn serve(
    listener: TcpListener,
    router: Router,
    guard: Guard,
    mut stop: watch::Receiver<bool>,
) {
    let router = router
        .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
        .layer(middleware::from_fn_with_state(guard, guarded));
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = async {
                let permit = permits.clone().acquire_owned().await;
                (listener.accept().await, permit)
            } => accepted,
        };
        let (Ok((stream, _)), Ok(permit)) = accepted else {
            // Out of file descriptors, or the peer is gone; others may still work.
            let remedy = "raise the limit of open files (`ulimit -n`)";
            tracing::warn!(remedy, "an HTTP connection could not be accepted");
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let service = TowerToHyperService::new(router.clone());
        let mut stop = stop.clone();
        connections.spawn(async move {
            let _permit = permit;
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(HEAD_LEN_MAX);
            let connection = builder
                .serve_connection(TokioIo::new(Explained::new(stream)), service)
                .with_upgrades();
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => Some(ended),
                () = stopped(&mut stop) => None,
            };
            let ended = match ended {
                Some(ended) => ended,
                None => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "an HTTP connection ended");
            }
        });
    }
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
        connections.abort_all();
    }
}

/// Returns when `stop` turns true, or can no longer.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone will not ask for anything any more: that is the end, too.
    if stop.wait_for(|stop| *stop).await.is_err() {
        tracing::debug!("stopping: nobody is left to say when");
    }
}

/// The body of an answer without one.
pub fn empty(status: StatusCode) -> Response {
    (status, Body::empty()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(host: Option<&str>, origin: Option<&str>) -> Result<(), Refused> {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(header::HOST, host.parse().unwrap());
        }
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        let address = "10.1.2.3:8080".parse().unwrap();
        Guard::new(address, &["edge.example".to_owned()], Arc::default()).check(None, &headers)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_to_come_in_time() {
        let whole = |body| axum::body::to_bytes(Body::new(Timely { body, late: None }), 100);
        assert_eq!(whole(Body::from("here")).await.unwrap(), "here");
        let drops = |every: Duration| {
            let drop = move |left: u8| async move {
                tokio::time::sleep(every).await;
                let data = Ok::<_, std::convert::Infallible>(Bytes::from_static(b"."));
                left.checked_sub(1).map(|left| (data, left))
            };
            Body::from_stream(futures_util::stream::unfold(4_u8, drop))
        };
        assert_eq!(whole(drops(BODY_TIMEOUT / 6)).await.unwrap(), "....");
        let started = tokio::time::Instant::now();
        let error = whole(drops(BODY_TIMEOUT / 3)).await.unwrap_err();
        assert!(error.to_string().contains("30 s"), "{error}");
        assert_eq!(started.elapsed(), BODY_TIMEOUT);
    }

    #[test]
    fn only_our_own_names_are_served() {
        for host in [
            "localhost:8080",
            "127.0.0.1",
            "[::1]:8080",
            "10.1.2.3:8080",
            "EDGE.example",
            "127.8.8.8",
        ] {
            assert_eq!(judge(Some(host), None), Ok(()), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "10.1.2.4", "", "127.0.0.1.nip.io:8080"]
        {
            assert!(matches!(judge(Some(host), None), Err(Refused::Host(_))), "{host}");
        }
        assert_eq!(judge(None, None), Err(Refused::NoHost));
    }

    #[test]
    fn a_page_of_another_origin_is_refused_on_loopback_too() {
        let host = Some("127.0.0.1:8080");
        assert_eq!(judge(host, Some("http://127.0.0.1:8080")), Ok(()));
        for origin in
            ["http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:8080"]
        {
            assert!(matches!(judge(host, Some(origin)), Err(Refused::Origin(_))), "{origin}");
        }
    }
}
