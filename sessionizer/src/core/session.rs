//! One open session: what it has seen so far, and its summary when it closes.
use broker::Offset;
use foldhash::fast::FixedState;
use hashbrown::HashSet;
use records::{Cents, EventTime, EventType, FunnelStep, LeftInCart, Session, ShopEvent, SourceId, Stage};
use smallvec::SmallVec;

use super::Sink;
use super::products::{Product, Products, Reached};

/// About how much of a record may be products left in the cart, in bytes.
const PART_BYTES: usize = 256 << 10;
/// What one such product takes beside its strings, in the larger of the two forms (JSON).
const LEFT_BYTES: usize = 112;
/// So much of a session's text stands in the session itself: the id, a category code and a brand.
/// An open session is seldom touched, and every allocation apart would be one more wait for memory.
const INLINE_TEXT_BYTES: usize = 120;
/// `<source>:`
const KEY_AT: usize = 9;

/// A slot's session; `first_offset` is [`FREE`] where there is none.
#[derive(Debug)]
pub(super) struct OpenSession {
    pub(super) hash: u64,
    /// The greatest time so far.
    pub(super) last: EventTime,
    pub(super) first_offset: Offset,
    /// The feed's clock just before `first_offset`.
    pub(super) clock_before: EventTime,
    start: EventTime,
    user_id: i64,
    /// All of its users, where there are several.
    users: Option<Box<HashSet<i64, FixedState>>>,
    views: u32,
    carts: u32,
    purchases: u32,
    revenue: Cents,
    last_event_type: EventType,
    exit: Exit,
    products: Products,
    /// The session's id (with the key in it), then the products' strings: each of them UTF-8.
    text: Text,
    key_end: usize,
    id_end: usize,
}

type Text = SmallVec<[u8; INLINE_TEXT_BYTES]>;

/// The category code of the last event.
#[derive(Debug)]
enum Exit {
    /// As this product had it at first touch.
    Product(usize),
    Other(Box<str>),
}

/// The first offset of a slot without a session.
pub(super) const FREE: Offset = Offset(-1);

impl OpenSession {
    pub(super) fn free() -> Self {
        Self {
            hash: 0,
            last: EventTime(0),
            first_offset: FREE,
            clock_before: EventTime(0),
            start: EventTime(0),
            user_id: 0,
            users: None,
            views: 0,
            carts: 0,
            purchases: 0,
            revenue: Cents(0),
            last_event_type: EventType::View,
            exit: Exit::Product(0),
            products: Products::default(),
            text: Text::new(),
            key_end: 0,
            id_end: 0,
        }
    }

    /// Begins a session in a free slot. Its first event is still to be `add`ed.
    pub(super) fn open(
        &mut self,
        key: &str,
        hash: u64,
        offset: Offset,
        clock_before: EventTime,
        event: &ShopEvent<'_>,
    ) {
        self.hash = hash;
        self.first_offset = offset;
        self.clock_before = clock_before;
        (self.start, self.last) = (event.time, event.time);
        self.user_id = event.user_id;
        (self.views, self.carts, self.purchases, self.revenue) = (0, 0, 0, Cents(0));
        self.text.extend_from_slice(&event.feed.source.digits());
        self.text.push(b':');
        self.text.extend_from_slice(key.as_bytes());
        self.key_end = self.text.len();
        self.text.push(b'@');
        push_decimal(&mut self.text, event.time.seconds());
        self.id_end = self.text.len();
    }

    pub(super) fn key(&self) -> &[u8] {
        self.text.get(KEY_AT..self.key_end).unwrap_or_default()
    }

    /// Its id, and the key within.
    fn id_and_key(&self) -> (&str, &str) {
        let id = text(&self.text, 0, self.id_end);
        (id, id.get(KEY_AT..self.key_end).unwrap_or_default())
    }

