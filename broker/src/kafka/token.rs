//! The token for SASL OAUTHBEARER, from a file that somebody else keeps current.
use std::error::Error;
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::client::OAuthToken;
use serde::Deserialize;

/// How long a token is taken to hold that does not say: the file is read again by then.
const HOLDS: Duration = Duration::from_secs(300);

/// What a JSON Web Token says of itself, as far as it matters here.
#[derive(Default, Deserialize)]
struct Claims {
    /// Seconds since 1970; a number that may have a fraction.
    exp: Option<f64>,
    sub: Option<String>,
}

pub(super) fn read(path: Option<&Path>) -> Result<OAuthToken, Box<dyn Error>> {
    let path = path.ok_or("SASL OAUTHBEARER takes its token from a file, and none was named")?;
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    #[allow(clippy::disallowed_methods, reason = "compared with what the token says, by the wall clock")]
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    of(text.trim(), now).map_err(|why| format!("{}: {why}", path.display()).into())
}

/// `now`: since 1970.
fn of(text: &str, now: Duration) -> Result<OAuthToken, String> {
    if text.is_empty() {
        return Err("it is empty; it has to hold a token".to_owned());
    }
    let Claims { exp, sub } = claims(text).unwrap_or_default();
    #[allow(clippy::cast_possible_truncation, reason = "milliseconds since 1970")]
    let lifetime_ms = match exp {
        Some(exp) if exp <= now.as_secs_f64() => return Err("the token has expired".to_owned()),
        Some(exp) => (exp * 1000.0) as i64,
        None => i64::try_from((now + HOLDS).as_millis()).unwrap_or(i64::MAX),
    };
    Ok(OAuthToken {
        token: text.to_owned(),
        principal_name: sub.unwrap_or_else(|| "clickstream".to_owned()),
        lifetime_ms,
    })
}

/// None where it is no JSON Web Token: then only the broker knows what it says.
fn claims(text: &str) -> Option<Claims> {
    let payload = text.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_how_long_it_holds_and_whose_it_is() {
        let jwt = |claims: &str| format!("e30.{}.", URL_SAFE_NO_PAD.encode(claims));
        let now = Duration::from_secs(1_000);
        let read = |text: &str| of(text, now).map(|token| (token.principal_name, token.lifetime_ms));
        assert_eq!(read(&jwt(r#"{"exp":1060,"sub":"me"}"#)), Ok(("me".to_owned(), 1_060_000)));
        assert_eq!(read("opaque"), Ok(("clickstream".to_owned(), 1_300_000)));
        assert_eq!(read(&jwt("{}")), Ok(("clickstream".to_owned(), 1_300_000)));
        assert!(read(&jwt(r#"{"exp":999}"#)).unwrap_err().contains("expired"));
        assert!(read("").unwrap_err().contains("empty"));
    }
}
