//! What the response to a request that cannot be parsed says.
//!
//! The HTTP library refuses such a request before any route sees it, with status 400 and an empty
//! body, and closes the connection. The usual cause is a query that is not percent-encoded, as in
//! `?filter=eq(a,"b")`. It is not repaired and carried out (RFC 9112, 3.2: that would let requests
//! past filters that stand in front of the server); the response says what to encode.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How the library's response begins, and what says that it has no body.
const REFUSED: (&[u8], &str) = (b"HTTP/1.1 400 Bad Request\r\n", "content-length: 0\r\n");

/// A stream that gives the library's response to a malformed request a body.
pub(super) struct Explained<S> {
    stream: S,
    /// The response that is being written, and how much of it is.
    response: Option<(Vec<u8>, usize)>,
}

impl<S: AsyncWrite + Unpin> Explained<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, response: None }
    }

    fn poll_response(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((bytes, written)) = &mut self.response {
            match ready!(Pin::new(&mut self.stream).poll_write(context, &bytes[*written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                len => *written += len,
            }
            if *written == bytes.len() {
                self.response = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The response with a body, if `bytes` is the library's response to a malformed request.
fn explain(bytes: &[u8]) -> Option<Vec<u8>> {
    if !bytes.starts_with(REFUSED.0) {
        return None;
    }
    let head = std::str::from_utf8(bytes).ok()?;
    let body = json!({
        "status": 400,
        "error": "gateway:request.malformed",
        "message": "The request cannot be read: its path, its query or a header has characters that HTTP does not allow there.",
        "description": "Percent-encode quotes (`%22`), spaces (`%20`), `<`, `>` and everything outside ASCII in paths and queries. With curl: `curl -G URL --data-urlencode 'filter=…'`.",
    })
    .to_string();
    let length = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    head.contains(REFUSED.1).then(|| (head.replacen(REFUSED.1, &length, 1) + &body).into_bytes())
}

impl<S: AsyncRead + Unpin> AsyncRead for Explained<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Explained<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_response(context))?;
        let Some(response) = explain(bytes) else {
            return Pin::new(&mut self.stream).poll_write(context, bytes);
        };
        self.response = Some((response, 0));
        // What cannot be written now is written before the stream is flushed or shut down.
        match self.poll_response(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(bytes.len())),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match parts.iter().find(|part| !part.is_empty()) {
            Some(first) if self.response.is_some() || first.starts_with(REFUSED.0) => {
                self.poll_write(context, first)
            }
            _ => Pin::new(&mut self.stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_response(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_response(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const BARE: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\
        date: Fri, 27 Nov 2026 12:00:00 GMT\r\n\r\n";

    #[tokio::test]
    async fn a_bare_refusal_gets_a_body_however_little_is_written_at_once() {
        let (near, mut far) = tokio::io::duplex(7);
        let write = async {
            let mut stream = Explained::new(near);
            stream.write_all(BARE).await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let mut text = String::new();
        let (_, read) = tokio::join!(write, far.read_to_string(&mut text));
        read.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        assert!(head.contains("connection: close") && head.contains("date: "), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert!(body["description"].as_str().unwrap().contains("%22"), "{body}");
    }

    #[test]
    fn other_responses_are_left_as_they_are() {
        for response in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}",
            b"{\"a\": \"HTTP/1.1 400 Bad Request\"}",
        ] {
            assert_eq!(explain(response), None);
        }
    }
}
