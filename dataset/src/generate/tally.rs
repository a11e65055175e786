//! What made rows amount to, counted as they pass. It sees rows and the catalogue's columns, and
//! nothing else of the model. Memory is that of the open sessions, and of each product.
use std::collections::HashMap;

use super::model::Model;
use super::session::Kind;
use super::stream::Row;

/// Seconds by whole seconds; what is longer is counted with the last.
const LONGEST_SECONDS: usize = 100_000;
const LONGEST_SESSION: usize = 50_000;

/// Views, carts, purchases.
pub(super) type Events = [u64; 3];

#[derive(Default)]
pub(super) struct Tally {
    pub(super) rows: u64,
    pub(super) products: Vec<Events>,
    pub(super) days: Vec<Events>,
    pub(super) hours: Vec<Events>,
    /// Sessions by the hour of the day that they begin in.
    pub(super) starts: [u64; 24],
    pub(super) copies: u64,
    pub(super) without_session: u64,
    users: Vec<u64>,
    open: HashMap<u64, Open>,
    /// Of sessions: by number of events, by seconds, and pauses by seconds.
    pub(super) lengths: Vec<u64>,
    pub(super) durations: Vec<u64>,
    pub(super) pauses: Vec<u64>,
    pub(super) sessions: u64,
    pub(super) shared_sessions: u64,
    /// With a cart; with a cart and a purchase; with a purchase; of these, with none of it viewed.
    pub(super) carted: u64,
    pub(super) carted_bought: u64,
    pub(super) bought: u64,
    pub(super) bought_unseen: u64,
    /// Session by product, by brand and by category: viewed, carted after it, bought after a cart.
    pub(super) pairs: HashMap<(u16, u16), [u64; 3]>,
    /// Sums of squares of a session's events, by brand and by category: their variance.
    pub(super) brand_squares: Vec<f64>,
    pub(super) category_squares: Vec<f64>,
}

struct Open {
    first: u32,
    user: u32,
    shared: bool,
    last: Row,
    /// What happened to each product.
    products: Vec<(u32, Events)>,
}

impl Tally {
    pub(super) fn of(model: &Model, rows: impl Iterator<Item = Row>) -> Self {
        let days = usize::try_from(model.calendar.seconds() / 86_400).unwrap_or(31);
        let mut tally = Self {
            products: vec![[0; 3]; model.catalogue.products.len()],
            days: vec![[0; 3]; days],
            hours: vec![[0; 3]; 24],
            lengths: vec![0; LONGEST_SESSION],
            durations: vec![0; LONGEST_SECONDS],
            pauses: vec![0; LONGEST_SECONDS],
            brand_squares: vec![0.0; model.catalogue.brands.len()],
            category_squares: vec![0.0; model.categories()],
            ..Self::default()
        };
        for row in rows {
            tally.add(row, model);
        }
        let open: Vec<Open> = tally.open.drain().map(|(_, open)| open).collect();
        for session in open {
            tally.close(session, model);
        }
        tally
    }

    pub(super) fn users(&self) -> u64 {
        self.users.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    fn add(&mut self, row: Row, model: &Model) {
        let kind = match row.kind {
            Kind::View => 0,
            Kind::Cart => 1,
            Kind::Purchase => 2,
        };
        self.rows += 1;
        self.products[row.product as usize][kind] += 1;
        self.days[(row.second / 86_400) as usize][kind] += 1;
        self.hours[(row.second / 3600 % 24) as usize][kind] += 1;
        let (word, bit) = ((row.user / 64) as usize, row.user % 64);
        if self.users.len() <= word {
            self.users.resize(word + 1, 0);
        }
        self.users[word] |= 1 << bit;
        if row.session == 0 {
            self.without_session += 1;
            return;
        }
        let mut began = false;
        let open = self.open.entry(row.session).or_insert_with(|| {
            began = true;
            Open { first: row.second, user: row.user, shared: false, last: row, products: Vec::new() }
        });
        if began {
            self.starts[(row.second / 3600 % 24) as usize] += 1;
        } else {
            self.pauses[((row.second - open.last.second) as usize).min(LONGEST_SECONDS - 1)] += 1;
            self.copies += u64::from(Row { last: false, ..row } == Row { last: false, ..open.last });
        }
        open.shared |= open.user != row.user;
        open.last = row;
        match open.products.iter_mut().rev().find(|(product, _)| *product == row.product) {
            Some((_, events)) => events[kind] += 1,
            None => {
                let mut events = [0; 3];
                events[kind] = 1;
                open.products.push((row.product, events));
            }
        }
        if row.last
            && let Some(open) = self.open.remove(&row.session)
        {
            self.close(open, model);
        }
    }

    fn close(&mut self, session: Open, model: &Model) {
        self.sessions += 1;
        self.shared_sessions += u64::from(session.shared);
        let events: u64 = session.products.iter().map(|(_, events)| events.iter().sum::<u64>()).sum();
        let at = |n: u64, longest: usize| usize::try_from(n).unwrap_or(longest).min(longest - 1);
        self.lengths[at(events, LONGEST_SESSION)] += 1;
        self.durations[at(u64::from(session.last.second - session.first), LONGEST_SECONDS)] += 1;
        let any = |of: fn(&Events) -> bool| session.products.iter().any(|(_, events)| of(events));
        let (carted, bought) = (any(|e| e[1] > 0), any(|e| e[2] > 0));
        self.carted += u64::from(carted);
        self.bought += u64::from(bought);
        self.carted_bought += u64::from(carted && bought);
        self.bought_unseen += u64::from(bought && !any(|e| e[0] > 0 && e[2] > 0));
        let mut brands: HashMap<u16, u64> = HashMap::new();
        let mut categories: HashMap<u16, u64> = HashMap::new();
        for (product, events) in &session.products {
            let product = &model.catalogue.products[*product as usize];
            let [viewed, carted, bought] = events.map(|n| n > 0);
            let pair = self.pairs.entry((product.category, product.brand)).or_default();
            pair[0] += u64::from(viewed);
            pair[1] += u64::from(viewed && carted);
            pair[2] += u64::from(carted && bought);
            let n = events.iter().sum::<u64>();
            *brands.entry(product.brand).or_default() += n;
            *categories.entry(product.category).or_default() += n;
        }
        for (brand, n) in brands {
            self.brand_squares[usize::from(brand)] += super::facts::to_f64(n * n);
        }
        for (category, n) in categories {
            self.category_squares[usize::from(category)] += super::facts::to_f64(n * n);
        }
    }
}

/// The value below which a share of all lie, of a histogram by value.
pub(super) fn quantile(counts: &[u64], share: f64) -> f64 {
    let all: u64 = counts.iter().sum();
    let mut left = super::facts::to_f64(all) * share;
    for (value, n) in counts.iter().enumerate() {
        left -= super::facts::to_f64(*n);
        if left <= 0.0 && *n > 0 {
            return super::facts::to_f64(value as u64);
        }
    }
    0.0
}
