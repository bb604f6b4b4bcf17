//! Calls to other programs over HTTP/1.1: kept connections, sent without delay, within limits.
//!
//! Made for one short exchange at a time. A connection has no task of its own: the caller's task
//! drives it, so an answer costs one wake-up.
//!
//! Not here: deadlines (the caller drops the call), retries elsewhere, what the bytes mean, TLS.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use axum::body::Bytes;
use axum::http::{StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// Connections kept open to one address while nothing is asked of it. Why: enough for bursts of
/// calls in flight; others are closed after their answer.
pub const IDLE_CONNECTIONS_MAX: usize = 16;

/// Calls in flight to one address. Why: an instance on the edge has a few cores; further calls
/// wait here, within their deadline.
pub const CALLS_IN_FLIGHT_MAX: usize = 64;

/// Largest answer, in bytes (16 MiB): a registry of 10,000 instances. A larger one is
/// [`SendErrorKind::TooLarge`].
pub const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Addresses that a pool remembers. Why: a site's instances, with room for those that come and
/// go; at the limit all are forgotten and connections are made anew.
const ADDRESSES_MAX: usize = 4096;

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Outgoing {
    method: &'static str,
    path: String,
    body: Bytes,
}

impl Outgoing {
    /// A request without a body.
    #[must_use]
    pub fn new(method: &'static str, path: &str) -> Self {
        Self { method, path: path.to_owned(), body: Bytes::new() }
    }

    /// `GET`.
    #[must_use]
    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// A request with JSON.
    #[must_use]
    pub fn json(method: &'static str, path: &str, body: String) -> Self {
        Self { method, path: path.to_owned(), body: body.into() }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendErrorKind {
    /// No connection: refused, unreachable, no such host. Nothing was sent.
    Connect,
    /// The connection ended before the answer was complete.
    Broken,
    /// The answer is larger than [`ANSWER_BYTES_MAX`].
    TooLarge,
    /// The request cannot be sent as it is (its path, as a rule).
    Request,
}

/// Why there is no answer, with the words of what failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendError {
    /// What went wrong.
    pub kind: SendErrorKind,
    /// For people; it names no host.
    pub message: String,
}

impl SendError {
    fn new(kind: SendErrorKind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string() }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SendError {}

type Connection = http1::Connection<TokioIo<TcpStream>, Full<Bytes>>;

struct Kept {
    sender: http1::SendRequest<Full<Bytes>>,
    connection: Connection,
}

/// Kept connections by address. Share one.
#[derive(Default)]
pub struct Pool {
    addresses: Mutex<HashMap<String, Arc<Address>>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

struct Address {
    host_port: String,
    idle: Mutex<Vec<Kept>>,
    permits: Semaphore,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is whole after each statement: a panic elsewhere cannot break it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A pool without connections.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends a request and reads its answer, over a kept connection if there is one. One that the
    /// other side has closed in the meantime is replaced, once: send only what may arrive twice.
    ///
    /// * `host_port`: as `10.0.0.7:8080` or `edge-2:8080`.
    ///
    /// # Errors
    /// [`SendError`]. An answer with any status is no error.
    pub async fn send(
        &self,
        host_port: &str,
        request: Outgoing,
    ) -> Result<(StatusCode, Bytes), SendError> {
        let address = self.address(host_port);
        let permit = address.permits.acquire().await;
        let _permit = permit.map_err(|e| SendError::new(SendErrorKind::Connect, e))?;
        let kept = lock(&address.idle).pop();
        if let Some(kept) = kept {
            match address.exchange(kept, &request).await {
                Err(e) if e.kind == SendErrorKind::Broken => {}
                done => return done,
            }
        }
        let fresh = address.connect().await?;
        address.exchange(fresh, &request).await
    }

    fn address(&self, host_port: &str) -> Arc<Address> {
        let mut addresses = lock(&self.addresses);
        if let Some(address) = addresses.get(host_port) {
            return Arc::clone(address);
        }
        if addresses.len() >= ADDRESSES_MAX {
            addresses.clear();
        }
        let address = Arc::new(Address {
            host_port: host_port.to_owned(),
            idle: Mutex::default(),
            permits: Semaphore::new(CALLS_IN_FLIGHT_MAX),
        });
        addresses.insert(host_port.to_owned(), Arc::clone(&address));
        address
    }

    /// Connections kept to an address.
    #[cfg(test)]
    pub(crate) fn idle(&self, host_port: &str) -> usize {
        lock(&self.address(host_port).idle).len()
    }
}

impl Address {
    async fn connect(&self) -> Result<Kept, SendError> {
        let connect = |e: &dyn fmt::Display| SendError::new(SendErrorKind::Connect, e);
        let stream = TcpStream::connect(&self.host_port).await.map_err(|e| connect(&e))?;
        stream.set_nodelay(true).map_err(|e| connect(&e))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| connect(&e))?;
        Ok(Kept { sender, connection })
    }

    /// Sends a request and reads the answer; keeps the connection if it can be used again.
    async fn exchange(
        &self,
        mut kept: Kept,
        request: &Outgoing,
    ) -> Result<(StatusCode, Bytes), SendError> {
        let broken = |e: &dyn fmt::Display| SendError::new(SendErrorKind::Broken, e);
        let mut builder = hyper::Request::builder()
            .method(request.method)
            .uri(&request.path)
            .header(header::HOST, &self.host_port)
            .header(header::ACCEPT, "application/json");
        if !request.body.is_empty() {
            builder = builder.header(header::CONTENT_TYPE, "application/json");
        }
        let request = builder
            .body(Full::new(request.body.clone()))
            .map_err(|e| SendError::new(SendErrorKind::Request, e))?;
        drive(&mut kept.connection, kept.sender.ready()).await?.map_err(|e| broken(&e))?;
        let response = drive(&mut kept.connection, kept.sender.send_request(request))
            .await?
            .map_err(|e| broken(&e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
        let body = drive(&mut kept.connection, body)
            .await?
            .map_err(|e| {
                let kind = if e.is::<LengthLimitError>() {
                    SendErrorKind::TooLarge
                } else {
                    SendErrorKind::Broken
                };
                SendError::new(kind, e)
            })?
            .to_bytes();
        if !kept.sender.is_closed() {
            let mut idle = lock(&self.idle);
            if idle.len() < IDLE_CONNECTIONS_MAX {
                idle.push(kept);
            }
        }
        Ok((status, body))
    }
}

/// Runs `work` and the connection that it waits for in one task.
async fn drive<F: Future>(connection: &mut Connection, work: F) -> Result<F::Output, SendError> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        let ended = match Pin::new(&mut *connection).poll(cx) {
            Poll::Pending => return work.as_mut().poll(cx).map(Ok),
            Poll::Ready(Ok(())) => "the connection was closed".to_owned(),
            Poll::Ready(Err(e)) => e.to_string(),
        };
        // The last bytes may have completed it.
        match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => Poll::Ready(Err(SendError::new(SendErrorKind::Broken, ended))),
        }
    })
    .await
}

/// Percent-encodes all but the characters that every server leaves alone in a path.
#[must_use]
pub fn encode_segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push('%');
            for nibble in [b >> 4, b & 15] {
                out.extend(char::from_digit(u32::from(nibble), 16).map(|c| c.to_ascii_uppercase()));
            }
        }
    }
    out
}
