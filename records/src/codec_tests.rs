//! Round trips of both forms, and what is tolerated or refused.
use super::*;
use crate::*;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z.]{1,20}", any::<String>()]
}

prop_compose! {
    fn feed()(source in any::<u32>(), shard in any::<u32>()) -> Feed {
        Feed { source: SourceId(source), shard }
    }
}

fn event_type() -> impl Strategy<Value = EventType> {
    prop_oneof![Just(EventType::View), Just(EventType::Cart), Just(EventType::Purchase)]
}

fn stage() -> impl Strategy<Value = Stage> {
    event_type().prop_map(Stage::from)
}

fn format() -> impl Strategy<Value = Format> {
    prop_oneof![Just(Format::Protobuf), Just(Format::Json)]
}

fn round_trip<'a, M>(message: &M, format: Format, decoder: &'a mut Decoder, bytes: &'a mut Vec<u8>) -> M
where
    M: Message<'a>,
    <M::View as MessageView<'a>>::Owned: serde::de::DeserializeOwned,
{
    message.encode(format, bytes);
    decoder.decode(Some(format.content_type().as_bytes()), bytes).expect("it was written here")
}

fn both_ways<'a, M>(bytes: &'a [u8]) -> Result<(), TestCaseError>
where
    M: Message<'a> + PartialEq + std::fmt::Debug,
    <M::View as MessageView<'a>>::Owned: serde::de::DeserializeOwned,
{
    let quick = in_order::read(bytes, M::in_order).map(M::from_view);
    let malformed = |e: buffa::DecodeError| DecodeError::Malformed { message: M::NAME, why: e.to_string() };
    let long = M::View::decode_view(bytes).map_err(malformed).and_then(M::from_view);
    if let Some(quick) = quick {
        prop_assert_eq!(quick, long);
    }
    Ok(())
}

