//! Files in object stores and on web servers, for those who read and write synchronously.
//!
//! | file | what it holds |
//! |---|---|
//! | `access` | where a bucket's server is, and who asks it |
//! | `open` | a URL to its store: `gs://`, `s3://`, `https://` |
//! | `objects` | one object, or those that a glob names; each of a size and a version |
//! | `body` | an object's bytes from a place on, taken up again where a connection broke |
//! | `reader` | the same as `Read` and `Seek` |
//! | `refused` | how long a server asks to be left alone for |
//! | `runtime` | the thread that the connections live on |
mod access;
mod body;
mod error;
mod objects;
mod open;
mod reader;
mod refused;
mod runtime;

pub use access::Access;
pub use error::explain;
pub use object_store::{HeaderMap, HeaderValue, ObjectStore};
pub use objects::{Object, Objects};
pub use open::{Place, is_url, open, open_with};
pub use reader::Reader;
pub use runtime::runtime;
