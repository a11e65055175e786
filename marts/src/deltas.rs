//! What records add to the marts: sums by key, in memory, between two commits.
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use records::{
    DecodeError, Decoder, EventTime, EventType, EventsRecord, FunnelStep, Session, ShopEvent, Stage, topics,
};

use crate::texts::{TextId, Texts};

/// Commit when this many rows would be written.
const MAX_KEYS: usize = 200_000;
/// Commit when this many records are folded: the counters are 32 bits wide.
const MAX_RECORDS: usize = 4_000_000;
/// Commit when the texts held exceed this.
const MAX_TEXT_BYTES: usize = 16 << 20;

/// Which of the topics a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    Events,
    FunnelSteps,
    Sessions,
}

impl Input {
    pub(crate) const ALL: [Self; 3] = [Self::Events, Self::FunnelSteps, Self::Sessions];

    /// The topic's name, without the prefix.
    pub(crate) const fn topic(self) -> &'static str {
        match self {
            Self::Events => topics::EVENTS,
            Self::FunnelSteps => topics::FUNNEL_STEPS,
            Self::Sessions => topics::SESSIONS,
        }
    }
}

type Map<K, V> = HashMap<K, V, RandomState>;

/// Days since 1970: a day, or the first day of a month.
pub(crate) type Day = i32;
/// Hours since 1970.
pub(crate) type Hour = i64;