proptest! {
    #[test]
    fn events_round_trip(
        format in format(), feed in feed(), us in any::<i64>(), row in any::<u64>(), copy in any::<u32>(),
        event_type in event_type(), product_id in any::<i64>(), category_id in any::<Option<i64>>(),
        (code, brand, session) in (text(), text(), text()),
        price in 0..=Cents::MAX_PRICE.0, user_id in any::<i64>(), kind in 0..3,
    ) {
        let mark = Mark { feed, clock: EventTime(us) };
        let record = match kind {
            0 => EventsRecord::Watermark(mark),
            1 => EventsRecord::End(mark),
            _ => EventsRecord::Event(ShopEvent {
                feed, time: EventTime(us), source_row: row, copy, event_type, product_id, category_id,
                category_code: &code, brand: &brand, price: Cents(price), user_id, user_session: &session,
            }),
        };
        let (mut decoder, mut bytes) = (Decoder::new(), Vec::new());
        prop_assert_eq!(round_trip(&record, format, &mut decoder, &mut bytes), record);
    }

    #[test]
    fn steps_round_trip(
        format in format(), source in any::<u32>(), (id, code, brand) in (text(), text(), text()),
        (user_id, product_id) in any::<(i64, i64)>(), stage in stage(), (a, b, c) in any::<(i64, i64, i64)>(),
        category_id in any::<Option<i64>>(), price in any::<i64>(), flags in any::<(bool, bool, bool)>(),
    ) {
        let record = FunnelStep {
            source: SourceId(source), session_id: &id, user_id, product_id, stage, step_time: EventTime(a),
            category_id, category_code: &code, brand: &brand, price: Cents(price), first_touch_time: EventTime(b),
            after_view: flags.0, after_cart: flags.1, opens_session: flags.2, session_start: EventTime(c),
        };
        let (mut decoder, mut bytes) = (Decoder::new(), Vec::new());
        prop_assert_eq!(round_trip(&record, format, &mut decoder, &mut bytes), record);
    }

    #[test]
    fn sessions_round_trip(
        format in format(), source in any::<u32>(), (id, entry, exit) in (text(), text(), text()),
        counts in any::<[u32; 8]>(), (user_id, a, b, revenue) in any::<(i64, i64, i64, i64)>(),
        furthest_stage in stage(), last_event_type in event_type(),
        left in prop::collection::vec((any::<i64>(), text(), text(), any::<i64>()), 0..4),
    ) {
        let left_in_cart = left.iter().map(|(product_id, code, brand, value)| LeftInCart {
            product_id: *product_id, category_code: code, brand, value: Cents(*value),
        });
        let record = Session {
            source: SourceId(source), session_id: &id, part: counts[0], user_id, users: counts[1],
            start: EventTime(a), end: EventTime(b), views: counts[2], carts: counts[3], purchases: counts[4],
            products_viewed: counts[5], products_carted: counts[6], products_purchased: counts[7],
            revenue: Cents(revenue), furthest_stage, entry_category_code: &entry, exit_category_code: &exit,
            last_event_type, left_in_cart: left_in_cart.collect(),
        };
        let (mut decoder, mut bytes) = (Decoder::new(), Vec::new());
        prop_assert_eq!(round_trip(&record, format, &mut decoder, &mut bytes), record.clone());
    }

    /// A record that was changed anywhere is read as buffa reads it, or refused with its words.
    #[test]
    fn the_quick_way_reads_what_the_long_way_does(
        feed in feed(), (us, product_id, user_id) in any::<(i64, i64, i64)>(), (row, copy) in any::<(u64, u32)>(),
        category_id in any::<Option<i64>>(), (code, brand, session) in (text(), text(), text()), flags in any::<(bool, bool)>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4), 0..4),
    ) {
        let event = EventsRecord::Event(ShopEvent {
            feed, time: EventTime(us), source_row: row, copy, event_type: EventType::Cart, product_id, category_id,
            category_code: &code, brand: &brand, price: Cents(7), user_id, user_session: &session,
        });
        let step = FunnelStep {
            source: feed.source, session_id: &session, user_id, product_id, stage: Stage::Cart, step_time: EventTime(us),
            category_id, category_code: &code, brand: &brand, price: Cents(us), first_touch_time: EventTime(user_id),
            after_view: flags.0, after_cart: flags.1, opens_session: true, session_start: EventTime(product_id),
        };
        let closed = Session {
            source: feed.source, session_id: &session, part: copy, user_id, users: copy, start: EventTime(us),
            end: EventTime(us), views: copy, carts: 0, purchases: 1, products_viewed: copy, products_carted: 0,
            products_purchased: 1, revenue: Cents(us), furthest_stage: Stage::Purchase, entry_category_code: &code,
            exit_category_code: &brand, last_event_type: EventType::Purchase, left_in_cart: Vec::new(),
        };
        let quick = |bytes: &[u8]| (
            in_order::read(bytes, EventsRecord::in_order).is_some(),
            in_order::read(bytes, FunnelStep::in_order).is_some(),
            in_order::read(bytes, Session::in_order).is_some(),
        );
        let written = |encode: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = Vec::new();
            encode(&mut bytes);
            bytes
        };
        let mut records = [
            written(&|out| event.encode(Format::Protobuf, out)),
            written(&|out| step.encode(Format::Protobuf, out)),
            written(&|out| closed.encode(Format::Protobuf, out)),
        ];
        let [of_events, of_steps, of_sessions] = records.each_ref().map(|bytes| quick(bytes));
        prop_assert!(of_events.0 && of_steps.1 && of_sessions.2, "what was written here is read the quick way");
        for bytes in &mut records {
            for (at, byte, how) in &changes {
                let at = at.index(bytes.len() + 1);
                match how {
                    0 if at < bytes.len() => bytes[at] = *byte,
                    1 if at < bytes.len() => drop(bytes.remove(at)),
                    2 => bytes.truncate(at),
                    _ => bytes.insert(at, *byte),
                }
            }
            both_ways::<EventsRecord<'_>>(bytes)?;
            both_ways::<FunnelStep<'_>>(bytes)?;
            both_ways::<Session<'_>>(bytes)?;
        }
    }

    /// Whatever the bytes, an answer and no panic.
    #[test]
    fn any_bytes_are_read_or_refused(format in format(), bytes in any::<Vec<u8>>()) {
        let content_type = Some(format.content_type().as_bytes());
        let mut decoder = Decoder::new();
        let _ = decoder.decode::<EventsRecord>(content_type, &bytes);
        let _ = decoder.decode::<FunnelStep>(content_type, &bytes);
        let _ = decoder.decode::<Session>(content_type, &bytes);
        both_ways::<EventsRecord<'_>>(&bytes)?;
    }
}

