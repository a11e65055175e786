//! How ages are told apart in histograms.

/// Of one to ten, each about a quarter more than the one before.
const STEPS: [u32; 10] = [100, 125, 160, 200, 250, 320, 400, 500, 630, 800];

/// Upper bounds of a histogram's buckets, in seconds: so close to one another that a quantile drawn from them
/// is out by a quarter at the most.
#[must_use]
pub fn ages(from: f64, to: f64) -> Vec<f64> {
    let bounds = (0..7).flat_map(|decade| STEPS.map(|step| f64::from(step * 10_u32.pow(decade)) / 100_000.0));
    bounds.filter(|bound| (from..=to).contains(bound)).collect()
}

#[cfg(test)]
mod tests {
    use super::ages;

    #[test]
    fn bounds_are_close() {
        let bounds = ages(0.005, 1000.0);
        assert_eq!((bounds[0], bounds[1], bounds.last()), (0.005, 0.0063, Some(&1000.0)));
        assert!(bounds.windows(2).all(|pair| pair[0] < pair[1] && pair[1] < 1.29 * pair[0]), "{bounds:?}");
    }
}
