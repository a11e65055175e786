//! The rules as a table, and two properties: a crash changes nothing, and within the allowed
//! lateness the outputs are those of a batch, which is written down here a second time, plainly.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use broker::{Incarnation, Offset};
use proptest::prelude::*;
use records::{Cents, EventTime, EventType, EventsRecord, Feed, FunnelStep, Mark, Session, ShopEvent, SourceId, Stage};

use super::*;
use crate::Metadata;

/// What came out, as text.
#[derive(Clone, Debug, Default, PartialEq)]
struct Outputs {
    lines: Vec<String>,
    late: usize,
}

impl Sink for Outputs {
    fn step(&mut self, key: &str, step: &FunnelStep<'_>) {
        self.lines.push(format!("{key} {step:?}"));
    }
    fn session(&mut self, key: &str, session: &Session<'_>) {
        self.lines.push(format!("{key} {session:?}"));
    }
    fn late(&mut self) {
        self.late += 1;
    }
    fn ended(&mut self, feed: Feed) {
        self.lines.push(format!("end of {feed}"));
    }
}

/// A record in small numbers: times in seconds.
#[derive(Clone, Debug)]
enum Input {
    Event { feed: u32, time: i64, key: u8, user: i64, product: i64, event_type: EventType, variant: u8 },
    Watermark { feed: u32, clock: i64 },
    End { feed: u32 },
}

const CODES: [&str; 3] = ["", "electronics.smartphone", "computers.notebook"];
const BRANDS: [&str; 3] = ["nan", "", "apple"];
/// An empty one is keyed by its user.
const KEYS: [&str; 4] = ["s1", "s2", "", "user-1"];

fn feed(n: u32) -> Feed {
    Feed { source: SourceId(0xab), shard: n }
}

fn record(input: &Input) -> EventsRecord<'static> {
    match *input {
        Input::Watermark { feed: n, clock } => {
            EventsRecord::Watermark(Mark { feed: feed(n), clock: EventTime::from_seconds(clock) })
        }
        Input::End { feed: n } => EventsRecord::End(Mark { feed: feed(n), clock: EventTime(0) }),
        Input::Event { feed: n, time, key, user, product, event_type, variant } => EventsRecord::Event(ShopEvent {
            feed: feed(n),
            time: EventTime::from_seconds(time),
            source_row: 0,
            copy: 0,
            event_type,
            product_id: product,
            category_id: (variant > 0).then_some(i64::from(variant)),
            category_code: CODES[usize::from(variant) % 3],
            brand: BRANDS[usize::from(variant) / 3 % 3],
            price: Cents(100 + i64::from(variant)),
            user_id: user,
            user_session: KEYS[usize::from(key) % 4],
        }),
    }
}

fn rules(gap: Option<u64>, lateness: u64) -> Rules {
    let gap = gap.map_or(Gap::None, |gap| Gap::After(Duration::from_secs(gap)));
    Rules { gap, allowed_lateness: Duration::from_secs(lateness) }
}

fn run(rules: Rules, inputs: &[Input]) -> Outputs {
    let (mut partition, mut out) = (Partition::new(rules), Outputs::default());
    for (offset, input) in (0..).zip(inputs) {
        partition.apply(Offset(offset), &record(input), &mut out);
    }
    out
}

