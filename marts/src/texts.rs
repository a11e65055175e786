//! Category codes and brands as numbers, so that keys are small and hashed once.
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// A text that was interned. Holds until [`Texts::clear`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct TextId(u32);

#[derive(Debug)]
pub(crate) struct Texts {
    hasher: RandomState,
    ids: HashTable<TextId>,
    /// Where each text ends in `arena`; it begins where the one before it ends.
    ends: Vec<usize>,
    arena: String,
}

impl TextId {
    /// The empty text, which is NULL in the marts.
    pub(crate) const EMPTY: Self = Self(0);
}

impl Texts {
    pub(crate) fn new() -> Self {
        Self { hasher: RandomState::default(), ids: HashTable::new(), ends: vec![0], arena: String::new() }
    }

    pub(crate) fn get(&self, id: TextId) -> &str {
        text(&self.ends, &self.arena, id)
    }

    /// None for the empty text.
    pub(crate) fn nullable(&self, id: TextId) -> Option<&str> {
        (id != TextId::EMPTY).then(|| self.get(id))
    }

    pub(crate) fn intern(&mut self, value: &str) -> TextId {
        if value.is_empty() {
            return TextId::EMPTY;
        }
        let Self { hasher, ids, ends, arena } = self;
        let hash = hasher.hash_one(value);
        let same = |id: &TextId| text(ends, arena, *id) == value;
        match ids.entry(hash, same, |id| hasher.hash_one(text(ends, arena, *id))) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                // Far fewer than u32 can say: the fold is committed and this cleared long before.
                let id = TextId(u32::try_from(ends.len()).unwrap_or(u32::MAX));
                entry.insert(id);
                arena.push_str(value);
                ends.push(arena.len());
                id
            }
        }
    }

    /// The id of `value`, which is likely to be `guess`: comparing is cheaper than hashing.
    pub(crate) fn intern_guessing(&mut self, guess: TextId, value: &str) -> TextId {
        if self.get(guess) == value { guess } else { self.intern(value) }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.arena.len() + self.ends.len() * size_of::<usize>()
    }

    pub(crate) fn clear(&mut self) {
        self.ids.clear();
        self.ends.truncate(1);
        self.arena.clear();
    }
}

fn text<'a>(ends: &[usize], arena: &'a str, id: TextId) -> &'a str {
    let at = id.0 as usize;
    let start = at.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
    ends.get(at).and_then(|end| arena.get(start..*end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back() {
        let mut texts = Texts::new();
        let (a, b) = (texts.intern("apple"), texts.intern("électronique"));
        assert_ne!(a, b);
        assert_eq!((texts.get(a), texts.get(b)), ("apple", "électronique"));
        assert_eq!(texts.intern("apple"), a);
        assert_eq!(texts.intern_guessing(a, "électronique"), b);
        assert_eq!(texts.intern_guessing(b, "électronique"), b);
        assert_eq!(texts.intern(""), TextId::EMPTY);
        assert_eq!(texts.intern_guessing(a, ""), TextId::EMPTY);
        assert_eq!((texts.nullable(TextId::EMPTY), texts.nullable(b)), (None, Some("électronique")));
        texts.clear();
        let x = texts.intern("x");
        assert_eq!(texts.get(x), "x");
    }
}
