//! A month's model: everything that rows are drawn from, none of it larger than the catalogue.
use rand::SeedableRng;
use rand_distr::Distribution;
use rand_distr::weighted::WeightedAliasIndex;
use rand_xoshiro::SplitMix64;

use super::behaviour::{Fate, Fates, Lengths, Pauses, Users, table};
use super::calendar::{Calendar, Month};
use super::catalogue::{Catalogue, Product};
use super::facts::{BOUGHT_CARTS, CARTED_SESSIONS, Facts, NOVEMBER, OCTOBER, Totals, to_f64};

/// Purchases of a buying session: 9.2% repeat the product.
const PURCHASES_A_BUYER: f64 = 1.107;
/// In a session that carts or buys, the other products are of the focus's category with this chance.
pub(super) const KINDRED: f64 = 0.5;
/// For the means over what sessions hold.
const TRIALS: u32 = 200_000;

pub(super) struct Model {
    pub(super) month: Month,
    pub(super) totals: Totals,
    pub(super) calendar: Calendar,
    pub(super) lengths: Lengths,
    pub(super) pauses: Pauses,
    pub(super) fates: Fates,
    pub(super) users: Users,
    pub(super) catalogue: Catalogue,
    pub(super) foci: Foci,
    pub(super) views: Views,
    /// `,product_id,category_id,category_code,brand,price,` of each product, one after another.
    texts: Vec<u8>,
    ends: Vec<u32>,
    /// Of `Facts::categories`.
    codes: Vec<&'static str>,
}

/// Products by how often a session is about them, for each fate.
pub(super) struct Foci {
    buy: WeightedAliasIndex<f64>,
    cart: WeightedAliasIndex<f64>,
    direct: WeightedAliasIndex<f64>,
}

/// Products by how often they are looked at: first a category id, then one of its products.
pub(super) struct Views {
    categories: WeightedAliasIndex<f64>,
    members: Vec<Vec<u32>>,
    within: Vec<WeightedAliasIndex<f64>>,
}

impl Foci {
    pub(super) fn draw(&self, fate: Fate, rng: &mut SplitMix64) -> Option<u32> {
        let table = match fate {
            Fate::Browse => return None,
            Fate::Buy => &self.buy,
            Fate::Cart => &self.cart,
            Fate::Direct => &self.direct,
        };
        u32::try_from(table.sample(rng)).ok()
    }
}

impl Views {
    pub(super) fn category(&self, rng: &mut SplitMix64) -> u16 {
        u16::try_from(self.categories.sample(rng)).unwrap_or_default()
    }

    pub(super) fn product(&self, category: u16, rng: &mut SplitMix64) -> u32 {
        let category = usize::from(category);
        self.members[category][self.within[category].sample(rng)]
    }
}

impl Model {
    /// For a replay of `rows` rows of a month.
    pub(super) fn new(month: Month, rows: u64, facts: &Facts) -> Self {
        let october = month.is(2019, 10);
        let totals = if october { OCTOBER } else { NOVEMBER };
        let catalogue = Catalogue::build(facts);
        let lengths = Lengths::with_mean(to_f64(totals.rows) / to_f64(totals.sessions));
        // In November nearly every purchase has a cart; in October most have none.
        let (carted, bought) = match october {
            true => (720_000.0, 195_000.0),
            false => {
                (CARTED_SESSIONS * to_f64(totals.sessions), CARTED_SESSIONS * BOUGHT_CARTS * to_f64(totals.sessions))
            }
        };
        let carts_a_session = to_f64(totals.carts) / carted;
        let buyers = to_f64(totals.purchases) / PURCHASES_A_BUYER;
        let month_products = products_of(&catalogue, &totals);
        let with_cart = bought / buyers;
        let buy: Vec<f64> = month_products
            .iter()
            .map(|p| (p.purchases / PURCHASES_A_BUYER * with_cart).min(p.carts / carts_a_session))
            .collect();
        let cart: Vec<f64> =
            month_products.iter().zip(&buy).map(|(p, buy)| (p.carts / carts_a_session - buy).max(0.0)).collect();
        let direct: Vec<f64> =
            month_products.iter().zip(&buy).map(|(p, buy)| (p.purchases / PURCHASES_A_BUYER - buy).max(0.0)).collect();
        let sessions = to_f64(totals.sessions);
        let share = |of: &[f64]| of.iter().sum::<f64>() / sessions;
        let shares = [share(&buy) + share(&cart), share(&buy), share(&direct)];
        let fates = Fates::new(&lengths, shares, carts_a_session, PURCHASES_A_BUYER);
        let views = views(&month_products, &catalogue, &lengths, &fates, [&buy, &cart, &direct]);
        let expected_sessions = to_f64(rows) * sessions / to_f64(totals.rows);
        let (texts, ends) = texts(&catalogue, facts);
        Self {
            month,
            totals,
            calendar: Calendar::of(month, facts),
            pauses: Pauses::new(),
            users: Users::new(to_f64(totals.users) / sessions * expected_sessions, expected_sessions),
            foci: Foci { buy: table(&buy), cart: table(&cart), direct: table(&direct) },
            lengths,
            fates,
            views,
            catalogue,
            texts,
            ends,
            codes: facts.categories.iter().map(|category| category.code).collect(),
        }
    }