/// Batches of these sizes, a commit after each; before those that say so, a crash in the middle
/// of the batch: everything is dropped, and made again from the commit's metadata and the log.
fn run_with_crashes(rules: Rules, inputs: &[Input], batches: &[(usize, bool)]) -> Outputs {
    let mut log = Vec::new();
    for (offset, input) in (0..).zip(inputs) {
        log.push((Offset(offset), record(input)));
    }
    let mut partition = Partition::new(rules);
    let mut metadata = String::new();
    let (mut out, mut committed) = (Outputs::default(), 0);
    for (size, crash) in batches.iter().copied().chain([(usize::MAX, true)]) {
        let end = committed + size.min(log.len() - committed);
        if crash && committed > 0 {
            for (offset, record) in &log[committed..end] {
                partition.apply(*offset, record, &mut Outputs::default());
            }
            let read = Metadata::decode(&metadata).unwrap();
            partition = Partition::resume(rules, &read.feeds);
            let from = usize::try_from(read.keep_from(log[..committed].last().unwrap().0).0).unwrap();
            for (offset, record) in &log[from..committed] {
                partition.replay(*offset, record);
            }
        }
        for (offset, record) in &log[committed..end] {
            partition.apply(*offset, record, &mut out);
        }
        committed = end;
        let feeds = partition.positions(Offset(i64::try_from(committed).unwrap()));
        let incarnation = Incarnation("log".into());
        metadata = Metadata { incarnation, rules, partitions: 1, feeds }.encode().unwrap();
    }
    out
}

/// The batch: of one feed at a time and key at a time, in the order of publication.
fn batch(rules: Rules, inputs: &[Input]) -> Vec<String> {
    let mut by_key: BTreeMap<(Feed, String), Vec<ShopEvent<'static>>> = BTreeMap::new();
    let mut ended = BTreeSet::new();
    for input in inputs {
        match record(input) {
            EventsRecord::Event(e) => {
                by_key.entry((e.feed, e.session_key().to_string())).or_default().push(e);
            }
            EventsRecord::End(mark) => drop(ended.insert(mark.feed)),
            EventsRecord::Watermark(_) => {}
        }
    }
    let mut lines: Vec<String> = ended.iter().map(|feed| format!("end of {feed}")).collect();
    for ((_, key), events) in by_key {
        let mut sessions: Vec<Vec<ShopEvent<'static>>> = Vec::new();
        for event in events {
            let greatest = sessions.last().map(|session| session.iter().map(|e| e.time.0).max().unwrap());
            match (greatest, rules.gap) {
                (Some(last), Gap::After(gap)) if event.time.0 - last <= i64::try_from(gap.as_micros()).unwrap() => {
                    sessions.last_mut().unwrap().push(event);
                }
                (Some(_), Gap::None) => sessions.last_mut().unwrap().push(event),
                _ => sessions.push(vec![event]),
            }
        }
        for session in &sessions {
            batch_session(&key, session, &mut lines);
        }
    }
    lines.sort();
    lines
}

