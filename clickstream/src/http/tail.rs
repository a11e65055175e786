//! `/api/tail`: records of a topic, for `clickstream tail` on the folder that this process has.
use axum::Json;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};

use super::{Served, unavailable};
use crate::commands::{TailQuery, tail_rows};

pub(super) async fn tail(State(served): State<Served>, headers: HeaderMap, Query(query): Query<TailQuery>) -> Response {
    if let Some(refused) = served.refuses_others(&headers) {
        return refused;
    }
    let Some(broker) = served.broker() else { return unavailable("no broker has answered yet") };
    let read = move || tail_rows(broker.as_ref(), &served.prefix, &query);
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(rows)) => Json(rows).into_response(),
        Ok(Err(error)) => unavailable(&format!("{error:#}")),
        Err(error) => unavailable(&error.to_string()),
    }
}
