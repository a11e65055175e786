//! Whether a file is what it is named for: its header and its first rows. Pure.
use std::io::Read;

use flate2::bufread::MultiGzDecoder;

use crate::generate::{HEADER, Month};

/// So much of the file's beginning is looked at.
pub(super) const HEAD_BYTES: usize = 256 << 10;
const ROWS: usize = 100;

/// `head` is the beginning of a gzipped CSV file.
pub(super) fn check(head: &[u8], month: Month) -> Result<(), String> {
    let mut text = Vec::new();
    // Ends in the middle of its compressed data: what came out before is looked at.
    let ended = MultiGzDecoder::new(head).take(HEAD_BYTES as u64).read_to_end(&mut text);
    if text.is_empty() {
        return Err(match ended {
            Err(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => format!("it is not gzipped CSV: {e}"),
            _ => "it holds nothing".to_owned(),
        });
    }
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let header = lines.next().unwrap_or_default();
    if header.trim_end() != HEADER.trim_end() {
        let shown: String = header.chars().take(100).collect();
        return Err(format!("its header is {:?}, not {:?}", shown.trim_end(), HEADER.trim_end()));
    }
    let begins = records::EventTime::from_days(month.first_day()).day_text();
    let begins = &begins[..8];
    let mut rows = 0;
    for row in lines.take(ROWS) {
        rows += 1;
        let fields = row.split(',').count();
        if fields != HEADER.split(',').count() || !row.starts_with(begins) {
            let shown: String = row.chars().take(100).collect();
            return Err(format!("row {rows} is {:?}, not one of {month}", shown.trim_end()));
        }
    }
    if rows == 0 { Err("it has a header and no rows".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gz(text: &str) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text.as_bytes()).unwrap();
        packed.finish().unwrap()
    }

    #[test]
    fn a_file_is_the_month_it_is_named_for() {
        let october = Month { year: 2019, month: 10 };
        assert_eq!(check(crate::sample(), october), Ok(()));
        assert_eq!(check(&crate::sample()[..20_000], october), Ok(()), "cut where the head ends");
        for (head, says) in [
            (crate::sample().to_vec(), "not one of 2019-Nov"),
            (b"<html>not found</html>".to_vec(), "not gzipped"),
            (gz("a,b\n1,2\n"), "its header is"),
            (gz(HEADER), "no rows"),
            (gz(&format!("{HEADER}2019-11-01 00:00:00 UTC,view\n")), "row 1"),
            (Vec::new(), "nothing"),
        ] {
            let why = check(&head, Month { year: 2019, month: 11 }).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
    }
}
