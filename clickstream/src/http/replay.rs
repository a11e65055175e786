//! Steering over HTTP: `GET /replay`, and `POST /replay/pause`, `resume`, `speed`, `rate`, `end`.
//!
//! A change goes to the topic `replay-control`, where every shard reads it; the answer says from when
//! it holds. A body is JSON: `{}`, or `{"value": "50x"}`, and `"source"` where another is meant than the
//! one that is played; `GET /replay?source=` says how another one stands. (A page of another origin
//! cannot send JSON here without being asked first, which it is not; and one whose name was bound to this
//! machine's address names another host.)
//!
//! Each process has a token (`Authorization: Bearer …`), which lies in the data folder's file `address`.
//! Beyond loopback it is asked for. One of another process is refused anywhere: who sends it found the
//! address that a killed process left behind, and means that one.
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use broker::Broker;
use producer::{Change, Control, Named, Playing, Standing, Steered};
use records::{EventTime, SourceId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Served;
use crate::settings::{Rate, Speed};

/// How long shards on a cluster may take to write their ends, before they are written for them.
const END_WAIT: Duration = Duration::from_secs(5);

/// 32 hex digits. It does not print itself.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    value: Option<String>,
    source: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Which {
    source: Option<String>,
}

/// What a source was told, or what became of it.
#[derive(Debug, Serialize)]
pub(crate) struct Told {
    pub(crate) source: String,
    /// From when it holds; None where it had ended before, or nobody is told.
    pub(crate) effective_at: Option<String>,
    pub(crate) paused: bool,
    pub(crate) speed: Option<f64>,
    pub(crate) rate: Option<f64>,
    pub(crate) end: bool,
    /// Feeds whose end was written for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ended: Vec<String>,
}

enum Refused {
    /// 400: what was asked for is wrong.
    Wrong(String),
    /// 503: it cannot be done now.
    Not(String),
}

pub(super) fn routes() -> Router<Served> {
    Router::new().route("/replay", get(status)).route("/replay/{action}", post(change))
}

impl Token {
    pub(crate) fn draw() -> anyhow::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("no random numbers for a token: {e}"))?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// For the file that only its owner reads.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl Served {
    /// Whether this is the process that is meant, by its token; None where none was named.
    fn is_meant(&self, headers: &HeaderMap) -> Option<bool> {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        given.and_then(|given| given.strip_prefix("Bearer ")).map(|given| given == self.token.0)
    }

    /// An answer to who means another process.
    pub(super) fn refuses_others(&self, headers: &HeaderMap) -> Option<Response> {
        let why = "the token is not this process's: it is in the file address of its data folder";
        (self.is_meant(headers) == Some(false)).then(|| refusal(StatusCode::UNAUTHORIZED, why))
    }

    /// An answer to who may not steer.
    fn refuses(&self, headers: &HeaderMap) -> Option<Response> {
        if self.is_meant(headers).is_some() {
            return self.refuses_others(headers);
        }
        if !self.address.ip().is_loopback() {
            let why = "a token is asked for beyond loopback: Authorization: Bearer, and the token in the data folder's file address";
            return Some(refusal(StatusCode::UNAUTHORIZED, why));
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let why = "the request names another host than this machine: use 127.0.0.1 or localhost, or send the token in the data folder's file address";
        (!names_this_machine(host, self.address.ip())).then(|| refusal(StatusCode::FORBIDDEN, why))
    }

    fn change(&self, action: &str, body: &Body) -> Result<Told, Refused> {
        let wrong = |why: String| Refused::Wrong(why);
        let value = |example: &str| {
            let missing = || wrong(format!("{action} takes a value, as in {{\"value\": \"{example}\"}}"));
            body.value.as_deref().ok_or_else(missing)
        };
        let change = match action {
            "pause" => Change::Pause,
            "resume" => Change::Resume,
            "speed" => Change::Speed(value("50x")?.parse::<Speed>().map_err(wrong)?.0),
            "rate" => Change::Rate(value("2000/s")?.parse::<Rate>().map_err(wrong)?.0),
            "end" => Change::End,
            _ => return Err(wrong(format!("{action}: it takes pause, resume, speed, rate or end"))),
        };
        let broker = self.needs_broker()?;
        let named = body.source.as_deref().map(str::parse::<Named>).transpose();
        let (named, playing) = (named.map_err(|e| wrong(e.to_string()))?, self.live.playing());
        let named = match named.or(playing.map(|(source, _)| Named::Source(source))) {
            Some(named) => named,
            None if !self.live.plays() => return Err(wrong(self.plays_elsewhere())),
            None => {
                let Some(source) = self.live.source() else {
                    return Err(Refused::Not("no source is played yet; ask again".into()));
                };
                return Err(wrong(format!("source {source} has ended: there is nothing to steer")));
            }
        };
        Ok(tell(broker.as_ref(), &self.prefix, playing, named, change)?)
    }

    fn needs_broker(&self) -> Result<Arc<dyn Broker>, Refused> {
        self.broker().ok_or_else(|| Refused::Not("no broker has answered yet".into()))
    }

    /// How a source stands that need not be the one that is played here.
    fn stands(&self, source: &str) -> Result<Value, Refused> {
        let source: SourceId = source.parse().map_err(|e| Refused::Wrong(format!("source: {e}")))?;
        let here = || Ok(json!(self.live.replay()));
        if self.live.source() == Some(source) {
            return here();
        }
        let standings = producer::standings(self.needs_broker()?.as_ref(), &self.prefix)?;
        let standing = begun(&standings, source).map_err(Refused::Wrong)?;
        if self.live.source() == Some(standing.source) { here() } else { Ok(stands(standing)) }
    }

    fn plays_elsewhere(&self) -> String {
        format!("this process plays nothing: clickstream control {} steers what others play", self.flags)
    }
}

impl From<producer::Error> for Refused {
    fn from(error: producer::Error) -> Self {
        match error {
            producer::Error::Setting(why) | producer::Error::Refused(why) => Self::Wrong(why),
            other => Self::Not(other.to_string()),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Self::Wrong(why) => refusal(StatusCode::BAD_REQUEST, &why),
            Self::Not(why) => refusal(StatusCode::SERVICE_UNAVAILABLE, &why),
        }
    }
}

fn refusal(status: StatusCode, why: &str) -> Response {
    (status, Json(serde_json::json!({ "error": why }))).into_response()
}

/// Whether a `Host` header names the address that is served, or loopback.
fn names_this_machine(host: &str, served: IpAddr) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    match name.parse::<IpAddr>() {
        Ok(ip) => ip.is_loopback() || ip == served,
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    }
}

