//! Page, API, metrics and health, on loopback unless another address was asked for.
//!
//! | path | what it gives |
//! |---|---|
//! | `/` | the live page |
//! | `/api/status` | how far the replay and each part have come |
//! | `/api/totals`, `/api/categories`, `/api/brands`, `/api/traffic`, `/api/products`, `/api/sessions`, `/api/abandoned` | the marts |
//! | `/replay` | how the replay goes; `POST /replay/pause` and the like steer it (`replay`) |
//! | `/metrics` | Prometheus |
//! | `/healthz` | 200 while the process runs |
//! | `/readyz` | 200 while it can do its work: the parts run, a broker answers, the marts can be read |
//! | `/api/tail` | records of a topic, for `clickstream tail` |
pub(crate) mod replay;
mod tail;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};

use anyhow::{Context, Result};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use broker::Broker;
use marts::{Marts, RankBy};
use prometheus::{Registry, TextEncoder};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::pipeline::Live;
use crate::settings::Listen;

const PORT: u16 = 8650;
/// How many ports after [`PORT`] are tried, where none was asked for.
const PORTS_TRIED: u16 = 100;
const ROWS_AT_MOST: u32 = 1000;

/// A port that was had, and its address.
pub(crate) type Bound = (TcpListener, SocketAddr);

#[derive(Clone)]
pub(crate) struct Served {
    /// None where this process keeps no marts: then there is no page, and no API of theirs.
    pub(crate) marts_db: Option<Arc<PathBuf>>,
    pub(crate) registry: Registry,
    pub(crate) live: Arc<Live>,
    /// Known once it is connected.
    pub(crate) broker: Arc<OnceLock<Weak<dyn Broker>>>,
    pub(crate) prefix: Arc<str>,
    /// What takes another command to the same broker.
    pub(crate) flags: Arc<str>,
    pub(crate) address: SocketAddr,
    /// Tells this process from another that has its port later; who steers from afar has to name it.
    pub(crate) token: replay::Token,
}

impl Served {
    /// Once one has answered, and until the parts have let go of it.
    fn broker(&self) -> Option<Arc<dyn Broker>> {
        self.broker.get()?.upgrade()
    }
}

/// Binds the address that was asked for, or the first free port from 8650 on.
pub(crate) async fn bind(listen: Option<Listen>) -> Result<Option<Bound>> {
    let listener = match listen {
        Some(Listen::Off) => return Ok(None),
        Some(Listen::At(address)) => TcpListener::bind(address)
            .await
            .with_context(|| format!("--listen {address} cannot be had; another port, 0 for any free one, or off"))?,
        None => first_free().await?,
    };
    let address = listener.local_addr()?;
    Ok(Some((listener, address)))
}

async fn first_free() -> Result<TcpListener> {
    for port in PORT..PORT + PORTS_TRIED {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            other => return other.with_context(|| format!("127.0.0.1:{port} cannot be had")),
        }
    }
    anyhow::bail!("no port from {PORT} to {} is free; --listen takes another, or off", PORT + PORTS_TRIED - 1)
}

pub(crate) async fn serve(listener: TcpListener, served: Served) -> io::Result<()> {
    let page = match served.marts_db {
        Some(_) => include_str!("page.html"),
        None => include_str!("part.html"),
    };
    let app = Router::new()
        .route("/", get(move || async move { Html(page) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/status", get(status))
        .route("/api/tail", get(tail::tail))
        .route("/api/totals", rows(0, |marts, _| marts.totals()))
        .route("/api/categories", rows(20, Marts::funnel_by_category))
        .route("/api/brands", rows(20, Marts::funnel_by_brand))
        .route("/api/traffic", rows(168, Marts::traffic_by_hour))
        .route("/api/products", rows(20, |marts, limit| marts.top_products(RankBy::Revenue, limit)))
        .route("/api/sessions", rows(0, |marts, _| marts.sessions_by_stage()))
        .route("/api/abandoned", rows(20, Marts::top_abandoned))
        .merge(replay::routes())
        .with_state(served);
    axum::serve(listener, app).await
}

#[derive(Deserialize)]
struct Limit {
    limit: Option<u32>,
}

/// A route that reads the marts, off the async threads. `?limit=` is for those that rank.
fn rows<T: Serialize + Send + 'static>(
    default: u32,
    read: impl Fn(&Marts, u32) -> marts::Result<T> + Clone + Send + Sync + 'static,
) -> MethodRouter<Served> {
    get(move |State(served): State<Served>, Query(Limit { limit }): Query<Limit>| {
        let limit = limit.unwrap_or(default).min(ROWS_AT_MOST);
        async move {
            let Some(path) = served.marts_db else { return unavailable("this process keeps no marts") };
            let answer =
                tokio::task::spawn_blocking(move || read(&Marts::open_read_only(path.as_path())?, limit)).await;
            match answer {
                Ok(Ok(rows)) => Json(rows).into_response(),
                Ok(Err(error)) => unavailable(&error.to_string()),
                Err(error) => unavailable(&error.to_string()),
            }
        }
    })
}

fn unavailable(why: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, Json(serde_json::json!({ "error": why }))).into_response()
}

async fn status(State(served): State<Served>) -> Response {
    Json(served.live.status()).into_response()
}

async fn ready(State(served): State<Served>) -> Response {
    if !served.live.running() {
        return unavailable("a part has stopped");
    }
    match served.broker() {
        None => return unavailable("no broker has answered yet"),
        Some(broker) if !broker.answers() => return unavailable("no broker answers"),
        Some(_) if !served.live.is_ready() => return unavailable("a part has not begun yet"),
        Some(_) => {}
    }
    let Some(path) = served.marts_db else { return "ready\n".into_response() };
    match tokio::task::spawn_blocking(move || Marts::open_read_only(path.as_path())).await {
        Ok(Ok(_)) => "ready\n".into_response(),
        Ok(Err(error)) => unavailable(&error.to_string()),
        Err(error) => unavailable(&error.to_string()),
    }
}

async fn metrics(State(served): State<Served>) -> Response {
    match TextEncoder::new().encode_to_string(&served.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => unavailable(&error.to_string()),
    }
}