fn batch_session(key: &str, events: &[ShopEvent<'static>], lines: &mut Vec<String>) {
    let first = events[0];
    let id = format!("{}:{key}@{}", first.feed.source, first.time.0 / 1_000_000);
    let of = |product: i64, t: EventType| events.iter().position(move |e| e.product_id == product && e.event_type == t);
    let mut products: Vec<i64> = Vec::new();
    for (i, e) in events.iter().enumerate() {
        if !products.contains(&e.product_id) {
            products.push(e.product_id);
        }
        if of(e.product_id, e.event_type) != Some(i) {
            continue;
        }
        let touch = events.iter().find(|t| t.product_id == e.product_id).unwrap();
        let step = FunnelStep {
            source: e.feed.source,
            session_id: &id,
            user_id: e.user_id,
            product_id: e.product_id,
            stage: e.event_type.into(),
            step_time: e.time,
            category_id: touch.category_id,
            category_code: touch.category_code,
            brand: touch.brand,
            price: touch.price,
            first_touch_time: touch.time,
            after_view: of(e.product_id, EventType::View).is_some_and(|at| at < i),
            after_cart: of(e.product_id, EventType::Cart).is_some_and(|at| at < i),
            opens_session: i == 0,
            session_start: first.time,
        };
        lines.push(format!("{key} {step:?}"));
    }
    let count = |t| u32::try_from(events.iter().filter(|e| e.event_type == t).count()).unwrap();
    let reached = |t| u32::try_from(products.iter().filter(|p| of(**p, t).is_some()).count()).unwrap();
    let left = products.iter().filter(|p| of(**p, EventType::Cart).is_some() && of(**p, EventType::Purchase).is_none());
    let session = Session {
        source: first.feed.source,
        session_id: &id,
        part: 0,
        user_id: first.user_id,
        users: u32::try_from(events.iter().map(|e| e.user_id).collect::<BTreeSet<_>>().len()).unwrap(),
        start: first.time,
        end: events.iter().map(|e| e.time).max().unwrap(),
        views: count(EventType::View),
        carts: count(EventType::Cart),
        purchases: count(EventType::Purchase),
        products_viewed: reached(EventType::View),
        products_carted: reached(EventType::Cart),
        products_purchased: reached(EventType::Purchase),
        revenue: events.iter().filter(|e| e.event_type == EventType::Purchase).map(|e| e.price).sum(),
        furthest_stage: events.iter().map(|e| Stage::from(e.event_type)).max().unwrap(),
        entry_category_code: first.category_code,
        exit_category_code: events.last().unwrap().category_code,
        last_event_type: events.last().unwrap().event_type,
        left_in_cart: left
            .map(|p| events.iter().find(|e| e.product_id == *p).unwrap())
            .map(|e| records::LeftInCart {
                product_id: e.product_id,
                category_code: e.category_code,
                brand: e.brand,
                value: e.price,
            })
            .collect(),
    };
    lines.push(format!("{key} {session:?}"));
}

fn event_type() -> impl Strategy<Value = EventType> {
    prop_oneof![3 => Just(EventType::View), 1 => Just(EventType::Cart), 1 => Just(EventType::Purchase)]
}

/// Rows of several feeds, whose times go forward by 0 to 12 s, and back by as much as `disorder`;
/// now and then a watermark (what was published so far) or an end. After an end a feed may go on.
fn inputs(disorder: i64, ends: u32) -> impl Strategy<Value = Vec<Input>> {
    let one = (0..40_u32, 0..3_u32, 0..=12_i64, 0..=disorder, 0..4_u8, 1..3_i64, 1..5_i64, event_type(), 0..9_u8);
    prop::collection::vec(one, 1..160).prop_map(move |rows| {
        let mut clocks = [1000_i64; 3];
        let made = rows.into_iter().map(|(kind, feed, forward, back, key, user, product, event_type, variant)| {
            let clock = &mut clocks[feed as usize];
            match kind {
                // A silence that no session outlasts, unless the next events are as old again.
                0 => {
                    *clock += 60;
                    Input::Watermark { feed, clock: *clock - 60 }
                }
                1..=3 => Input::Watermark { feed, clock: *clock },
                n if n >= 40 - ends => Input::End { feed },
                _ => {
                    let time = *clock + forward - back;
                    *clock = (*clock).max(time);
                    Input::Event { feed, time, key, user, product, event_type, variant }
                }
            }
        });
        made.collect()
    })
}

fn some_rules() -> impl Strategy<Value = Rules> {
    (prop::option::weighted(0.9, 0_u64..30), 0_u64..20).prop_map(|(gap, lateness)| rules(gap, lateness))
}

fn with_ends(mut inputs: Vec<Input>) -> Vec<Input> {
    inputs.extend((0..3).map(|feed| Input::End { feed }));
    inputs
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Disorder within and beyond the lateness, several feeds, ends in the middle: dropping all
    /// state anywhere, and rebuilding it from metadata and log, changes no output, nor its order.
    #[test]
    fn crashes_change_nothing(
        rules in some_rules(), inputs in inputs(60, 1),
        batches in prop::collection::vec((0..30_usize, any::<bool>()), 0..24),
    ) {
        let inputs = with_ends(inputs);
        prop_assert_eq!(run_with_crashes(rules, &inputs, &batches), run(rules, &inputs));
    }

    /// Where nothing was late (and so wherever disorder is within the lateness) it is the batch.
    #[test]
    fn without_late_events_it_is_the_batch(
        rules in some_rules(), disorder in 0..60_i64, seed in inputs(60, 0),
    ) {
        // The same rows with less disorder.
        let mut clocks = [i64::MIN; 3];
        let mut inputs = seed;
        for input in &mut inputs {
            let (Input::Event { feed, time, .. } | Input::Watermark { feed, clock: time }) = input else { continue };
            let clock = &mut clocks[*feed as usize];
            *time = (*time).max(clock.saturating_sub(disorder));
            *clock = (*clock).max(*time);
        }
        let inputs = with_ends(inputs);
        let out = run(rules, &inputs);
        let lateness = i64::try_from(rules.allowed_lateness.as_secs()).unwrap();
        prop_assert!(out.late == 0 || disorder > lateness);
        if out.late == 0 {
            let mut lines = out.lines;
            lines.sort();
            prop_assert_eq!(lines, batch(rules, &inputs));
        }
    }
}

fn view(time: i64, product: i64) -> Input {
    Input::Event { feed: 0, time, key: 0, user: 1, product, event_type: EventType::View, variant: 1 }
}

/// Sessions as `start-end:events`, in the order in which they close, and the number of late events.
fn check(rules: Rules, inputs: &[Input], expected: &str) {
    #[derive(Default)]
    struct Summary(Vec<String>, usize);
    impl Sink for Summary {
        fn step(&mut self, _: &str, _: &FunnelStep<'_>) {}
        fn session(&mut self, _: &str, s: &Session<'_>) {
            self.0.push(format!("{}-{}:{}", s.start.seconds(), s.end.seconds(), s.views));
        }
        fn late(&mut self) {
            self.1 += 1;
        }
        fn ended(&mut self, _: Feed) {
            self.0.push("end".into());
        }
    }
    let (mut partition, mut out) = (Partition::new(rules), Summary::default());
    for (offset, input) in (0..).zip(inputs) {
        partition.apply(Offset(offset), &record(input), &mut out);
    }
    let late = if out.1 > 0 { format!(" late {}", out.1) } else { String::new() };
    assert_eq!(format!("{}{late}", out.0.join(" ")), expected, "{rules:?} {inputs:?}");
}

#[test]
fn the_rules() {
    use Input::{End, Watermark};
    let end = || End { feed: 0 };
    let mark = |clock| Watermark { feed: 0, clock };
    let ten = rules(Some(10), 0);
    check(ten, &[view(0, 1), view(10, 1), end()], "0-10:2 end");
    check(ten, &[view(0, 1), view(11, 1)], "0-0:1");
    check(ten, &[view(0, 1), mark(10), view(10, 1)], "");
    check(ten, &[view(0, 1), mark(11)], "0-0:1");
    // An older event joins, and moves nothing back.
    check(ten, &[view(5, 1), view(0, 1), view(15, 1), end()], "5-15:3 end");
    // Closed, and then one that belonged to it: a session of its own, which the next move closes.
    check(ten, &[view(0, 1), mark(11), view(5, 1), mark(16)], "0-0:1 5-5:1 late 1");
    // The same within the allowed lateness.
    let late = rules(Some(10), 6);
    check(late, &[view(0, 1), mark(11), view(5, 1), mark(16), end()], "0-5:2 end");
    check(late, &[view(0, 1), mark(16), mark(17)], "0-0:1");
    // Still open, but too long a pause: split at the event.
    check(late, &[view(0, 1), view(11, 1), end()], "0-0:1 11-11:1 end");
    // By the greatest time so far, not the last one.
    check(late, &[view(8, 1), view(4, 1), view(18, 1), end()], "8-18:3 end");
    // A late event that nothing precedes is counted too: what was there is forgotten.
    check(ten, &[mark(50), view(0, 1)], " late 1");
    // Another feed's clock does nothing here.
    check(ten, &[view(0, 1), Watermark { feed: 1, clock: 99 }, view(9, 1), end()], "0-9:2 end");
    check(rules(None, 0), &[view(0, 1), view(9999, 1), view(3, 2), end()], "0-9999:3 end");
    check(ten, &[end()], "end");
    // Times at the limits of what a record can say.
    let far = i64::MAX / 1_000_000;
    check(late, &[view(-far, 1), view(far, 1), view(far, 1), end()], &format!("-{far}--{far}:1 {far}-{far}:2 end"));
}

/// A bot's session of 34,570 events, all carts of different products: one summary in parts, each
/// of bounded size, that together name every product once.
#[test]
fn a_bot_is_summed_up_in_parts() {
    #[derive(Default)]
    struct Parts(Vec<(u32, u32, usize, usize)>, Vec<i64>, usize);
    impl Sink for Parts {
        fn step(&mut self, _: &str, _: &FunnelStep<'_>) {
            self.2 += 1;
        }
        fn session(&mut self, _: &str, s: &Session<'_>) {
            use records::Message;
            assert_eq!((s.start, s.end), (EventTime(0), EventTime::from_seconds(34_569)));
            for format in [records::Format::Protobuf, records::Format::Json] {
                let mut bytes = Vec::new();
                s.encode(format, &mut bytes);
                assert!(bytes.len() < 300 << 10, "{} bytes", bytes.len());
                assert_eq!(
                    records::Decoder::new().decode::<Session>(Some(format.content_type().as_bytes()), &bytes),
                    Ok(s.clone())
                );
            }
            self.0.push((s.part, s.carts, s.left_in_cart.len(), s.session_id.len()));
            self.1.extend(s.left_in_cart.iter().map(|left| left.product_id));
        }
        fn late(&mut self) {}
        fn ended(&mut self, _: Feed) {}
    }
    let (mut partition, mut out) = (Partition::new(Rules::default()), Parts::default());
    for n in 0..34_570 {
        let event = Input::Event {
            feed: 0,
            time: n,
            key: 0,
            user: 1,
            product: n,
            event_type: EventType::Cart,
            variant: u8::try_from(n % 9).unwrap(),
        };
        partition.apply(Offset(n), &record(&event), &mut out);
    }
    partition.apply(Offset(34_570), &record(&Input::End { feed: 0 }), &mut out);
    assert_eq!(out.2, 34_570);
    assert_eq!(out.1, (0..34_570).collect::<Vec<_>>());
    assert!(out.0.len() > 10, "{:?}", out.0);
    for (n, (part, carts, _, _)) in out.0.iter().enumerate() {
        assert_eq!((*part as usize, *carts), (n, if n == 0 { 34_570 } else { 0 }));
    }
    assert_eq!(partition.open_sessions(), 0);
}

/// Memory goes with the sessions that are open: a long one does not keep what closed behind it.
#[test]
fn closed_sessions_leave_nothing_behind() {
    let (mut partition, mut out) = (Partition::new(rules(Some(10), 0)), Outputs::default());
    for n in 0..20_000_i64 {
        for (key, time) in [(0, n * 5), (1, n * 20)] {
            let input =
                Input::Event { feed: key, time, key: 0, user: 1, product: 1, event_type: EventType::View, variant: 1 };
            partition.apply(Offset(n * 2 + i64::from(key)), &record(&input), &mut out);
        }
        out.lines.clear();
    }
    assert_eq!(partition.open_sessions(), 2);
    assert_eq!(
        partition.positions(Offset(40_000)),
        vec![
            FeedPosition { feed: feed(0), offset: Offset(0), clock: EventTime(i64::MIN) },
            FeedPosition { feed: feed(1), offset: Offset(39_999), clock: EventTime::from_seconds(19_998 * 20) },
        ]
    );
}
