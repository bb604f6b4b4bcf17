//! Requests as a program without a library sends them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// Sends a request and returns the connection, to read the response from.
pub(crate) fn send(to: SocketAddr, method: &str, path: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let media = if method == "PATCH" { "merge-patch+json" } else { "json" };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nAccept: application/json\r\n\
         Content-Type: application/{media}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A body that is refused for its size is not read to its end.
    drop(stream.write_all(body));
    stream
}

/// Status and body of a request.
pub(crate) fn request(to: SocketAddr, method: &str, path: &str, body: &[u8]) -> (u16, String) {
    let mut response = Vec::new();
    send(to, method, path, body).read_to_end(&mut response).unwrap();
    let response = String::from_utf8(response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