/// The source of that name, or that has a pass of that name; the error says which there are.
pub(crate) fn begun(standings: &[Standing], named: SourceId) -> Result<&Standing, String> {
    standings.iter().find(|standing| standing.is(named)).ok_or_else(|| {
        let open: Vec<_> = standings.iter().filter(|standing| !standing.has_ended()).collect();
        let open: Vec<_> = open.iter().map(|standing| standing.source.to_string()).collect();
        let known =
            if open.is_empty() { "none is unfinished".to_owned() } else { format!("unfinished: {}", open.join(", ")) };
        format!("no source {named} was begun here; {known}")
    })
}

/// A source that is played hears of a change: here, as `playing` says by its first pass and shard, or
/// on a cluster anywhere. What is not played can be ended all the same.
pub(crate) fn tell(
    broker: &dyn Broker,
    prefix: &str,
    playing: Option<(SourceId, u32)>,
    named: Named,
    change: Change,
) -> producer::Result<Told> {
    let refused = |why| Err(producer::Error::Refused(why));
    // Nobody else can have the embedded broker.
    let is_alone = broker.kind() == "embedded";
    if change == Change::End {
        let elsewhere = if is_alone { Duration::ZERO } else { END_WAIT };
        let ended = producer::end(broker, prefix, named, Playing { here: playing, elsewhere })?;
        tracing::info!(%named, ?ended, "ended by control");
        return Ok(Told::ended(named, &ended));
    }
    let Named::Source(mut source) = named else {
        return refused(format!("{named} is one feed of source {}: only an end is of one", named.source()));
    };
    let is_here = |source| playing.is_some_and(|(here, _)| here == source);
    let standings = producer::standings(broker, prefix)?;
    match begun(&standings, source) {
        Ok(standing) if standing.has_ended() => {
            return refused(format!("source {} has ended: there is nothing to steer", standing.source));
        }
        Ok(standing) => source = standing.source,
        // It has just begun.
        Err(_) if is_here(source) => {}
        Err(why) => return refused(why),
    }
    if is_alone && !is_here(source) {
        return refused(format!("source {source} is not played now: there is nothing to steer, but it can be ended"));
    }
    let control = producer::steer(broker, prefix, source, change)?;
    tracing::info!(%source, ?change, "told by control");
    Ok(Told::of(source, control))
}

