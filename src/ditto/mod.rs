//! Eclipse Ditto's HTTP API 2: things and all below them, search, and streams of changes (SSE).
//!
//! A request is a [`Path`](crate::twin::path::Path) and a [`Verb`](crate::twin::path::Verb); what
//! follows is the same for all of them: check the precondition, submit the change, wait until it is
//! durable, respond. Sources: Eclipse Ditto's OpenAPI description, `httpapi-concepts`,
//! `httpapi-sse`.
//!
//! `http` is the I/O boundary; the other files are pure: `call` (headers and parameters of a
//! request), `things` (conditions, entity tags, what is shown), `search`, `stream` (what a stream
//! shows of a change), `error` (the table of all errors).
//!
//! Not here yet: policies, messages, acknowledgements, the live channel.

mod call;
mod error;
mod http;
mod search;
mod stream;
mod things;

pub use http::{Api, router};
