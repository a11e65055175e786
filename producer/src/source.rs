//! What a source is: its identity, what is written down of it, and how it differs from another. Pure.
use std::collections::BTreeMap;
use std::fmt::Write;
use std::hash::{BuildHasher, Hasher};

use records::{Feed, SourceId, proto};
use xxhash_rust::xxh3::xxh3_64;

use crate::input::Part;

/// Everything that changes a source's rows or their times, as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) id: SourceId,
    pub(crate) files: Vec<SourceFile>,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) shards: u32,
    pub(crate) pass: u32,
    pub(crate) restart: u32,
    pub(crate) shift_us: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceFile {
    pub(crate) name: String,
    /// None for a stream.
    pub(crate) size: Option<u64>,
    pub(crate) head_hash: u64,
}

impl Source {
    /// Its first pass, as it was typed.
    pub(crate) fn of(parts: &[Part], settings: &BTreeMap<String, String>, shards: u32) -> Self {
        let files = parts
            .iter()
            .map(|part| SourceFile { name: part.name.clone(), size: part.size, head_hash: part.head_hash })
            .collect();
        let mut source =
            Self { id: SourceId(0), files, settings: settings.clone(), shards, pass: 0, restart: 0, shift_us: 0 };
        source.id = source.identity();
        source
    }

    /// The same rows once more: a source of its own.
    #[must_use]
    pub(crate) fn at_pass(&self, pass: u32) -> Self {
        let mut source = Self { pass, ..self.clone() };
        if pass != self.pass {
            source.id = source.identity();
        }
        source
    }

    /// The same input, played anew: a source of its own.
    #[must_use]
    pub(crate) fn at_restart(&self, restart: u32) -> Self {
        let mut source = Self { restart, ..self.clone() };
        if restart != self.restart {
            source.id = source.identity();
        }
        source
    }

    /// Whether the other is the same input: this source, a pass or a restart of it.
    pub(crate) fn is_of_same_input(&self, other: &Self) -> bool {
        self.resumable() && self.files == other.files && self.settings == other.settings && self.shards == other.shards
    }

    pub(crate) fn feed(&self, shard: u32) -> Feed {
        Feed { source: self.id, shard }
    }

    /// Whether it can be read again from its beginning.
    pub(crate) fn resumable(&self) -> bool {
        self.files.iter().all(|file| file.size.is_some())
    }

    /// The first 8 hex digits of a hash of the description; drawn for what is read only once.
    fn identity(&self) -> SourceId {
        let hash = if self.resumable() {
            xxh3_64(self.canonical().as_bytes())
        } else {
            // Seeded by the system at each call.
            std::collections::hash_map::RandomState::new().build_hasher().finish()
        };
        SourceId(u32::try_from(hash >> 32).unwrap_or_default())
    }

    /// One text for one source. Names cannot hold the NUL that ends each.
    fn canonical(&self) -> String {
        let mut text = format!("1\0{}\0{}\0{}\0{}\0", self.shards, self.pass, self.restart, self.files.len());
        for file in &self.files {
            let _ = write!(text, "{}\0{}\0{:016x}\0", file.name, file.size.unwrap_or_default(), file.head_hash);
        }
        for (name, value) in &self.settings {
            let _ = write!(text, "{name}\0{value}\0");
        }
        text
    }

    /// What differs from an earlier source that shares a file name; None where no name is shared,
    /// or nothing differs. A file beside a stream is never known to have been read to its end.
    pub(crate) fn conflict(&self, earlier: &Self) -> Option<String> {
        let shared = |file: &&SourceFile| {
            file.size.is_some() && earlier.files.iter().any(|e| e.name == file.name && e.size.is_some())
        };
        let shared_name = &self.files.iter().find(shared)?.name;
        let mut differs = Vec::new();
        let names = |source: &Self| source.files.iter().map(|file| file.name.clone()).collect::<Vec<_>>().join(", ");
        if names(self) == names(earlier) {
            for (now, then) in self.files.iter().zip(&earlier.files) {
                let bytes = |file: &SourceFile| file.size.unwrap_or_default();
                if now.size != then.size {
                    differs.push(format!("{} had {} bytes and has {} now", now.name, bytes(then), bytes(now)));
                } else if now.head_hash != then.head_hash {
                    differs.push(format!("{} begins differently", now.name));
                }
            }
        } else {
            differs.push(format!("the files were {}, and are {} now", names(earlier), names(self)));
        }
        for name in self.settings.keys().chain(earlier.settings.keys().filter(|n| !self.settings.contains_key(*n))) {
            let (now, then) = (self.settings.get(name), earlier.settings.get(name));
            let shown = |value: Option<&String>| value.map_or("not given".to_owned(), |value| format!("{value:?}"));
            if now != then {
                differs.push(format!("--{name} was {}, and is {} now", shown(then), shown(now)));
            }
        }
        if self.shards != earlier.shards {
            differs.push(format!("the shards were {}, and are {} now", earlier.shards, self.shards));
        }
        if differs.is_empty() && !self.resumable() {
            differs.push("a stream beside it cannot be read again".to_owned());
        }
        if differs.is_empty() {
            return None;
        }
        Some(format!(
            "{shared_name} was begun here before as source {}, and this is not the same input: {}. \
             Give what was given then, or --beside to take this as another source beside it, or another data folder \
             (embedded) or --topic-prefix (Kafka)",
            earlier.id,
            differs.join("; ")
        ))
    }