/// A source as the topics know it.
pub(crate) fn stands(standing: &Standing) -> Value {
    let mut answer = json!(Told::of(standing.source, standing.control.unwrap_or_default()));
    if standing.control.is_none() {
        answer["effective_at"] = Value::Null;
    }
    let clock = standing.feeds.iter().filter_map(|feed| feed.clock).max();
    answer["phase"] = if standing.has_ended() { "ended" } else { "unfinished" }.into();
    answer["clock"] = clock.map(|clock| clock.to_string()).into();
    answer["events"] = standing.feeds.iter().map(|feed| feed.events).sum::<u64>().into();
    let feed = |feed: &producer::FeedStanding| {
        json!({ "feed": feed.feed.to_string(), "pass": feed.pass, "events": feed.events, "ended": feed.ended,
                "clock": feed.clock.map(|clock| clock.to_string()) })
    };
    answer["feeds"] = standing.feeds.iter().map(feed).collect();
    answer
}

impl Told {
    fn ended(named: Named, ended: &producer::Ended) -> Self {
        let mut told = Self::of(named.source(), ended.told.unwrap_or_default());
        if ended.told.is_none() {
            told.effective_at = None;
        }
        (told.source, told.end) = (named.to_string(), true);
        told.ended = ended.now.iter().map(ToString::to_string).collect();
        told
    }

    pub(crate) fn of(source: SourceId, control: Control) -> Self {
        let (mut speed, mut rate) = (None, None);
        match control.pace {
            Some(Steered::Speed(n)) => speed = Some(n),
            Some(Steered::Rate(n)) => rate = Some(n),
            None => {}
        }
        let millis = control.effective_at_us.rem_euclid(1_000_000) / 1000;
        let at = EventTime(control.effective_at_us).to_string().replace(" UTC", &format!(".{millis:03} UTC"));
        Self {
            source: source.to_string(),
            effective_at: Some(at),
            paused: control.paused,
            speed,
            rate,
            end: control.end,
            ended: Vec::new(),
        }
    }
}

async fn status(State(served): State<Served>, Query(asked): Query<Which>, headers: HeaderMap) -> Response {
    if let Some(refused) = served.refuses_others(&headers) {
        return refused;
    }
    let Some(source) = asked.source else {
        let says = (!served.live.plays()).then(|| served.plays_elsewhere());
        return Json(says.map_or_else(|| json!(served.live.replay()), |says| json!({ "plays": false, "says": says })))
            .into_response();
    };
    match tokio::task::spawn_blocking(move || served.stands(&source)).await {
        Ok(Ok(stands)) => Json(stands).into_response(),
        Ok(Err(refused)) => refused.into_response(),
        Err(error) => Refused::Not(error.to_string()).into_response(),
    }
}

async fn change(
    State(served): State<Served>,
    Path(action): Path<String>,
    headers: HeaderMap,
    body: Result<Json<Body>, JsonRejection>,
) -> Response {
    if let Some(refused) = served.refuses(&headers) {
        return refused;
    }
    let Json(body) = match body {
        Ok(body) => body,
        // A page of another origin may not send what is not declared as JSON: that stays refused as such.
        Err(JsonRejection::MissingJsonContentType(why)) => {
            return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, &why.body_text());
        }
        Err(why) => return refusal(StatusCode::BAD_REQUEST, &why.body_text()),
    };
    let done = tokio::task::spawn_blocking(move || served.change(&action, &body)).await;
    match done {
        Ok(Ok(told)) => Json(told).into_response(),
        Ok(Err(refused)) => refused.into_response(),
        Err(error) => Refused::Not(error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (host, served, expected) in [
            ("127.0.0.1:8650", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("localhost:8650", "127.0.0.1", true),
            ("LocalHost", "127.0.0.1", true),
            ("[::1]:8650", "::1", true),
            ("[::1]", "127.0.0.1", true),
            ("127.8.9.1:8650", "127.8.9.1", true),
            ("evil.example:8650", "127.0.0.1", false),
            ("localhost.evil.example", "127.0.0.1", false),
            ("127.0.0.1.evil.example:8650", "127.0.0.1", false),
            ("10.0.0.1:8650", "127.0.0.1", false),
            ("", "127.0.0.1", false),
            ("a b", "127.0.0.1", false),
        ] {
            assert_eq!(names_this_machine(host, served.parse().unwrap()), expected, "{host}");
        }
    }
}
