"""A plain client in another language reads our records by the published .proto alone, and writes events
that the sessionizer takes. What it writes that cannot be read is dead-lettered once and stops nobody."""
import importlib
import json
import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from grpc_tools import protoc

from cluster import until
from test_kafka import SOON, lag_is_zero

PROTO = Path(__file__).resolve().parent.parent / "records" / "proto"
SECOND = 1_000_000
START = 1_569_888_000 * SECOND


@pytest.fixture(scope="module")
def messages(tmp_path_factory):
    """What protoc makes of the file that we publish."""
    folder = tmp_path_factory.mktemp("proto")
    assert protoc.main(["protoc", f"-I{PROTO}", f"--python_out={folder}", "clickstream/v1/records.proto"]) == 0
    sys.path.insert(0, str(folder))
    yield importlib.import_module("clickstream.v1.records_pb2")
    sys.path.remove(str(folder))


def read_all(kafka, topic):
    """Committed records, from the first to what is the end now."""
    consumer = Consumer({
        "bootstrap.servers": kafka.servers, "group.id": "another-language", "isolation.level": "read_committed",
        "auto.offset.reset": "earliest", "enable.auto.commit": False, "enable.partition.eof": True})
    consumer.subscribe([topic])
    records, ended = [], set()
    partitions = len(consumer.list_topics(topic, 10).topics[topic].partitions)
    while len(ended) < partitions:
        record = consumer.poll(20)
        assert record is not None, f"{topic}: {len(records)} records, and no end"
        if record.error():
            assert record.error().name() == "_PARTITION_EOF", record.error()
            ended.add(record.partition())
        else:
            records.append(record)
    consumer.close()
    return records


def test_our_records_are_read_by_the_proto(on_kafka, kafka, messages, sample):
    on_kafka.run(sample)
    events, kinds = 0, messages.EventType
    for record in read_all(kafka, f"{on_kafka.prefix}events"):
        event = messages.Event.FromString(record.value())
        assert dict(record.headers())["content-type"] == b"application/x-protobuf"
        if event.event_type in (kinds.VIEW, kinds.CART, kinds.PURCHASE):
            events += 1
            # The key, and the place that Java's clients would have chosen for it.
            assert record.key().decode() == (event.user_session or f"user-{event.user_id}")
            assert record.timestamp()[1] == event.event_time_us // 1000
    assert events == 17_434
    steps = [messages.FunnelStep.FromString(r.value()) for r in read_all(kafka, f"{on_kafka.prefix}funnel-steps")]
    assert len(steps) == 12_633
    assert sum(step.stage == messages.STAGE_PURCHASE for step in steps) == 211
    sessions = [messages.Session.FromString(r.value()) for r in read_all(kafka, f"{on_kafka.prefix}sessions")]
    assert sum(session.part == 0 for session in sessions) == 5_067
    assert sum(session.revenue_cents for session in sessions) == 5_944_263


def test_its_events_are_taken_and_what_is_unreadable_stops_nobody(on_kafka, kafka, messages):
    on_kafka.ask("topics", "create", "--partitions", "2")
    parts = [on_kafka.start(name, *flags) for name, flags in (("sessionize", ()), ("lake", SOON), ("marts", ()))]
    topic, kinds = f"{on_kafka.prefix}events", messages.EventType
    producer = Producer({"bootstrap.servers": kafka.servers, "partitioner": "murmur2_random", "enable.idempotence": True})

    def event(row, kind, seconds, session, **more):
        return messages.Event(event_type=kind, source="0000cafe", source_row=row, event_time_us=START + seconds * SECOND,
                              product_id=7, price_cents=199, user_id=3, user_session=session, **more)

    def send(message, key, partition=None, headers=()):
        more = {} if partition is None else {"partition": partition}
        value = message if isinstance(message, bytes) else message.SerializeToString()
        producer.produce(topic, value, key, timestamp=START // 1000, headers=list(headers), **more)

    send(event(0, kinds.VIEW, 0, "s-1"), "s-1")
    send(b"\xff\xff not a message", "s-1")
    send(event(1, kinds.CART, 5, "s-1"), "s-1")
    send(b"<event/>", "s-2", headers=[("content-type", b"text/xml")])
    as_json = {"eventType": "PURCHASE", "source": "0000cafe", "sourceRow": "2", "eventTimeUs": str(START + 9 * SECOND),
               "productId": "7", "priceCents": "199", "userId": "3", "userSession": "s-1"}
    send(json.dumps(as_json).encode(), "s-1", headers=[("content-type", b"application/json")])
    for partition in range(2):
        send(messages.Event(event_type=kinds.END, source="0000cafe", event_time_us=START + 9 * SECOND), "0000cafe/0", partition)
    assert producer.flush(20) == 0

    for group in ("sessionizer", "marts", "lake"):
        until(f"{group} to be done", lambda group=group: lag_is_zero(on_kafka, group), 180, *parts)
    sessionize, lake, marts = parts
    counts = sessionize.drain()["counts"]
    assert counts == {**counts, "events": 3, "funnel_steps": 3, "sessions": 1, "dead_letters": 2}, counts
    assert lake.drain()["counts"]["unreadable"] == 2
    assert marts.drain()["counts"]["unreadable"] == 2
    letters = [messages.DeadLetter.FromString(r.value()) for r in read_all(kafka, f"{on_kafka.prefix}dead-letters")]
    assert sorted(letter.payload for letter in letters) == [b"<event/>", b"\xff\xff not a message"]
    assert all(letter.topic == topic and letter.reason for letter in letters)
    session = messages.Session.FromString(read_all(kafka, f"{on_kafka.prefix}sessions")[0].value())
    assert (session.views, session.carts, session.purchases, session.revenue_cents) == (1, 1, 1, 199)
    # Read again, from their positions: nothing is dead-lettered twice.
    again = on_kafka.start("sessionize")
    until("it reads", lambda: lag_is_zero(on_kafka, "sessionizer"), 180, again)
    again.drain()
    assert len(read_all(kafka, f"{on_kafka.prefix}dead-letters")) == 2
