//! What made rows amount to, counted as they pass. It sees rows and the catalogue's columns, and
//! nothing else of the model. Memory is that of the open sessions, and of each product.
use std::collections::HashMap;

use super::facts::to_f64;
use super::judge::LEAN;
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
    pub(super) copied_carts: u64,
    pub(super) without_session: u64,
    users: Vec<u64>,
    open: HashMap<u64, Open>,
    /// Of sessions: by number of events, by seconds, and pauses by seconds.
    pub(super) lengths: Vec<u64>,
    pub(super) durations: Vec<u64>,
    pub(super) pauses: Vec<u64>,
    pub(super) sessions: u64,
    pub(super) shared_sessions: u64,
    /// With a view; with a cart too; with a purchase too.
    pub(super) funnel: [u64; 3],
    /// With a purchase; of these, with none of it viewed.
    pub(super) bought: u64,
    pub(super) bought_unseen: u64,
    /// Session × product, by product: viewed; viewed and carted; carted and bought.
    pub(super) pairs: Vec<[u64; 3]>,
    /// Session × product that was bought; purchases of what the session did not cart.
    pub(super) bought_pairs: u64,
    pub(super) uncarted: u64,
    /// Sums of squares of a session's events: their variance.
    pub(super) squares: [f64; 3],
    pub(super) copy_squares: f64,
    pub(super) product_squares: f64,
    pub(super) brand_squares: Vec<f64>,
    pub(super) category_squares: Vec<f64>,
    pub(super) kind_squares: Vec<f64>,
}

struct Open {
    first: u32,
    user: u32,
    shared: bool,
    copies: u64,
    last: Row,
    /// What happened to each product.
    products: Vec<(u32, Events)>,
}

impl Tally {
    pub(super) fn of(model: &Model, rows: impl Iterator<Item = Row>) -> Self {
        let days = usize::try_from(model.calendar.seconds() / 86_400).unwrap_or(31);
        let mut tally = Self {
            products: vec![[0; 3]; model.catalogue.products.len()],
            pairs: vec![[0; 3]; model.catalogue.products.len()],
            days: vec![[0; 3]; days],
            hours: vec![[0; 3]; 24],
            lengths: vec![0; LONGEST_SESSION],
            durations: vec![0; LONGEST_SECONDS],
            pauses: vec![0; LONGEST_SECONDS],
            brand_squares: vec![0.0; model.catalogue.brands.len()],
            category_squares: vec![0.0; model.categories()],
            kind_squares: vec![0.0; model.kinds()],
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

    pub(super) fn purchases(&self) -> u64 {
        self.products.iter().map(|events| events[2]).sum()
    }

    /// The variance of a count of views, carts or purchases over that of as many independent events.
    pub(super) fn variance(&self, kind: usize) -> f64 {
        let events: u64 = self.products.iter().map(|events| events[kind]).sum();
        if events == 0 { 1.0 } else { self.squares[kind] / to_f64(events) }
    }

    /// The same, of one of several; where its few events do not show it, it leans on what all have.
    pub(super) fn clustering(&self, squares: &[f64], of: usize, events: u64) -> f64 {
        let typical = squares.iter().sum::<f64>() / to_f64(self.rows.max(1));
        let leaning = (squares[of] + LEAN * typical) / (to_f64(events) + LEAN);
        leaning.max(squares[of] / to_f64(events.max(1)))
    }

    /// How a session's number of events varies, over its mean's square: so does the number of sessions
    /// in rows that are given.
    pub(super) fn length_variance(&self) -> f64 {
        let power =
            |power| self.lengths.iter().zip(0_u32..).map(move |(n, length)| to_f64(*n) * f64::from(length).powi(power));
        let (sessions, events, squares) = (to_f64(self.sessions), power(1).sum::<f64>(), power(2).sum::<f64>());
        if events == 0.0 { 1.0 } else { sessions * squares / (events * events) - 1.0 }
    }

    /// The same, of what one product has.
    pub(super) fn product_variance(&self) -> f64 {
        self.product_squares / to_f64(self.rows.max(1))
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
            Open { first: row.second, user: row.user, shared: false, copies: 0, last: row, products: Vec::new() }
        });
        if began {
            self.starts[(row.second / 3600 % 24) as usize] += 1;
        } else {
            self.pauses[((row.second - open.last.second) as usize).min(LONGEST_SECONDS - 1)] += 1;
            let copy = u64::from(Row { last: false, ..row } == Row { last: false, ..open.last });
            open.copies += copy;
            self.copied_carts += if row.kind == Kind::Cart { copy } else { 0 };
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
        self.copies += session.copies;
        self.copy_squares += to_f64(session.copies * session.copies);
        let events: u64 = session.products.iter().map(|(_, events)| events.iter().sum::<u64>()).sum();
        let at = |n: u64, longest: usize| usize::try_from(n).unwrap_or(longest).min(longest - 1);
        self.lengths[at(events, LONGEST_SESSION)] += 1;
        self.durations[at(u64::from(session.last.second - session.first), LONGEST_SECONDS)] += 1;
        let any = |of: fn(&Events) -> bool| session.products.iter().any(|(_, events)| of(events));
        let (viewed, carted, bought) = (any(|e| e[0] > 0), any(|e| e[1] > 0), any(|e| e[2] > 0));
        for (n, reached) in self.funnel.iter_mut().zip([viewed, viewed && carted, viewed && carted && bought]) {
            *n += u64::from(reached);
        }
        self.bought += u64::from(bought);
        self.bought_unseen += u64::from(bought && !any(|e| e[0] > 0 && e[2] > 0));
        let mut of_kind = [0; 3];
        let (mut brands, mut categories, mut kinds) = (Sums::default(), Sums::default(), Sums::default());
        for (id, events) in &session.products {
            let product = &model.catalogue.products[*id as usize];
            let [viewed, carted, bought] = events.map(|n| n > 0);
            for (n, reached) in self.pairs[*id as usize].iter_mut().zip([viewed, viewed && carted, carted && bought]) {
                *n += u64::from(reached);
            }
            self.bought_pairs += u64::from(bought);
            self.uncarted += if carted { 0 } else { events[2] };
            of_kind.iter_mut().zip(events).for_each(|(sum, n)| *sum += n);
            let n = events.iter().sum::<u64>();
            self.product_squares += to_f64(n * n);
            brands.add(product.brand, n);
            categories.add(product.category, n);
            kinds.add(product.kind, n);
        }
        for (sum, n) in self.squares.iter_mut().zip(of_kind) {
            *sum += to_f64(n * n);
        }
        brands.square_into(&mut self.brand_squares);
        categories.square_into(&mut self.category_squares);
        kinds.square_into(&mut self.kind_squares);
    }
}

/// A session's events by brand, category or kind: there are few.
#[derive(Default)]
struct Sums(Vec<(u16, u64)>);

impl Sums {
    fn add(&mut self, key: u16, n: u64) {
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, sum)) => *sum += n,
            None => self.0.push((key, n)),
        }
    }

    fn square_into(self, squares: &mut [f64]) {
        for (key, n) in self.0 {
            squares[usize::from(key)] += to_f64(n * n);
        }
    }
}

/// The value below which a share of all lie, of a histogram by value.
pub(super) fn quantile(counts: &[u64], share: f64) -> f64 {
    let all: u64 = counts.iter().sum();
    let mut left = to_f64(all) * share;
    for (value, n) in counts.iter().enumerate() {
        left -= to_f64(*n);
        if left <= 0.0 && *n > 0 {
            return to_f64(value as u64);
        }
    }
    0.0
}
