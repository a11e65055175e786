//! Of what librdkafka says of a client, what shows how it fares.
use std::time::Duration;

use super::config::Statistics;

pub(super) fn of(name: &str, said: &rdkafka::Statistics) -> Statistics {
    let fetched = said.topics.values().flat_map(|topic| topic.partitions.values());
    let (mut records, mut bytes) = (said.msg_cnt, said.msg_size);
    for partition in fetched {
        records += count(partition.fetchq_cnt);
        bytes += partition.fetchq_size;
    }
    let round_trip_us = said.brokers.values().filter_map(|broker| Some(broker.rtt.as_ref()?.p99)).max();
    Statistics {
        client: name.to_owned(),
        queue_records: records,
        queue_bytes: bytes,
        requests_in_flight: said.brokers.values().map(|broker| count(broker.waitresp_cnt)).sum(),
        round_trip: Duration::from_micros(round_trip_us.map_or(0, count)),
        brokers_up: said.brokers.values().filter(|broker| broker.nodeid >= 0 && broker.state == "UP").count() as u64,
    }
}

fn count(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
