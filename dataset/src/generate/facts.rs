//! What is known of the real months: counts from public analyses of the same data (`data/facts`).
//! The model is fitted to them, and `report` compares with them.
use std::collections::BTreeMap;

use super::calendar::Month;

/// Counts of a whole month.
#[derive(Clone, Copy, Debug)]
pub(super) struct Totals {
    pub(super) rows: u64,
    pub(super) views: u64,
    pub(super) carts: u64,
    pub(super) purchases: u64,
    pub(super) users: u64,
    pub(super) sessions: u64,
    pub(super) products: u64,
    pub(super) brands: u64,
    pub(super) category_ids: u64,
    pub(super) copies: u64,
    pub(super) zero_prices: u64,
    pub(super) empty_code: f64,
    pub(super) empty_brand: f64,
    pub(super) empty_sessions: u64,
    pub(super) price_mean: f64,
    pub(super) price_median: f64,
    pub(super) price_deviation: f64,
}

#[allow(clippy::approx_constant, reason = "0.318 is a share")]
pub(super) const OCTOBER: Totals = Totals {
    rows: 42_448_764,
    views: 40_779_399,
    carts: 926_516,
    purchases: 742_849,
    users: 3_022_290,
    sessions: 9_244_421,
    products: 166_794,
    brands: 3_444,
    category_ids: 624,
    copies: 30_219,
    zero_prices: 68_673,
    empty_code: 0.318,
    empty_brand: 0.144,
    empty_sessions: 2,
    price_mean: 290.32,
    price_median: 163.18,
    price_deviation: 357.91,
};

pub(super) const NOVEMBER: Totals = Totals {
    rows: 67_501_979,
    views: 63_556_110,
    carts: 3_028_930,
    purchases: 916_939,
    users: 3_696_117,
    sessions: 13_776_050,
    products: 190_662,
    brands: 4_200,
    category_ids: 684,
    copies: 100_510,
    zero_prices: 188_088,
    empty_code: 0.324,
    empty_brand: 0.137,
    empty_sessions: 10,
    price_mean: 292.46,
    price_median: 169.35,
    price_deviation: 355.55,
};

/// Median prices of November's views, by the last part of the category code; the first is of rows without one.
pub(super) const MEDIAN_PRICES: [(&str, f64); 10] = [
    ("", 78.0),
    ("electronics.smartphone", 287.0),
    ("computers.notebook", 597.0),
    ("electronics.video.tv", 422.0),
    ("appliances.kitchen.refrigerators", 311.0),
    ("appliances.kitchen.washer", 334.0),
    ("electronics.clocks", 165.0),
    ("appliances.environment.vacuum", 117.0),
    ("apparel.shoes", 90.0),
    ("electronics.audio.headphone", 71.0),
];

/// Sessions of November by their number of events: from, to, share.
pub(super) const LENGTHS: [(u32, u32, f64); 6] =
    [(1, 1, 0.406), (2, 5, 0.367), (6, 10, 0.126), (11, 20, 0.070), (21, 50, 0.029), (51, u32::MAX, 0.0036)];

/// Of all buying sessions of November: without a view of anything bought.
pub(super) const UNSEEN_PURCHASES: f64 = 0.0076;

/// Sessions that more than one user shares, of all.
pub(super) const SHARED_SESSIONS: f64 = 939.0 / (9_244_421.0 + 13_776_050.0);

/// Sessions with a cart, of all, and of those the ones that bought; November.
pub(super) const CARTED_SESSIONS: f64 = 0.1266;
pub(super) const BOUGHT_CARTS: f64 = 0.4435;
pub(super) const BOUGHT_SESSIONS: f64 = 0.0562;

/// Purchases of a product that the session did not cart, of all; and those that repeat a product of
/// their session. October and November together, in percent.
pub(super) const UNCARTED_PURCHASES: f64 = 33.8;
pub(super) const REPEATED_PURCHASES: f64 = 9.2;

