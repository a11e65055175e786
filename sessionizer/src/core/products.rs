//! The products of one session: what was first seen of each, and how far each got.
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use records::{Cents, EventTime, Stage};
use smallvec::SmallVec;

/// From here on an index is kept: below, going through the list is as quick.
const INDEXED_FROM: usize = 16;
/// So many stand in the session itself: most sessions touch no more, and reach no further memory.
const INLINE: usize = 2;

#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    pub(super) id: i64,
    pub(super) category_id: Option<i64>,
    pub(super) price: Cents,
    pub(super) first_touch: EventTime,
    /// Where the category code stands in the session's text; the brand follows.
    pub(super) text_at: usize,
    pub(super) code_len: u32,
    pub(super) brand_len: u32,
    pub(super) reached: Reached,
}

/// A set of stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reached(u8);

/// In the order of their first touch.
#[derive(Debug, Default)]
pub(super) struct Products {
    list: SmallVec<[Product; INLINE]>,
    index: Option<Box<HashMap<i64, usize, FixedState>>>,
}

impl Reached {
    pub(super) fn has(self, stage: Stage) -> bool {
        self.0 & bit(stage) != 0
    }

    pub(super) fn add(&mut self, stage: Stage) {
        self.0 |= bit(stage);
    }
}

fn bit(stage: Stage) -> u8 {
    match stage {
        Stage::View => 1,
        Stage::Cart => 2,
        Stage::Purchase => 4,
    }
}

impl Products {
    pub(super) fn find(&self, id: i64) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(&id).copied(),
            // The last one is the likeliest.
            None => self.list.iter().rposition(|product| product.id == id),
        }
    }

    /// Appends one that `find` did not find; its place.
    pub(super) fn push(&mut self, product: Product) -> usize {
        let at = self.list.len();
        if let Some(index) = &mut self.index {
            index.insert(product.id, at);
        } else if at == INDEXED_FROM {
            let known = self.list.iter().enumerate().map(|(at, product)| (product.id, at));
            self.index = Some(Box::new(known.chain([(product.id, at)]).collect()));
        }
        self.list.push(product);
        at
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut Product> {
        self.list.get_mut(at)
    }

    pub(super) fn list(&self) -> &[Product] {
        &self.list
    }

    /// Keeps no allocation.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(id: i64) -> Product {
        Product {
            id,
            category_id: None,
            price: Cents(id),
            first_touch: EventTime(id),
            text_at: 0,
            code_len: 0,
            brand_len: 0,
            reached: Reached::default(),
        }
    }

    #[test]
    fn found_with_and_without_an_index() {
        for count in [1, 15, 16, 17, 18, 500] {
            let mut products = Products::default();
            for id in 0..count {
                assert_eq!(products.find(id * 3), None, "{id} of {count}");
                products.push(product(id * 3));
            }
            for id in 0..count {
                assert_eq!(products.find(id * 3).map(|at| products.list()[at].id), Some(id * 3), "{id} of {count}");
            }
            products.clear();
            assert_eq!(products.find(0), None);
        }
    }

    #[test]
    fn stages_are_a_set() {
        let mut reached = Reached::default();
        reached.add(Stage::Cart);
        reached.add(Stage::Cart);
        assert_eq!(Stage::ALL.map(|stage| reached.has(stage)), [false, true, false]);
    }
}
