//! In place of `kafka`, in a build without it.
use std::sync::Arc;

use anyhow::Result;
use broker::{Broker, Error};
use clap::Args;
use prometheus::Registry;

use super::broker::KafkaUrl;

#[derive(Clone, Debug, Args)]
pub(crate) struct KafkaOptions {}

impl KafkaOptions {
    #[allow(clippy::unused_self, reason = "as `kafka` has it")]
    pub(super) fn flags(&self) -> Vec<String> {
        Vec::new()
    }

    #[allow(clippy::unused_self, reason = "as `kafka` has it")]
    pub(crate) fn connector(
        &self,
        url: &KafkaUrl,
        _registry: &Registry,
    ) -> Result<impl Fn() -> broker::Result<Arc<dyn Broker>>> {
        let why = format!("{url}: this program was built without Kafka; build it with --features kafka");
        Ok(move || Err(Error::Stop(why.clone())))
    }
}

/// There is nothing to hide.
pub(super) fn shown(text: &str) -> String {
    text.to_owned()
}