/// Of all exact copies, those of a cart.
pub(super) const COPIED_CARTS: f64 = 0.95;

/// A funnel over session × product, October and November together, in percent: carted of viewed,
/// bought of carted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Funnel {
    pub(super) name: &'static str,
    pub(super) carted: f64,
    pub(super) bought: f64,
}

const fn funnel(name: &'static str, carted: f64, bought: f64) -> Funnel {
    Funnel { name, carted, bought }
}

pub(super) const FUNNEL: Funnel = funnel("all", 3.73, 39.30);
pub(super) const DEPARTMENT_FUNNELS: [Funnel; 5] = [
    funnel("electronics", 5.87, 44.8),
    funnel("appliances", 3.81, 36.0),
    funnel("computers", 2.54, 34.2),
    funnel("furniture", 1.33, 29.2),
    funnel("apparel", 1.06, 27.8),
];
pub(super) const BRAND_FUNNELS: [Funnel; 4] = [
    funnel("samsung", 7.36, 48.5),
    funnel("apple", 7.17, 44.4),
    funnel("xiaomi", 5.28, 36.9),
    funnel("huawei", 4.87, 46.8),
];

/// The most viewed product's share of November's views.
pub(super) const TOP_PRODUCT: f64 = 0.0090;

pub(super) const MAX_PRICE_CENTS: u32 = 257_407;

/// A category code's counts in November. The first of the table has no code.
#[derive(Clone, Debug)]
pub(super) struct Category {
    pub(super) code: &'static str,
    pub(super) events: f64,
    pub(super) views: f64,
}

/// A sub-category in October, as an analysis has it that gave codes to most rows without one, and
/// left out the rows with a price of 0. The one without a name is of rows that kept none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) views: f64,
    pub(super) carts: f64,
    pub(super) purchases: f64,
}

/// A brand of smartphones in November.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Phones {
    pub(super) views: f64,
    pub(super) purchases: f64,
}

/// An hour of the day (UTC).
#[derive(Clone, Copy, Debug)]
pub(super) struct Hour {
    pub(super) starts: f64,
    /// Purchases of all events, in percent.
    pub(super) purchases: f64,
}

