//! What a commit's metadata says: a line of text of at most 4,096 bytes.
//!
//! `1;<gap>;<lateness>;<partitions>;<incarnation>;<feed>@<offset>@<clock>;…`, durations and clocks
//! in microseconds, `none` for no gap.
use std::fmt::Write;
use std::time::Duration;

use broker::{Incarnation, METADATA_MAX_BYTES, Offset};
use records::EventTime;

use crate::core::{FeedPosition, Gap, Rules, micros};

const VERSION: &str = "1";

/// What a restart has to know of one partition, beside the committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Of the topic whose offsets these are.
    pub incarnation: Incarnation,
    pub rules: Rules,
    /// How many partitions the topic had.
    pub partitions: u32,
    /// Of each feed that has not ended.
    pub feeds: Vec<FeedPosition>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    #[error("its metadata is not the sessionizer's: {0:?}")]
    Malformed(String),
    #[error(
        "{feeds} unfinished feeds do not fit the {METADATA_MAX_BYTES} bytes of a commit's metadata; \
         end those that will not go on: clickstream control end SOURCE"
    )]
    TooManyFeeds { feeds: usize },
}

impl Metadata {
    pub fn encode(&self) -> Result<String, MetadataError> {
        let gap = match self.rules.gap {
            Gap::After(gap) => micros(gap).to_string(),
            Gap::None => "none".to_owned(),
        };
        let lateness = micros(self.rules.allowed_lateness);
        let mut text = format!("{VERSION};{gap};{lateness};{};{}", self.partitions, self.incarnation);
        for FeedPosition { feed, offset, clock } in &self.feeds {
            // Writing to a String does not fail.
            let _ = write!(text, ";{feed}@{offset}@{}", clock.0);
        }
        if text.len() > METADATA_MAX_BYTES {
            return Err(MetadataError::TooManyFeeds { feeds: self.feeds.len() });
        }
        Ok(text)
    }

    pub fn decode(text: &str) -> Result<Self, MetadataError> {
        Self::parse(text).ok_or_else(|| MetadataError::Malformed(text.chars().take(80).collect()))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(';');
        if fields.next()? != VERSION {
            return None;
        }
        let duration = |text: &str| text.parse().ok().map(Duration::from_micros);
        let gap = match fields.next()? {
            "none" => Gap::None,
            gap => Gap::After(duration(gap)?),
        };
        let allowed_lateness = duration(fields.next()?)?;
        let partitions = fields.next()?.parse().ok()?;
        let incarnation = Incarnation(fields.next()?.into());
        let feeds = fields.map(|field| {
            let (feed, position) = field.split_once('@')?;
            let (offset, clock) = position.split_once('@')?;
            Some(FeedPosition {
                feed: feed.parse().ok()?,
                offset: Offset(offset.parse().ok()?),
                clock: EventTime(clock.parse().ok()?),
            })
        });
        let feeds = feeds.collect::<Option<_>>()?;
        Some(Self { incarnation, rules: Rules { gap, allowed_lateness }, partitions, feeds })
    }

    /// What a restart reads again from.
    pub fn keep_from(&self, committed: Offset) -> Offset {
        self.feeds.iter().map(|feed| feed.offset).fold(committed, Offset::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use records::{Feed, SourceId};

    fn feed(source: u32, offset: i64, clock: i64) -> FeedPosition {
        let feed = Feed { source: SourceId(source), shard: source % 3 };
        FeedPosition { feed, offset: Offset(offset), clock: EventTime(clock) }
    }

    fn metadata(feeds: Vec<FeedPosition>) -> Metadata {
        Metadata { incarnation: Incarnation("l0-g".into()), rules: Rules::default(), partitions: 4, feeds }
    }

    proptest! {
        #[test]
        fn reads_back(
            feeds in prop::collection::vec(any::<(u32, i64, i64)>(), 0..40),
            gap in prop::option::of(0..i64::MAX as u64), lateness in 0..i64::MAX as u64, partitions: u32,
        ) {
            let feeds = feeds.into_iter().map(|(source, offset, clock)| feed(source, offset, clock)).collect();
            let gap = gap.map_or(Gap::None, |gap| Gap::After(Duration::from_micros(gap)));
            let rules = Rules { gap, allowed_lateness: Duration::from_micros(lateness) };
            let metadata = Metadata { rules, partitions, ..metadata(feeds) };
            let text = metadata.encode().unwrap();
            prop_assert_eq!(Metadata::decode(&text).unwrap(), metadata);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-f;/@none-]{0,60}") {
            let _ = Metadata::decode(&text);
        }
    }

    #[test]
    fn what_it_looks_like() {
        let metadata = metadata(vec![feed(0xab, 7, -5)]);
        assert_eq!(metadata.encode().unwrap(), "1;1800000000;0;4;l0-g;000000ab/0@7@-5");
        assert_eq!(metadata.keep_from(Offset(9)), Offset(7));
        assert_eq!(metadata.keep_from(Offset(5)), Offset(5));
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        for text in ["", "2;1;0;4;x", "1;1;0;4", "1;-1;0;4;x", "1;1;0;4;x;000000ab/0@7", "{}"] {
            assert!(matches!(Metadata::decode(text), Err(MetadataError::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn too_many_feeds_name_the_remedy() {
        let many = (0..200).map(|i| feed(i, 1 << 40, 1 << 50)).collect();
        let error = metadata(many).encode().unwrap_err();
        assert_eq!(error, MetadataError::TooManyFeeds { feeds: 200 });
        assert!(error.to_string().contains("control end"));
        // As many as producers let there be, each as long as it may get.
        let most = u32::try_from(records::topics::UNFINISHED_FEEDS_MAX).unwrap();
        let longest = |i| Feed { source: SourceId(i), shard: 99_999 };
        let position =
            |i| FeedPosition { feed: longest(i), offset: Offset(10_i64.pow(13)), clock: EventTime(-(1 << 55)) };
        let rules =
            Rules { gap: Gap::After(Duration::from_secs(1 << 33)), allowed_lateness: Duration::from_secs(1 << 33) };
        let incarnation = Incarnation("of-22-letters-in-Kafka".into());
        let most = Metadata { incarnation, rules, partitions: 9_999, feeds: (0..most).map(position).collect() };
        assert!(most.encode().is_ok());
    }
}
