//! Who an event belongs to: its source and shard, and the key of its session.
use std::fmt;
use std::str::FromStr;

/// 8 hex digits, as users see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u32);

/// A source and one of its shards: what has a clock and an end of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Feed {
    pub source: SourceId,
    pub shard: u32,
}

/// The key of the topics `events`, `funnel-steps` and `sessions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionKey<'a> {
    Session(&'a str),
    /// Where `user_session` is empty.
    User(i64),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a source is 8 hex digits in lower case")]
pub struct SourceIdError;

impl SourceId {
    /// Its 8 digits, without allocating.
    #[inline]
    pub fn digits(self) -> [u8; 8] {
        std::array::from_fn(|i| b"0123456789abcdef"[(self.0 >> (28 - 4 * i) & 0xf) as usize])
    }
}

impl FromStr for SourceId {
    type Err = SourceIdError;

    #[inline]
    fn from_str(text: &str) -> Result<Self, SourceIdError> {
        let bytes = text.as_bytes();
        if bytes.len() != 8 {
            return Err(SourceIdError);
        }
        let mut id = 0;
        for b in bytes {
            let digit = match b {
                b'0'..=b'9' => b - b'0',
                b'a'..=b'f' => b - b'a' + 10,
                _ => return Err(SourceIdError),
            };
            id = id << 4 | u32::from(digit);
        }
        Ok(Self(id))
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// `<source>/<shard>`: the key of its progress, watermarks and end.
impl fmt::Display for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.source, self.shard)
    }
}

impl FromStr for Feed {
    type Err = SourceIdError;

    fn from_str(text: &str) -> Result<Self, SourceIdError> {
        let (source, shard) = text.split_once('/').ok_or(SourceIdError)?;
        Ok(Self { source: source.parse()?, shard: shard.parse().map_err(|_| SourceIdError)? })
    }
}

impl<'a> SessionKey<'a> {
    #[inline]
    pub fn of(user_session: &'a str, user_id: i64) -> Self {
        if user_session.is_empty() { Self::User(user_id) } else { Self::Session(user_session) }
    }

    /// Replaces what `out` holds by the key's bytes.
    #[inline]
    pub fn write(self, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Self::Session(session) => out.extend_from_slice(session.as_bytes()),
            Self::User(user) => {
                use std::io::Write;
                let _ = write!(out, "user-{user}");
            }
        }
    }
}

impl fmt::Display for SessionKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(session) => f.write_str(session),
            Self::User(user) => write!(f, "user-{user}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_and_feeds_read_back() {
        let feed = Feed { source: SourceId(0x00ab_12f9), shard: 3 };
        assert_eq!(feed.to_string(), "00ab12f9/3");
        assert_eq!("00ab12f9/3".parse(), Ok(feed));
        assert_eq!(&feed.source.digits(), b"00ab12f9");
        for wrong in ["", "00AB12F9", "00ab12f", "00ab12f90", "00ab12g9"] {
            assert!(wrong.parse::<SourceId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_empty_session_is_keyed_by_its_user() {
        assert_eq!(SessionKey::of("", 7).to_string(), "user-7");
        assert_eq!(SessionKey::of("s", 7).to_string(), "s");
    }
}