fn watermark() -> (EventsRecord<'static>, Vec<u8>) {
    let feed = Feed { source: SourceId(0xab), shard: 1 };
    let record = EventsRecord::Watermark(Mark { feed, clock: EventTime(5) });
    let mut bytes = Vec::new();
    record.encode(Format::Protobuf, &mut bytes);
    (record, bytes)
}

#[test]
fn unknown_fields_are_tolerated() {
    let (record, mut bytes) = watermark();
    // Field 1000, length-delimited, 2 bytes.
    bytes.extend_from_slice(&[0xc2, 0x3e, 2, 1, 2]);
    assert_eq!(Decoder::new().decode::<EventsRecord>(None, &bytes), Ok(record));
    let json = br#"{"eventType":"WATERMARK","source":"000000ab","shard":1,"eventTimeUs":"5","later":[1]}"#;
    assert_eq!(Decoder::new().decode::<EventsRecord>(Some(b"application/json"), json), Ok(record));
}

#[test]
fn what_protobuf_allows_besides_is_read_the_long_way() {
    let (record, bytes) = watermark();
    // Event type 4 and source `000000ab` come first, two bytes and ten; then shard 1 and time 5.
    let (head, tail) = bytes.split_at(12);
    let source = &head[2..];
    for (case, value) in [
        ("as written", bytes.clone()),
        ("out of order", [tail, head].concat()),
        ("the last of two counts", [&[0x18, 9][..], head, tail].concat()),
        ("a varint longer than it need be", [&[0x08, 0x84, 0x00][..], source, tail].concat()),
        ("bits that an enum has no room for", [&[0x08, 0x84, 0x80, 0x80, 0x80, 0x10][..], source, tail].concat()),
        ("a default that is written", [head, tail, &[0x28, 0]].concat()),
    ] {
        assert_eq!(Decoder::new().decode::<EventsRecord>(None, &value), Ok(record), "{case}");
    }
}

#[test]
fn the_tenth_byte_of_a_number_is_read_as_buffa_reads_it() -> Result<(), TestCaseError> {
    let (_, bytes) = watermark();
    for last in [0, 1, 2, 0x7f, 0x80] {
        // In place of the time, whose number and value are the last two bytes.
        let time = [&[0x20, 0x85][..], &[0x80; 8], &[last]].concat();
        both_ways::<EventsRecord<'_>>(&[&bytes[..bytes.len() - 2], &time].concat())?;
    }
    Ok(())
}

#[test]
fn what_cannot_be_read_says_why() {
    let (_, bytes) = watermark();
    let json: &[u8] = b"application/json";
    for (content_type, value, expected) in [
        (Some(&b"text/csv"[..]), &bytes[..], "content-type says \"text/csv\""),
        (None, &bytes[..bytes.len() - 1], "is not a Event"),
        (None, &b""[..], "source is wrong: a source is 8 hex digits"),
        (Some(json), b"{", "is not a Event"),
        (Some(json), br#"{"eventType":"VIEW","source":"x"}"#, "source is wrong"),
        (Some(json), br#"{"source":"000000ab"}"#, "event_type is wrong: it must be set"),
        (Some(json), br#"{"eventType":77,"source":"000000ab"}"#, "event_type is wrong: 77"),
        (Some(json), br#"{"eventType":"VIEW","source":"000000ab","priceCents":"-1"}"#, "price_cents is wrong"),
    ] {
        let mut decoder = Decoder::new();
        let error = decoder.decode::<EventsRecord>(content_type, value).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    }
}

#[test]
fn any_topic_is_shown_as_json() {
    let (_, bytes) = watermark();
    let shown = to_json("events", b"000000ab/1", None, &bytes).expect("it is one of ours");
    assert_eq!(
        shown,
        serde_json::json!({ "eventType": "WATERMARK", "source": "000000ab", "shard": 1, "eventTimeUs": "5" })
    );
    let json = shown.to_string();
    assert_eq!(to_json("events", b"", Some(b"application/json"), json.as_bytes()), Ok(shown));
    assert!(to_json("events", b"", None, b"\xff").is_err());
    assert!(to_json("orders", b"", None, b"").is_err());
}
