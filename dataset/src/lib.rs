//! The real sample that ships with the project (`data/README.md` says what is in it); the whole months
//! of it, from where they are served (`fetch`); and rows made after their likeness (`generate`).

pub mod fetch;
pub mod generate;

/// The name of the bundled file.
pub const SAMPLE_NAME: &str = "2019-Oct-head.csv.gz";

/// Where the data comes from; its terms ask that this be named.
pub const SOURCE_NOTE: &str = "eCommerce behavior data from multi category store, by REES46 Marketing Platform \
(https://rees46.com), at https://www.kaggle.com/datasets/mkechinov/ecommerce-behavior-data-from-multi-category-store";

/// The first 17,434 rows of October 2019, as gzipped CSV.
pub fn sample() -> &'static [u8] {
    include_bytes!("../../data/2019-Oct-head.csv.gz")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    /// What `data/README.md` says of it.
    #[test]
    fn the_sample_is_what_it_is_said_to_be() {
        let lines = BufReader::new(flate2::read::GzDecoder::new(super::sample())).lines();
        let lines: Vec<String> = lines.map(Result::unwrap).collect();
        assert_eq!(
            lines[0],
            "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"
        );
        let rows: Vec<Vec<&str>> = lines[1..].iter().map(|line| line.split(',').collect()).collect();
        let count = |kind: &str| rows.iter().filter(|row| row[1] == kind).count();
        assert_eq!((rows.len(), count("view"), count("cart"), count("purchase")), (17_434, 17_055, 165, 214));
        assert_eq!((rows[0][0], rows[17_433][0]), ("2019-10-01 00:00:00 UTC", "2019-10-01 02:50:00 UTC"));
        let distinct = |key: fn(&[&str]) -> String| {
            rows.iter().map(|row| key(row)).collect::<std::collections::HashSet<_>>().len()
        };
        assert_eq!(distinct(|row| row[8].to_owned()), 5_066);
        assert_eq!(rows.len() - distinct(|row| row.join(",")), 5);
        assert_eq!(rows.iter().filter(|row| row[6].parse::<f64>() == Ok(0.0)).count(), 19);
    }
}