/// The sums of the records folded since the last [`clear`](Self::clear).
#[derive(Debug)]
pub(crate) struct Deltas {
    pub(crate) texts: Texts,
    /// By day of first touch, category, brand.
    pub(crate) funnel: Map<(Day, TextId, TextId), Funnel>,
    pub(crate) traffic: Hours,
    /// By month and product.
    pub(crate) products: Map<(Day, i64), Product>,
    /// By day of start and furthest stage.
    pub(crate) sessions: Map<(Day, Stage), Sessions>,
    pub(crate) abandoned: Vec<Abandoned>,
    /// The session ids of `abandoned`, one after another.
    session_ids: String,
    records: usize,
    month: MonthOf,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Funnel {
    pub(crate) viewed: u32,
    pub(crate) carted: u32,
    pub(crate) purchased: u32,
    pub(crate) viewed_then_carted: u32,
    pub(crate) carted_then_purchased: u32,
}

/// Traffic by hour. The hour of the last record is at hand: neighbouring records share it.
#[derive(Debug, Default)]
pub(crate) struct Hours {
    sums: Vec<(Hour, Traffic)>,
    index: Map<Hour, usize>,
    last: usize,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) views: u32,
    pub(crate) carts: u32,
    pub(crate) purchases: u32,
    pub(crate) sessions_started: u32,
    pub(crate) revenue_cents: i64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Product {
    pub(crate) views: u32,
    pub(crate) carts: u32,
    pub(crate) purchases: u32,
    pub(crate) viewed: u32,
    pub(crate) carted: u32,
    pub(crate) purchased: u32,
    pub(crate) revenue_cents: i64,
    /// None while only steps have been folded.
    pub(crate) last: Option<Last>,
    /// Of `last`; before that a guess at the next record's.
    pub(crate) category_code: TextId,
    pub(crate) brand: TextId,
}

/// Which event of a product is the last one: the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Last {
    pub(crate) time_us: i64,
    pub(crate) source: u32,
    pub(crate) row: u64,
    pub(crate) copy: u32,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sessions {
    pub(crate) sessions: u32,
    pub(crate) events: i64,
    pub(crate) duration_seconds: i64,
    pub(crate) revenue_cents: i64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Abandoned {
    session_id: (usize, usize),
    pub(crate) user_id: i64,
    pub(crate) product_id: i64,
    pub(crate) category_code: TextId,
    pub(crate) brand: TextId,
    pub(crate) day: Day,
    pub(crate) value_cents: i64,
}

/// The month of a day, remembered: neighbouring records share it.
#[derive(Debug)]
struct MonthOf {
    day: Day,
    month: Day,
}

impl Deltas {
    pub(crate) fn new() -> Self {
        Self {
            texts: Texts::new(),
            funnel: Map::default(),
            traffic: Hours::default(),
            products: Map::default(),
            sessions: Map::default(),
            abandoned: Vec::new(),
            session_ids: String::new(),
            records: 0,
            month: MonthOf { day: 0, month: 0 },
        }
    }

    /// Adds one record. One that cannot be read adds nothing.
    pub(crate) fn fold(
        &mut self,
        decoder: &mut Decoder,
        input: Input,
        content_type: Option<&[u8]>,
        value: &[u8],
    ) -> Result<(), DecodeError> {
        match input {
            Input::Events => match decoder.decode(content_type, value)? {
                EventsRecord::Event(event) => self.event(&event),
                EventsRecord::Watermark(_) | EventsRecord::End(_) => {}
            },
            Input::FunnelSteps => self.step(&decoder.decode(content_type, value)?),
            Input::Sessions => self.session(&decoder.decode(content_type, value)?),
        }
        self.records += 1;
        Ok(())
    }

    fn event(&mut self, event: &ShopEvent<'_>) {
        let month = self.month.of(day(event.time));
        let product = self.products.entry((month, event.product_id)).or_default();
        let traffic = self.traffic.at(event.time.hour());
        match event.event_type {
            EventType::View => {
                product.views += 1;
                traffic.views += 1;
            }
            EventType::Cart => {
                product.carts += 1;
                traffic.carts += 1;
            }
            EventType::Purchase => {
                product.purchases += 1;
                traffic.purchases += 1;
                product.revenue_cents = product.revenue_cents.saturating_add(event.price.0);
                traffic.revenue_cents = traffic.revenue_cents.saturating_add(event.price.0);
            }
        }
        let this = Last { time_us: event.time.0, source: event.feed.source.0, row: event.source_row, copy: event.copy };
        // None is less than Some.
        if product.last < Some(this) {
            product.last = Some(this);
            product.category_code = self.texts.intern_guessing(product.category_code, event.category_code);
            product.brand = self.texts.intern_guessing(product.brand, event.brand);
        }
    }

    fn step(&mut self, step: &FunnelStep<'_>) {
        let first_touch = day(step.first_touch_time);
        let month = self.month.of(first_touch);
        let product = self.products.entry((month, step.product_id)).or_default();
        let category_code = self.texts.intern_guessing(product.category_code, step.category_code);
        let brand = self.texts.intern_guessing(product.brand, step.brand);
        if product.last.is_none() {
            (product.category_code, product.brand) = (category_code, brand);
        }
        let funnel = self.funnel.entry((first_touch, category_code, brand)).or_default();
        match step.stage {
            Stage::View => {
                product.viewed += 1;
                funnel.viewed += 1;
            }
            Stage::Cart => {
                product.carted += 1;
                funnel.carted += 1;
                funnel.viewed_then_carted += u32::from(step.after_view);
            }
            Stage::Purchase => {
                product.purchased += 1;
                funnel.purchased += 1;
                funnel.carted_then_purchased += u32::from(step.after_cart);
            }
        }
        if step.opens_session {
            self.traffic.at(step.session_start.hour()).sessions_started += 1;
        }
    }

    fn session(&mut self, session: &Session<'_>) {
        let start = day(session.start);
        // Further parts carry ids and products only.
        if session.part == 0 {
            let sums = self.sessions.entry((start, session.furthest_stage)).or_default();
            sums.sessions += 1;
            sums.events += i64::from(session.views) + i64::from(session.carts) + i64::from(session.purchases);
            let duration_us = session.end.0.saturating_sub(session.start.0);
            sums.duration_seconds = sums.duration_seconds.saturating_add(EventTime(duration_us).seconds());
            sums.revenue_cents = sums.revenue_cents.saturating_add(session.revenue.0);
        }
        if session.left_in_cart.is_empty() {
            return;
        }
        let id_start = self.session_ids.len();
        self.session_ids.push_str(session.session_id);
        for left in &session.left_in_cart {
            self.abandoned.push(Abandoned {
                session_id: (id_start, self.session_ids.len()),
                user_id: session.user_id,
                product_id: left.product_id,
                category_code: self.texts.intern(left.category_code),
                brand: self.texts.intern(left.brand),
                day: start,
                value_cents: left.value.0,
            });
        }
    }

    pub(crate) fn session_id(&self, abandoned: &Abandoned) -> &str {
        let (start, end) = abandoned.session_id;
        self.session_ids.get(start..end).unwrap_or_default()
    }

    /// Rows that a commit would write.
    pub(crate) fn keys(&self) -> usize {
        self.funnel.len() + self.traffic.len() + self.products.len() + self.sessions.len() + self.abandoned.len()
    }

    /// Whether it is time to commit, for the sake of memory.
    pub(crate) fn is_full(&self) -> bool {
        self.keys() >= MAX_KEYS
            || self.records >= MAX_RECORDS
            || self.texts.bytes() + self.session_ids.len() >= MAX_TEXT_BYTES
    }

    /// Forgets the sums and keeps the allocations, and the texts while they are few.
    pub(crate) fn clear(&mut self) {
        self.funnel.clear();
        self.traffic.clear();
        self.products.clear();
        self.sessions.clear();
        self.abandoned.clear();
        self.session_ids.clear();
        self.records = 0;
        if self.texts.bytes() >= MAX_TEXT_BYTES / 2 {
            self.texts.clear();
        }
    }
}

impl Hours {
    fn at(&mut self, hour: Hour) -> &mut Traffic {
        if self.sums.get(self.last).is_none_or(|(last, _)| *last != hour) {
            self.last = *self.index.entry(hour).or_insert(self.sums.len());
            if self.last == self.sums.len() {
                self.sums.push((hour, Traffic::default()));
            }
        }
        &mut self.sums[self.last].1
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Hour, Traffic)> {
        self.sums.iter()
    }

    fn len(&self) -> usize {
        self.sums.len()
    }

    fn clear(&mut self) {
        self.sums.clear();
        self.index.clear();
        self.last = 0;
    }
}

impl MonthOf {
    fn of(&mut self, day: Day) -> Day {
        if day != self.day {
            let month = EventTime::from_days(i64::from(day)).month();
            *self = Self { day, month: Day::try_from(month).unwrap_or(day) };
        }
        self.month
    }
}

/// Microseconds in 64 bits are at most some hundred million days.
fn day(time: EventTime) -> Day {
    Day::try_from(time.day()).unwrap_or(0)
}