    pub(super) fn code(&self, product: &Product) -> &'static str {
        self.codes[usize::from(product.category)]
    }

    /// How many categories there are, that of rows without a code included.
    pub(super) fn categories(&self) -> usize {
        self.catalogue.products.iter().map(|p| usize::from(p.category) + 1).max().unwrap_or_default()
    }

    /// How many sub-categories of October's there are, and one for what has none of them.
    pub(super) fn kinds(&self) -> usize {
        self.catalogue.products.iter().map(|p| usize::from(p.kind) + 1).max().unwrap_or_default()
    }

    pub(super) fn product_text(&self, product: u32) -> &[u8] {
        let product = product as usize;
        let from = if product == 0 { 0 } else { self.ends[product - 1] };
        &self.texts[from as usize..self.ends[product] as usize]
    }
}

/// The products with the month's own counts.
fn products_of(catalogue: &Catalogue, totals: &Totals) -> Vec<Product> {
    let scale = |n: u64, of: fn(&Product) -> f64| to_f64(n) / catalogue.products.iter().map(of).sum::<f64>();
    let views = scale(totals.views, |p| p.views);
    let carts = scale(totals.carts, |p| p.carts);
    let purchases = scale(totals.purchases, |p| p.purchases);
    let of = |p: &Product| Product {
        views: p.views * views,
        carts: p.carts * carts,
        purchases: p.purchases * purchases,
        ..p.clone()
    };
    catalogue.products.iter().map(of).collect()
}

/// The views that are left for drawing freely, once each session with a focus has looked at it.
fn views(products: &[Product], catalogue: &Catalogue, lengths: &Lengths, fates: &Fates, foci: [&[f64]; 3]) -> Views {
    let means = [Fate::Buy, Fate::Cart, Fate::Direct].map(|fate| means(fate, lengths, fates));
    let mut left: Vec<f64> = products.iter().map(|p| p.views).collect();
    let categories = catalogue.category_ids.len();
    // Views that sessions with a focus draw from its category.
    let mut kindred = vec![0.0; categories];
    for (foci, (of_focus, of_others)) in foci.into_iter().zip(means) {
        for ((left, focus), product) in left.iter_mut().zip(foci).zip(products) {
            *left -= of_focus * focus;
            kindred[usize::from(product.category_id)] += of_others * focus * KINDRED;
        }
    }
    let mut members = vec![Vec::new(); categories];
    let mut weights = vec![Vec::new(); categories];
    let mut of_category = vec![0.0; categories];
    for ((i, product), left) in (0..).zip(products).zip(&left) {
        let (category, weight) = (usize::from(product.category_id), left.max(product.views * 0.05));
        members[category].push(i);
        weights[category].push(weight);
        of_category[category] += weight;
    }
    for (all, kindred) in of_category.iter_mut().zip(&kindred) {
        *all = (*all - kindred).max(0.0);
    }
    Views { categories: table(&of_category), members, within: weights.iter().map(|weights| table(weights)).collect() }
}

/// Views of the focus, and of others, in a session of this fate.
fn means(fate: Fate, lengths: &Lengths, fates: &Fates) -> (f64, f64) {
    let mut rng = SplitMix64::seed_from_u64(7);
    let (mut n, mut of_focus, mut of_others) = (0.0, 0.0, 0.0);
    let odds = (1.0, 1.0);
    for _ in 0..TRIALS {
        let length = lengths.draw(&mut rng);
        if length < 2 {
            continue;
        }
        let chance = fates.chance(fate, length, odds);
        if chance > 0.0 {
            let script = fates.script(fate, length, false, &mut rng);
            n += chance;
            of_focus += chance * f64::from(script.focus);
            of_others += chance * f64::from(script.others());
        }
    }
    if n > 0.0 { (of_focus / n, of_others / n) } else { (0.0, 0.0) }
}

fn texts(catalogue: &Catalogue, facts: &Facts) -> (Vec<u8>, Vec<u32>) {
    use std::io::Write;
    let (mut texts, mut ends) = (Vec::new(), Vec::new());
    for product in &catalogue.products {
        let id = catalogue.category_ids[usize::from(product.category_id)];
        let code = facts.categories[usize::from(product.category)].code;
        let brand = &catalogue.brands[usize::from(product.brand)];
        let price = records::Cents(i64::from(product.cents));
        let _ = write!(texts, ",{},{id},{code},{brand},{price},", product.id);
        ends.push(u32::try_from(texts.len()).unwrap_or(u32::MAX));
    }
    (texts, ends)
}