/// The tables of `data/facts`. What a line does not hold is left out.
pub(super) struct Facts {
    /// By day of any month that is known: days since 1970.
    pub(super) events_by_day: BTreeMap<i64, u64>,
    pub(super) purchases_by_day: BTreeMap<i64, u64>,
    pub(super) hours: Vec<Hour>,
    pub(super) categories: Vec<Category>,
    pub(super) brands: Vec<(&'static str, f64)>,
    pub(super) phones: BTreeMap<&'static str, Phones>,
    pub(super) bought_brands: Vec<(&'static str, f64)>,
    pub(super) bought_products: Vec<(u64, f64)>,
    pub(super) october: Vec<Kind>,
}

macro_rules! table {
    ($name:literal, $separator:literal) => {
        rows(include_str!(concat!("../../../data/facts/", $name)), $separator)
    };
}

fn rows(text: &'static str, separator: char) -> impl Iterator<Item = Vec<&'static str>> {
    text.lines().map(move |line| line.trim_end_matches('\r').split(separator).collect())
}

/// The first cell and the number in the second.
fn counts(rows: impl Iterator<Item = Vec<&'static str>>) -> impl Iterator<Item = (&'static str, f64)> {
    rows.filter_map(|row| Some((*row.first()?, row.get(1)?.parse().ok()?)))
}

fn days(rows: impl Iterator<Item = Vec<&'static str>>) -> BTreeMap<i64, u64> {
    let day = |row: &Vec<&str>| Some((Month::day_of(row.first()?)?, row.get(1)?.parse().ok()?));
    rows.filter_map(|row| day(&row)).collect()
}

impl Facts {
    pub(super) fn load() -> Self {
        let views: BTreeMap<_, _> = counts(table!("nov2019_views_by_category.csv", ',')).collect();
        let mut categories: Vec<Category> = counts(table!("nov2019_category_code_event_counts.tsv", '\t'))
            .map(|(code, events)| Category { code, events, views: views.get(code).copied().unwrap_or(events) })
            .collect();
        let rest = |total: u64, of: fn(&Category) -> f64| to_f64(total) - categories.iter().map(of).sum::<f64>();
        let (events, views) = (rest(NOVEMBER.rows, |c| c.events), rest(NOVEMBER.views, |c| c.views));
        categories.insert(0, Category { code: "", events, views });
        let mut phones: BTreeMap<&'static str, Phones> = BTreeMap::new();
        for (brand, n) in counts(table!("nov2019_smartphone_views_by_brand.csv", ',')) {
            phones.entry(brand).or_default().views = n;
        }
        for (brand, n) in counts(table!("nov2019_smartphone_purchases_by_brand.csv", ',')) {
            phones.entry(brand).or_default().purchases = n;
        }
        let hour =
            |row: Vec<&str>| Some(Hour { starts: row.get(1)?.parse().ok()?, purchases: row.get(2)?.parse().ok()? });
        let october = |row: Vec<&'static str>| {
            let number = |i: usize| row.get(i).and_then(|cell| cell.parse::<f64>().ok());
            Some(Kind { name: row.first()?, views: number(1)?, carts: number(2)?, purchases: number(4)? })
        };
        Self {
            events_by_day: days(table!("events_by_day.csv", ',')),
            purchases_by_day: days(table!("nov2019_purchases_by_day.csv", ',')),
            hours: table!("nov2019_session_start_by_hour_utc.tsv", '\t').filter_map(hour).collect(),
            categories,
            brands: counts(table!("nov2019_brand_event_counts.tsv", '\t')).collect(),
            phones,
            bought_brands: counts(table!("nov2019_top_brands_purchased.csv", ',')).collect(),
            bought_products: counts(table!("nov2019_top_products_purchased.csv", ','))
                .filter_map(|(id, n)| Some((id.parse().ok()?, n)))
                .collect(),
            october: table!("oct2019_funnel_by_subcategory.csv", ',').filter_map(october).collect(),
        }
    }
}

impl Facts {
    /// The sub-category of a code, by its place in October's table; one more where it has none of it.
    pub(super) fn kind_of(&self, code: &str) -> u16 {
        let name = code.split('.').nth(1).unwrap_or_default();
        let place = self.october.iter().position(|kind| kind.name == name);
        u16::try_from(place.unwrap_or(self.october.len())).unwrap_or(u16::MAX)
    }
}

/// Counts stay far below 2^53.
#[allow(clippy::cast_precision_loss)]
pub(super) fn to_f64(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_whole_and_agree() {
        let facts = Facts::load();
        let november = Month::parse("2019-Nov").unwrap();
        let days: u64 = november.days().filter_map(|day| facts.events_by_day.get(&day)).sum();
        assert_eq!(days, NOVEMBER.rows);
        assert_eq!(facts.events_by_day.values().sum::<u64>(), 411_709_736);
        assert_eq!(facts.purchases_by_day.values().sum::<u64>(), NOVEMBER.purchases);
        assert_eq!((facts.hours.len(), facts.categories.len(), facts.brands.len()), (24, 130, 712));
        assert_eq!((facts.bought_brands.len(), facts.bought_products.len(), facts.october.len()), (10, 10, 64));
        // October's sub-categories are all of its rows but those with a price of 0.
        let all: f64 = facts.october.iter().map(|k| k.views + k.carts + k.purchases).sum();
        assert!((all - to_f64(OCTOBER.rows - OCTOBER.zero_prices)).abs() < 1.0, "{all}");
        let empty = facts.categories[0].events / to_f64(NOVEMBER.rows);
        assert!((empty - NOVEMBER.empty_code).abs() < 0.001, "{empty}");
    }
}
