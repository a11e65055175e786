//! Whether a dataset can read a bucket, by where they are. Pure.

/// What is told where BigQuery surely cannot read the bucket (its URL, and where it is) from the dataset,
/// as the external tables over a lake do.
pub fn apart(dataset: &str, of_dataset: &str, bucket: &str, of_bucket: &str) -> Option<String> {
    are_apart(of_dataset, of_bucket).then(|| {
        format!(
            "the dataset {dataset} is in {of_dataset}, {bucket} in {of_bucket}: rows go into both, but BigQuery cannot read \
             the lake from there (clickstream lake ddl). Name a bucket in {of_dataset}, or a dataset in {of_bucket}; \
             neither can be moved"
        )
    })
}

/// Places are regions (`europe-west1`), multi-regions (`EU`) and pairs of regions (`EUR4`). BigQuery wants
/// both in one; of a region and a wider place around it nothing is said here.
fn are_apart(dataset: &str, bucket: &str) -> bool {
    let (dataset, bucket) = (dataset.to_ascii_lowercase(), bucket.to_ascii_lowercase());
    let are_regions = is_region(&dataset) && is_region(&bucket);
    dataset != bucket && (are_regions || area(&dataset) != area(&bucket))
}

fn is_region(place: &str) -> bool {
    place.contains('-')
}

fn area(place: &str) -> &str {
    let name = place.split('-').next().unwrap_or_default();
    match name.trim_end_matches(|c: char| c.is_ascii_digit()) {
        "nam" => "us",
        "eur" | "europe" => "eu",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_names_both() {
        let told = apart("shop.clicks", "EU", "gs://shop/lake", "US").unwrap();
        assert!(told.contains("shop.clicks is in EU, gs://shop/lake in US"), "{told}");
        assert_eq!(apart("shop.clicks", "EU", "gs://shop/lake", "EU"), None);
    }

    #[test]
    fn places() {
        for (dataset, bucket, expected) in [
            ("EU", "EU", false),
            ("eu", "EU", false),
            ("europe-west1", "EUROPE-WEST1", false),
            ("EU", "US", true),
            ("US", "EUR4", true),
            ("EU", "EUR4", false),
            ("US", "NAM4", false),
            ("europe-west1", "EUROPE-WEST4", true),
            ("us-central1", "US", false),
            ("US", "US-CENTRAL1", false),
            ("us-central1", "EU", true),
            ("asia-northeast1", "ASIA1", false),
            ("northamerica-northeast1", "US", true),
            ("australia-southeast1", "ASIA", true),
        ] {
            assert_eq!(are_apart(dataset, bucket), expected, "{dataset}, {bucket}");
        }
    }
}