    /// Takes in an event of this session.
    pub(super) fn add(&mut self, event: &ShopEvent<'_>, sink: &mut impl Sink) {
        let opens_session = self.products.list().is_empty();
        self.last = self.last.max(event.time);
        self.last_event_type = event.event_type;
        if event.user_id != self.user_id || self.users.is_some() {
            let first = self.user_id;
            self.users.get_or_insert_with(|| Box::new(HashSet::from_iter([first]))).insert(event.user_id);
        }
        let count = match event.event_type {
            EventType::View => &mut self.views,
            EventType::Cart => &mut self.carts,
            EventType::Purchase => {
                self.revenue = Cents(self.revenue.0.saturating_add(event.price.0));
                &mut self.purchases
            }
        };
        *count = count.saturating_add(1);

        let at = match self.products.find(event.product_id) {
            Some(at) => at,
            None => self.touch(event),
        };
        let Some(product) = self.products.get_mut(at) else { return };
        let (stage, before) = (Stage::from(event.event_type), product.reached);
        product.reached.add(stage);
        let product = *product;
        let (category_code, brand) = bytes(&self.text, &product);
        if category_code == event.category_code.as_bytes() {
            self.exit = Exit::Product(at);
        } else if !matches!(&self.exit, Exit::Other(code) if **code == *event.category_code) {
            self.exit = Exit::Other(event.category_code.into());
        }
        if before.has(stage) {
            return;
        }
        // Mostly it is the event's own strings, which are known to be UTF-8.
        let (category_code, brand) =
            if category_code == event.category_code.as_bytes() && brand == event.brand.as_bytes() {
                (event.category_code, event.brand)
            } else {
                strings(&self.text, &product)
            };
        let (session_id, key) = self.id_and_key();
        let step = FunnelStep {
            source: event.feed.source,
            session_id,
            user_id: event.user_id,
            product_id: event.product_id,
            stage,
            step_time: event.time,
            category_id: product.category_id,
            category_code,
            brand,
            price: product.price,
            first_touch_time: product.first_touch,
            after_view: before.has(Stage::View),
            after_cart: before.has(Stage::Cart),
            opens_session,
            session_start: self.start,
        };
        sink.step(key, &step);
    }

    /// Remembers a product as it is first seen.
    fn touch(&mut self, event: &ShopEvent<'_>) -> usize {
        // Neighbours often share both strings.
        let shared =
            self.products.list().last().copied().filter(|product| {
                bytes(&self.text, product) == (event.category_code.as_bytes(), event.brand.as_bytes())
            });
        let text_at = shared.map_or(self.text.len(), |product| product.text_at);
        if shared.is_none() {
            self.text.extend_from_slice(event.category_code.as_bytes());
            self.text.extend_from_slice(event.brand.as_bytes());
        }
        // A record is far shorter than 4 GiB: a length that does not fit cannot come up.
        let len = |text: &str| u32::try_from(text.len()).unwrap_or(0);
        self.products.push(Product {
            id: event.product_id,
            category_id: event.category_id,
            price: event.price,
            first_touch: event.time,
            text_at,
            code_len: len(event.category_code),
            brand_len: len(event.brand),
            reached: Reached::default(),
        })
    }

    /// Hands out the summary and frees the slot, with all that it has allocated: kept for the next
    /// session, each slot would come to hold as much as its largest session ever did.
    pub(super) fn close(&mut self, source: SourceId, sink: &mut impl Sink) {
        self.summarise(source, sink);
        self.first_offset = FREE;
        self.users = None;
        self.exit = Exit::Product(0);
        self.products.clear();
        self.text = Text::new();
    }

