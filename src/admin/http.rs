//! The HTTP port: /metrics, /healthz, /readyz and a status page. Read-only, for operators and probes, never for data.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::signals::stopped;
use crate::cluster::ClusterStatus;

/// Connections served at a time; further ones wait in the listen queue.
const CONNECTIONS_MAX: usize = 64;
const HEADER_TIME_MAX: Duration = Duration::from_secs(5);
/// How long open connections may take to finish after a stop.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);
/// Pause after a failed accept (out of file descriptors), which would otherwise fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether the node serves its share of the cluster, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub ready: bool,
    pub reason: String,
}

/// What the pages show, computed when asked.
pub struct HttpPages {
    pub health: watch::Receiver<Health>,
    /// Prometheus text; refreshes sampled gauges first.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    pub status: Box<dyn Fn() -> BoxFuture<'static, ClusterStatus> + Send + Sync>,
}

/// Serves until `stop` turns true or its sender is gone, then finishes open requests within a second.
pub async fn serve_http(listener: TcpListener, pages: Arc<HttpPages>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(stream, Arc::clone(&pages), stop.clone()));
                }
                Err(error) => pause_after(&error).await,
            },
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    // Whatever is still open after that is aborted when the set is dropped.
    let _ = tokio::time::timeout(DRAIN_TIME_MAX, drained).await;
}

async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection on the HTTP port");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

async fn serve_connection(stream: TcpStream, pages: Arc<HttpPages>, mut stop: watch::Receiver<bool>) {
    let service = service_fn(move |request| {
        let pages = pages.clone();
        async move { Ok::<_, Infallible>(respond(&request, &pages).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME_MAX).max_buf_size(16 << 10);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // A client that goes away or sends nonsense is its own affair.
    tokio::select! {
        _ = connection.as_mut() => {}
        _ = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

async fn respond(request: &Request<Incoming>, pages: &HttpPages) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_string());
    }
    match request.uri().path() {
        "/metrics" => page(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", (pages.metrics)()),
        "/healthz" => page(StatusCode::OK, TEXT, "ok\n".to_string()),
        "/readyz" => {
            let health = pages.health.borrow().clone();
            let code = if health.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            page(code, TEXT, if health.ready { "ready\n".to_string() } else { format!("{}\n", health.reason) })
        }
        "/" => {
            let health = pages.health.borrow().clone();
            page(StatusCode::OK, "text/html; charset=utf-8", status_page(&health, &(pages.status)().await))
        }
        path => {
            page(StatusCode::NOT_FOUND, TEXT, format!("no page {path}; there are /, /metrics, /healthz, /readyz\n"))
        }
    }
}

fn page(code: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn status_page(health: &Health, status: &ClusterStatus) -> String {
    let mut html = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"5\">\
         <title>Kvorum</title><style>body{font-family:sans-serif;margin:2em}pre{font-size:1.1em}</style>",
    );
    let state = if health.ready { "ready" } else { health.reason.as_str() };
    let table = super::status::table(status);
    writeln!(
        html,
        "<h1>Kvorum {}</h1><p>This node: {}</p><pre>{}</pre><p><a href=\"/metrics\">metrics</a></p></html>",
        env!("CARGO_PKG_VERSION"),
        escaped(state),
        escaped(&table)
    )
    .expect("writing into a String cannot fail");
    html
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn get(port: u16, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        (text[9..12].parse().unwrap(), text.split_once("\r\n\r\n").unwrap().1.to_string())
    }

    #[tokio::test]
    async fn pages_answer_and_readyz_follows_health_until_the_stop() {
        let unready = Health { ready: false, reason: "group 2 has no leader".to_string() };
        let (health, health_seen) = watch::channel(unready);
        let (stop, stop_seen) = watch::channel(false);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let pages = HttpPages {
            health: health_seen,
            metrics: Box::new(|| "kvorum_keys 1\n".to_string()),
            status: Box::new(|| Box::pin(std::future::ready(crate::admin::status::example()))),
        };
        let server = tokio::spawn(serve_http(listener, Arc::new(pages), stop_seen));

        assert_eq!(get(port, "/readyz").await, (503, "group 2 has no leader\n".to_string()));
        health.send(Health { ready: true, reason: String::new() }).unwrap();
        assert_eq!(get(port, "/readyz").await, (200, "ready\n".to_string()));
        assert_eq!(get(port, "/healthz").await, (200, "ok\n".to_string()));
        assert_eq!(get(port, "/metrics").await, (200, "kvorum_keys 1\n".to_string()));
        assert_eq!(get(port, "/nothing").await.0, 404);
        let (code, html) = get(port, "/").await;
        assert!(code == 200 && html.contains("10.0.0.1:7001"), "{html}");

        let _idle = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stop.send(true).unwrap();
        tokio::time::timeout(Duration::from_secs(5), server).await.unwrap().unwrap();
        assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    }
}
