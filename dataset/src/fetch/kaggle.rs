//! Kaggle's copy: one archive of all months, for those who have a token.
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use remote::{HeaderMap, HeaderValue};

use super::{Error, Result};

/// Kaggle's own API; the archive is behind a redirect to where it lies.
pub const KAGGLE: &str =
    "https://www.kaggle.com/api/v1/datasets/download/mkechinov/ecommerce-behavior-data-from-multi-category-store";

const REMEDY: &str = "make one at kaggle.com (Settings, API, Create New Token) and save it as ~/.kaggle/kaggle.json, \
or set KAGGLE_USERNAME and KAGGLE_KEY; the public mirror (--from mirror) asks for none";

/// A user's token. It is not shown.
pub struct Token {
    user: String,
    key: String,
}

impl Token {
    /// From the environment, else from kaggle.json in KAGGLE_CONFIG_DIR or ~/.kaggle: as Kaggle's own tool.
    pub fn find(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        if let (Some(user), Some(key)) = (set("KAGGLE_USERNAME"), set("KAGGLE_KEY")) {
            return Ok(Self { user, key });
        }
        let folder = set("KAGGLE_CONFIG_DIR").map(PathBuf::from);
        let folder = folder.or_else(|| Some(Path::new(&set("HOME")?).join(".kaggle")));
        let file = folder.ok_or_else(|| Error::new("Kaggle's token", REMEDY))?.join("kaggle.json");
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::new("Kaggle's token", format!("there is none: {REMEDY}")));
            }
            Err(e) => return Err(Error::new(file.display(), e)),
        };
        Self::parse(&text).ok_or_else(|| Error::new(file.display(), format!("it is no token of Kaggle's: {REMEDY}")))
    }

    fn parse(text: &str) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_str(text).ok()?;
        let field = |name: &str| value.get(name)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        Some(Self { user: field("username")?, key: field("key")? })
    }

    pub(super) fn headers(&self) -> Result<HeaderMap> {
        let encoded = STANDARD.encode(format!("{}:{}", self.user, self.key));
        let mut value = HeaderValue::from_str(&format!("Basic {encoded}"))
            .map_err(|_| Error::new("Kaggle's token", "it cannot be sent"))?;
        value.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert("authorization", value);
        Ok(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kaggle.json");
        let path = folder.path().to_str().unwrap().to_owned();
        let from = |variables: &[(&str, &str)]| {
            let variables: Vec<(String, String)> =
                variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Token::find(move |name| variables.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()))
                .map(|token| format!("{}:{}", token.user, token.key))
                .map_err(|e| e.to_string())
        };
        let in_folder = [("KAGGLE_CONFIG_DIR", path.as_str())];
        assert!(from(&in_folder).unwrap_err().contains("kaggle.com (Settings"));
        std::fs::write(&file, r#"{"username":"ann","key":"k1"}"#).unwrap();
        assert_eq!(from(&in_folder), Ok("ann:k1".into()));
        let both = [in_folder[0], ("KAGGLE_USERNAME", "bob"), ("KAGGLE_KEY", "k2")];
        assert_eq!(from(&both), Ok("bob:k2".into()));
        assert_eq!(from(&both[..2]), Ok("ann:k1".into()), "a name without a key is no token");
        for wrong in ["", "{}", r#"{"username":"ann"}"#, r#"{"username":"","key":"k"}"#] {
            std::fs::write(&file, wrong).unwrap();
            assert!(from(&in_folder).unwrap_err().contains("kaggle.json"), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let token = Token { user: "ann".into(), key: "secret".into() };
        let shown = format!("{:?}", token.headers().unwrap());
        assert!(!shown.contains("secret") && !shown.contains("YW5u"), "{shown}");
    }
}
