//! A compile service: `POST /compile` answers with a source in capitals. The tiers are memory, a folder
//! and, where `CACHE_URL` is set, a `cache_server` (`http://HOST:8420/artifacts`).

use anyhow::{Context as _, Result};
use axum::response::{IntoResponse, Response};
use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use pipeline_cache::{
    Artifact, CompileError, CompileScope, DiskCache, InMemoryPipelineCache, LayeredPipelineCache,
    OpaqueProgram, RemoteCache, Unkeyable,
};
use std::time::Duration;
use tokio::signal;

type Service = State<(LayeredPipelineCache, CompileScope)>;

async fn open(folder: String) -> Result<LayeredPipelineCache> {
    let disk = DiskCache::builder().root(folder).max_bytes(1 << 30);
    let mut cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(disk.open().await?)
        .keep_aliases();
    if let Ok(url) = std::env::var("CACHE_URL") {
        let remote = RemoteCache::builder().bearer_token(std::env::var("CACHE_TOKEN")?);
        cache = cache.tier(remote.writes().build(url)?);
    }
    Ok(cache.build())
}

async fn compile(State((cache, scope)): Service, source: Bytes) -> Response {
    let parse = |source: &Bytes| Ok::<_, Unkeyable>(OpaqueProgram::new("text", source.clone()));
    let answer = cache
        .compile(&scope)
        .source("text-parser 1.0", source, parse)
        .deadline(Duration::from_secs(5))
        .remember_failures(true)
        .run(|input, _cx| {
            let text = input.into_canonical()?;
            Ok(Artifact::new(text.bytes().to_ascii_uppercase()))
        })
        .await;
    match answer {
        Ok(compiled) => {
            let source = ("artifact-source", compiled.source_label().to_owned());
            let headers = [("server-timing", compiled.timing()), source];
            (headers, compiled.artifact.payload().clone()).into_response()
        }
        Err(error) => {
            let status = match error {
                CompileError::Failed(_) => StatusCode::UNPROCESSABLE_ENTITY,
                CompileError::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
                CompileError::DeadlineExceeded(_) => StatusCode::GATEWAY_TIMEOUT,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            let text = error.failed().map(ToString::to_string);
            (status, text.unwrap_or(error.to_string())).into_response()
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let cache = open(std::env::var("CACHE_DIR").context("CACHE_DIR")?).await?;
    let scope = CompileScope::new("capitals 1.0", "text")?;
    let routes = Router::new().route("/compile", post(compile));
    let site = routes.with_state((cache.clone(), scope));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    let stopped = async { signal::ctrl_c().await.unwrap_or_default() };
    #[cfg(unix)] // As systemd and containers end a service.
    let mut terminated = signal::unix::signal(signal::unix::SignalKind::terminate())?;
    #[cfg(unix)]
    let stopped = async move {
        tokio::select! { () = stopped => (), _ = terminated.recv() => () }
    };
    let server = axum::serve(listener, site).with_graceful_shutdown(stopped);
    server.await?;
    println!("{}", cache.close(Duration::from_secs(10)).await);
    Ok(())
}
