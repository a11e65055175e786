//! What every process that works has: a log and progress, signals, pages and metrics, a broker.
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use broker::Broker;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use prometheus::Registry;
use serde::Serialize;
use serde_json::Value;

use crate::exit::Wrong;
use crate::http;
use crate::http::replay::Token;
use crate::patience::{Patience, TRIED_FOR};
use crate::pipeline::Live;
use crate::screen::Screen;
use crate::settings::{BrokerOptions, KafkaUrl, LogOptions, ServeOptions};
use crate::signals;

/// Threads for HTTP and the object store: the work is done by the parts' own.
const RUNTIME_THREADS: usize = 2;
/// How long the sinks outlive a cluster that does not answer; the other parts count their attempts.
pub(crate) const OUTAGE: Duration = Duration::from_secs(300);

pub(crate) struct Process {
    pub(crate) screen: Screen,
    pub(crate) signals: Receiver<i32>,
    /// It lasts as long as the process: a part that does not drain in time may still be using it when
    /// the process leaves.
    pub(crate) runtime: &'static tokio::runtime::Runtime,
    pub(crate) registry: Registry,
    pub(crate) live: Arc<Live>,
    /// Known once it is connected. Who only looks does not keep it open.
    broker: Arc<OnceLock<Weak<dyn Broker>>>,
}

impl Process {
    pub(crate) fn start(log: &LogOptions) -> Result<Self> {
        let screen = Screen::new(log);
        let signals = signals::first_signal()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .thread_name("async")
            .enable_all()
            .build()?;
        let runtime = Box::leak(Box::new(runtime));
        let (registry, live) = (Registry::new(), Arc::new(Live::new()));
        Ok(Self { screen, signals, runtime, registry, live, broker: Arc::default() })
    }

    pub(crate) fn bind(&self, options: &ServeOptions) -> Result<Option<http::Bound>> {
        self.runtime.block_on(http::bind(options.listen))
    }

    /// Serves from now on; returns where, and this process's token there.
    pub(crate) fn serve(
        &self,
        bound: Option<http::Bound>,
        prefix: &str,
        flags: &str,
        marts_db: Option<PathBuf>,
    ) -> Result<Option<(std::net::SocketAddr, Token)>> {
        let Some((listener, address)) = bound else { return Ok(None) };
        let token = Token::draw()?;
        let page = if marts_db.is_some() { format!("live page at http://{address}/  ") } else { String::new() };
        let served = http::Served {
            marts_db: marts_db.map(Arc::new),
            registry: self.registry.clone(),
            live: Arc::clone(&self.live),
            broker: Arc::clone(&self.broker),
            prefix: prefix.into(),
            flags: flags.into(),
            address,
            token: token.clone(),
        };
        self.runtime.spawn(async move {
            if let Err(error) = http::serve(listener, served).await {
                tracing::error!("HTTP has stopped: {error}");
            }
        });
        self.screen.say(&format!("clickstream: {page}metrics at http://{address}/metrics"));
        Ok(Some((address, token)))
    }

    /// Pages and health know of it from now on.
    pub(crate) fn has(&self, broker: &Arc<dyn Broker>) {
        let _ = self.broker.set(Arc::downgrade(broker));
    }

    /// Connects to the cluster; None where a signal came first.
    pub(crate) fn connect(&self, options: &BrokerOptions, url: &KafkaUrl) -> Result<Option<Arc<dyn Broker>>> {
        let connect = options.kafka.connector(url, &self.registry)?;
        let mut patience = Patience::new(records::clock::now());
        loop {
            let why = match connect() {
                Ok(broker) => {
                    self.has(&broker);
                    return Ok(Some(broker));
                }
                Err(broker::Error::Retry(why)) => why,
                Err(error) => return Err(error.into()),
            };
            let Some(wait) = patience.wait(records::clock::now()) else { return Err(anyhow!(why)) };
            if patience.is_first() {
                tracing::warn!("{why}; trying on for {TRIED_FOR:?}");
            }
            if !matches!(self.signals.recv_timeout(wait), Err(RecvTimeoutError::Timeout)) {
                return Ok(None);
            }
        }
    }
}

/// The cluster, for commands that work on one only.
pub(crate) fn cluster(options: &BrokerOptions) -> Result<&KafkaUrl> {
    let wrong = "it works on a Kafka cluster: --broker kafka://host:9092 (clickstream run needs none)";
    options.kafka_url().ok_or_else(|| anyhow!(Wrong(wrong.to_owned())))
}

/// What stdout is for.
pub(crate) fn say(text: &str) -> Result<()> {
    use std::io::Write as _;
    match std::io::stdout().write_all(text.as_bytes()) {
        // `clickstream … | head`: the reader has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("stdout cannot be written to"),
    }
}

pub(crate) fn say_json(value: &impl Serialize) -> Result<()> {
    say(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// Asks the process that serves there, by its token; `within` None: as long as it takes. What it
/// says, or why it refuses.
pub(crate) async fn ask(
    (url, token): &(String, String),
    within: Option<Duration>,
    request: impl FnOnce(&reqwest::Client) -> reqwest::RequestBuilder,
) -> Result<Value> {
    let client = reqwest::Client::builder().no_proxy();
    let client = within.into_iter().fold(client, reqwest::ClientBuilder::timeout).build()?;
    let answer = request(&client).bearer_auth(token).send().await?;
    let status = answer.status();
    if status == reqwest::StatusCode::UNAUTHORIZED {
        return Err(AnotherProcess(url.clone()).into());
    }
    let body: Value = answer.json().await.with_context(|| format!("{url}: its answer is not JSON"))?;
    if status.is_success() {
        return Ok(body);
    }
    Err(anyhow!("{}", body["error"].as_str().unwrap_or("the process refused")))
}

#[derive(Debug)]
struct AnotherProcess(String);

impl std::fmt::Display for AnotherProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "another process serves at {} by now", self.0)
    }
}

impl std::error::Error for AnotherProcess {}

/// Nobody listens where a data folder says, or another process does: its own was killed before it
/// could take its address away.
pub(crate) fn is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect) || error.is::<AnotherProcess>()
}