    pub(crate) fn to_proto(&self) -> proto::SourceDescription {
        let file = |file: &SourceFile| proto::SourceFile {
            name: file.name.clone(),
            size: file.size,
            head_hash: file.head_hash,
        };
        proto::SourceDescription {
            source: self.id.to_string(),
            files: self.files.iter().map(file).collect(),
            settings: self.settings.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            shards: self.shards,
            pass: self.pass,
            restart: self.restart,
            shift_us: self.shift_us,
        }
    }

    /// None if the record does not say which source it is.
    pub(crate) fn from_view(view: &proto::SourceDescriptionView<'_>) -> Option<Self> {
        let file = |file: &proto::SourceFileView<'_>| SourceFile {
            name: file.name.to_owned(),
            size: file.size,
            head_hash: file.head_hash,
        };
        Some(Self {
            id: view.source.parse().ok()?,
            files: view.files.iter().map(file).collect(),
            settings: view.settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            shards: view.shards,
            pass: view.pass,
            restart: view.restart,
            shift_us: view.shift_us,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(files: &[(&str, Option<u64>, u64)], settings: &[(&str, &str)]) -> Source {
        let mut source = Source {
            id: SourceId(0),
            files: files
                .iter()
                .map(|(name, size, head_hash)| SourceFile { name: (*name).into(), size: *size, head_hash: *head_hash })
                .collect(),
            settings: settings.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect(),
            shards: 1,
            pass: 0,
            restart: 0,
            shift_us: 0,
        };
        source.id = source.identity();
        source
    }

    #[test]
    fn an_identity_is_of_all_that_changes_rows() {
        let base = source(&[("a.csv", Some(10), 1)], &[]);
        assert_eq!(base.id, source(&[("a.csv", Some(10), 1)], &[]).id);
        for other in [
            source(&[("b.csv", Some(10), 1)], &[]),
            source(&[("a.csv", Some(11), 1)], &[]),
            source(&[("a.csv", Some(10), 2)], &[]),
            source(&[("a.csv", Some(10), 1), ("b.csv", Some(10), 1)], &[]),
            source(&[("a.csv", Some(10), 1)], &[("limit", "5")]),
        ] {
            assert_ne!(base.id, other.id, "{other:?}");
        }
        let stream = source(&[("-", None, 0)], &[]);
        assert_ne!(stream.id, source(&[("-", None, 0)], &[]).id);
    }

    #[test]
    fn a_shared_name_must_be_the_same_in_everything() {
        let earlier = source(&[("a.csv", Some(10), 1)], &[]);
        for (now, expected) in [
            (source(&[("a.csv", Some(10), 1)], &[]), None),
            (source(&[("b.csv", Some(10), 1)], &[]), None),
            (source(&[("-", None, 0)], &[]), None),
            (source(&[("a.csv", Some(12), 1)], &[]), Some("a.csv had 10 bytes and has 12 now")),
            (source(&[("a.csv", Some(10), 2)], &[]), Some("a.csv begins differently")),
            (
                source(&[("a.csv", Some(10), 1), ("b.csv", Some(1), 1)], &[]),
                Some("the files were a.csv, and are a.csv, b.csv now"),
            ),
            (source(&[("a.csv", Some(10), 1)], &[("limit", "5")]), Some("--limit was not given, and is \"5\" now")),
            (
                source(&[("a.csv", Some(10), 1), ("-", None, 0)], &[]),
                Some("the files were a.csv, and are a.csv, - now"),
            ),
        ] {
            let got = now.conflict(&earlier);
            match expected {
                None => assert_eq!(got, None),
                Some(what) => assert!(got.as_ref().is_some_and(|got| got.contains(what)), "{got:?}"),
            }
        }
    }

    #[test]
    fn a_file_beside_a_stream_is_played_once() {
        let beside_a_stream = |size| source(&[("a.csv", Some(size), 1), ("-", None, 0)], &[]);
        let why = beside_a_stream(10).conflict(&beside_a_stream(10)).unwrap();
        assert!(why.contains("a.csv was begun here before") && why.contains("a stream beside it"), "{why}");
        assert!(beside_a_stream(12).conflict(&beside_a_stream(10)).unwrap().contains("had 10 bytes and has 12 now"));
        assert_eq!(source(&[("-", None, 0)], &[]).conflict(&beside_a_stream(10)), None);
    }
}
