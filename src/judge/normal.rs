//! The normal distribution.

/// Probability that a standard normal value is above `z` (Abramowitz and Stegun 26.2.17; absolute error below 1e-7).
pub(super) fn above(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let series = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let sum = series.iter().rev().fold(0.0, |sum, factor| (sum + factor) * t);
    let tail = (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt() * sum;
    if z >= 0.0 { tail } else { 1.0 - tail }
}

/// The value that a standard normal one exceeds with probability `p`: 2.326 for 0.01. By bisection: it is asked for rarely.
pub(super) fn exceeded_with(p: f64) -> f64 {
    let (mut low, mut high) = (-9.0, 9.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if above(middle) > p { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

/// Upper bound of a share of which `hits` of `n` were seen, exceeded with probability `alpha` (Wilson 1927). 1 without data.
pub(super) fn wilson_upper(hits: u64, n: u64, alpha: f64) -> f64 {
    if n == 0 {
        return 1.0;
    }
    let (n, z) = (n as f64, exceeded_with(alpha));
    let share = hits as f64 / n;
    let half = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    ((share + z * z / (2.0 * n) + half) / (1.0 + z * z / n)).min(1.0)
}

/// Probability that a chi-squared value of so many degrees of freedom is above `x` (Wilson and Hilferty 1931).
pub(super) fn chi_squared_above(x: f64, degrees: f64) -> f64 {
    if degrees < 1.0 || x <= 0.0 {
        return 1.0;
    }
    let spread = 2.0 / (9.0 * degrees);
    above(((x / degrees).cbrt() - (1.0 - spread)) / spread.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_agree() {
        for (z, p) in [(0.0, 0.5), (1.96, 0.024_998), (2.326_35, 0.01), (-1.0, 0.841_345)] {
            assert!((above(z) - p).abs() < 1e-5, "{z}: {}", above(z));
        }
        assert!((exceeded_with(0.01) - 2.326_35).abs() < 1e-3);
        // 0 of 100: Wilson's bound at 97.5 % is 3.70 %.
        assert!((wilson_upper(0, 100, 0.025) - 0.0370).abs() < 1e-3 && wilson_upper(0, 0, 0.01) == 1.0);
        assert!((chi_squared_above(16.92, 9.0) - 0.05).abs() < 2e-3);
    }
}
