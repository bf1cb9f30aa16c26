//! Prometheus metrics over a little HTTP, on loopback alone: they say who talks with whom.

use super::Failure;
use super::host::cannot_bind;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request's head is no longer, and comes within a moment.
const MAX_HEAD: usize = 8 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);

/// Binds the address.
pub(super) async fn bind(at: SocketAddr) -> Result<TcpListener, Failure> {
    if !at.ip().is_loopback() {
        return Err(format!(
            "metrics are served on loopback only, and {at} is not: say 127.0.0.1:{}, and let a proxy with a login show them elsewhere",
            at.port()
        )
        .into());
    }
    let listener = TcpListener::bind(at).await.map_err(|error| cannot_bind("TCP", at, &error))?;
    tracing::info!(address = %listener.local_addr()?, "metrics");
    Ok(listener)
}

/// Answers one request after the other with what `collect` puts together, for ever.
pub(super) async fn serve(listener: TcpListener, collect: impl AsyncFn() -> Option<Registry>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let answered = tokio::time::timeout(PATIENCE, answer(stream, &collect)).await;
                if let Ok(Err(error)) = answered {
                    tracing::debug!(%error, "metrics");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "metrics");
                tokio::time::sleep(PATIENCE).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, collect: &impl AsyncFn() -> Option<Registry>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < MAX_HEAD {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let (status, body) = if !head.starts_with(b"GET /metrics ") {
        ("404 Not Found", "GET /metrics\n".to_owned())
    } else {
        let registry = collect().await.unwrap_or_default();
        let mut text = String::new();
        match encode(&mut text, &registry) {
            Ok(()) => ("200 OK", text),
            Err(error) => ("500 Internal Server Error", format!("{error}\n")),
        }
    };
    // The type that the OpenMetrics specification gives to its text format.
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// Puts one number into a registry.
pub(super) fn gauge(registry: &mut Registry, name: &str, help: &str, value: usize) {
    let gauge = prometheus_client::metrics::gauge::Gauge::<i64>::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(name, help, gauge);
}
