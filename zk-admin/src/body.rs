//! Answers, and what they carry.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Response, StatusCode};
use smol::channel::Receiver;
use smol::stream::StreamExt;

/// What an answer carries.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// JSON, as ZooKeeper calls it.
pub(crate) const JSON: &str = "application/json";
/// Plain text.
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// An answer with everything it carries at hand.
pub(crate) fn whole(
    status: StatusCode,
    content_type: &'static str,
    content: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Full::new(content.into()).boxed_unsync());
    *response.status_mut() = status;
    mark(&mut response, content_type);
    response
}

/// An answer whose pieces come one by one, until the other end of the channel is dropped.
pub(crate) fn streamed(content_type: &'static str, pieces: Receiver<Bytes>) -> Response<Body> {
    let frames = pieces.map(|piece| Ok(Frame::data(piece)));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    mark(&mut response, content_type);
    response
}

fn mark(response: &mut Response<Body>, content_type: &'static str) {
    let headers = response.headers_mut();
    if !content_type.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}
