//! The products of the bundled real sample, as examples of what the store sells.
use std::collections::HashMap;
use std::io::Read;

use records::Cents;

/// A product of the sample.
#[derive(Clone, Debug)]
pub(super) struct Example {
    pub(super) id: u64,
    pub(super) category_id: u64,
    pub(super) code: String,
    pub(super) brand: String,
    pub(super) cents: u32,
    /// How often it occurs.
    pub(super) rows: u32,
}

/// Its products, the most frequent first.
pub(super) struct Sample {
    pub(super) products: Vec<Example>,
}

impl Sample {
    pub(super) fn load() -> Self {
        let mut text = String::new();
        // It ships with the program: it is whole, or the test of this file fails.
        let _ = flate2::read::GzDecoder::new(crate::sample()).read_to_string(&mut text);
        let mut products: HashMap<u64, Example> = HashMap::new();
        for line in text.lines().skip(1) {
            let Some(example) = parse(line) else { continue };
            products.entry(example.id).or_insert(example).rows += 1;
        }
        let mut products: Vec<_> = products.into_values().collect();
        products.sort_unstable_by_key(|p| (std::cmp::Reverse(p.rows), p.id));
        Self { products }
    }

    pub(super) fn brands(&self) -> impl Iterator<Item = &str> {
        self.products.iter().map(|p| p.brand.as_str()).filter(|brand| !brand.is_empty())
    }
}

fn parse(line: &str) -> Option<Example> {
    let fields: Vec<_> = line.split(',').collect();
    let [_, _, id, category_id, code, brand, price, _, _] = fields[..] else { return None };
    Some(Example {
        id: id.parse().ok()?,
        category_id: category_id.parse().ok()?,
        code: code.to_owned(),
        brand: brand.to_owned(),
        cents: u32::try_from(Cents::parse(price.as_bytes()).ok()?.0).ok()?,
        rows: 0,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_sample_has_its_products() {
        let sample = super::Sample::load();
        assert_eq!(sample.products.len(), 6_493);
        assert_eq!(sample.products.iter().map(|p| p.rows).sum::<u32>(), 17_434);
        assert!(sample.products.is_sorted_by_key(|p| std::cmp::Reverse(p.rows)));
    }
}