    fn summarise(&self, source: SourceId, sink: &mut impl Sink) {
        let products = self.products.list();
        let mut reached = [0_u32; 3];
        let mut left = Vec::new();
        for product in products {
            for (stage, count) in Stage::ALL.into_iter().zip(&mut reached) {
                *count = count.saturating_add(u32::from(product.reached.has(stage)));
            }
            if product.reached.has(Stage::Cart) && !product.reached.has(Stage::Purchase) {
                let (category_code, brand) = strings(&self.text, product);
                left.push(LeftInCart { product_id: product.id, category_code, brand, value: product.price });
            }
        }
        let size: usize = left.iter().map(size).sum();
        let further = if size > PART_BYTES { split_off_parts(&mut left) } else { Vec::new() };
        let (session_id, key) = self.id_and_key();
        let entry_category_code = products.first().map_or("", |product| strings(&self.text, product).0);
        let summary = Session {
            source,
            session_id,
            part: 0,
            user_id: self.user_id,
            users: self.users.as_ref().map_or(1, |users| u32::try_from(users.len()).unwrap_or(u32::MAX)),
            start: self.start,
            end: self.last,
            views: self.views,
            carts: self.carts,
            purchases: self.purchases,
            products_viewed: reached[0],
            products_carted: reached[1],
            products_purchased: reached[2],
            revenue: self.revenue,
            furthest_stage: match (self.purchases, self.carts) {
                (1.., _) => Stage::Purchase,
                (0, 1..) => Stage::Cart,
                (0, 0) => Stage::View,
            },
            entry_category_code,
            exit_category_code: match &self.exit {
                Exit::Product(0) => entry_category_code,
                Exit::Product(at) => products.get(*at).map_or("", |product| strings(&self.text, product).0),
                Exit::Other(code) => code,
            },
            last_event_type: self.last_event_type,
            left_in_cart: left,
        };
        sink.session(key, &summary);
        for (part, left_in_cart) in (1..).zip(further) {
            let more = Session {
                part,
                users: 0,
                views: 0,
                carts: 0,
                purchases: 0,
                products_viewed: 0,
                products_carted: 0,
                products_purchased: 0,
                revenue: Cents(0),
                entry_category_code: "",
                exit_category_code: "",
                left_in_cart,
                ..summary
            };
            sink.session(key, &more);
        }
    }
}

/// Category code and brand of a product.
fn strings<'a>(all: &'a [u8], product: &Product) -> (&'a str, &'a str) {
    let code_end = product.text_at + product.code_len as usize;
    (text(all, product.text_at, code_end), text(all, code_end, code_end + product.brand_len as usize))
}

/// The same, unread.
fn bytes<'a>(all: &'a [u8], product: &Product) -> (&'a [u8], &'a [u8]) {
    let code_end = product.text_at + product.code_len as usize;
    let part = |from: usize, to: usize| all.get(from..to).unwrap_or_default();
    (part(product.text_at, code_end), part(code_end, code_end + product.brand_len as usize))
}

/// What was written as a string.
fn text(all: &[u8], from: usize, to: usize) -> &str {
    all.get(from..to).and_then(records::utf8).unwrap_or_default()
}

fn push_decimal(to: &mut Text, n: i64) {
    let mut digits = [0; 20];
    let (mut rest, mut at) = (n.unsigned_abs(), digits.len());
    while at > 0 {
        at -= 1;
        #[allow(clippy::cast_possible_truncation, reason = "below 10")]
        let digit = (rest % 10) as u8;
        digits[at] = b'0' + digit;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if n < 0 {
        to.push(b'-');
    }
    to.extend_from_slice(&digits[at..]);
}

fn size(left: &LeftInCart<'_>) -> usize {
    LEFT_BYTES + left.category_code.len() + left.brand.len()
}

/// Leaves in `left` what one record takes; the rest, a record each.
fn split_off_parts<'a>(left: &mut Vec<LeftInCart<'a>>) -> Vec<Vec<LeftInCart<'a>>> {
    let mut parts = Vec::new();
    let mut bytes = 0;
    for product in std::mem::take(left) {
        let size = size(&product);
        if parts.is_empty() || bytes + size > PART_BYTES {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(part) = parts.last_mut() {
            part.push(product);
        }
    }
    let mut parts = parts.into_iter();
    *left = parts.next().unwrap_or_default();
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_they_are_displayed() {
        for n in [0, 7, -7, 10, 1_569_888_000, i64::MAX, i64::MIN] {
            let mut text = Text::new();
            push_decimal(&mut text, n);
            assert_eq!(text.as_slice(), n.to_string().as_bytes());
        }
    }
}
