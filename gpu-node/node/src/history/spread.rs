//! A handful of weighted values, and the quantiles, mean and variance of what they were drawn from.

/// The newest sample weighs 1, each older one this much of the next: a day's change of load or of a model is
/// followed within a few dozen jobs, and quantiles still rest on about forty.
const FADING: f64 = 0.98;

/// The weight of the `age`-th newest sample; 0 is the newest.
pub(crate) fn weight_of_age(age: usize) -> f64 {
    FADING.powi(i32::try_from(age).unwrap_or(i32::MAX))
}

/// An empirical distribution: values in seconds, or ratios. Never empty, never NaN.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spread {
    /// Ascending by value; weights are positive.
    weighted: Vec<(f64, f64)>,
    weight: f64,
}

impl Spread {
    /// From values with their weights. `None` when none of them is finite and has weight.
    pub(crate) fn of(weighted: impl IntoIterator<Item = (f64, f64)>) -> Option<Self> {
        let usable = |(value, weight): &(f64, f64)| value.is_finite() && *weight > 0.0 && weight.is_finite();
        let mut weighted: Vec<(f64, f64)> = weighted.into_iter().filter(usable).collect();
        weighted.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let weight = weighted.iter().map(|(_, weight)| weight).sum();
        (!weighted.is_empty()).then_some(Self { weighted, weight })
    }

    /// A single value.
    #[cfg(test)]
    pub(crate) fn certain(value: f64) -> Self {
        Self { weighted: vec![(value, 1.0)], weight: 1.0 }
    }

    /// The least value that has at least the part `level` (0 to 1) of the weight at or below it.
    pub(crate) fn quantile(&self, level: f64) -> f64 {
        self.quantile_with_room(level, 0.0)
    }

    /// [`Self::quantile`] as if one more value of weight `room` stood above all others: what conformal
    /// prediction asks for, because the value to come is not yet among those that are known.
    pub(crate) fn quantile_with_room(&self, level: f64, room: f64) -> f64 {
        // Half a millionth of slack, so that rounding in the sum does not skip to the next value.
        let target = level.clamp(0.0, 1.0) * (self.weight + room) - 5e-7 * self.weight;
        let mut below = 0.0;
        for (value, weight) in &self.weighted {
            below += weight;
            if below >= target {
                return *value;
            }
        }
        self.greatest()
    }

    /// The weighted mean.
    pub(crate) fn mean(&self) -> f64 {
        self.weighted.iter().map(|(value, weight)| value * weight).sum::<f64>() / self.weight
    }

    /// The weighted variance.
    pub(crate) fn variance(&self) -> f64 {
        let mean = self.mean();
        let squares = self.weighted.iter().map(|(value, weight)| (value - mean).powi(2) * weight);
        squares.sum::<f64>() / self.weight
    }

    fn greatest(&self) -> f64 {
        self.weighted.last().map_or(0.0, |(value, _)| *value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, word for word, without the order that makes it quick.
    fn exact(values: &[(f64, f64)], level: f64) -> f64 {
        let total: f64 = values.iter().map(|(_, weight)| weight).sum();
        let at_or_below = |x: f64| -> f64 { values.iter().filter(|(v, _)| *v <= x).map(|(_, w)| w).sum() };
        let reached =
            values.iter().map(|(v, _)| *v).filter(|v| at_or_below(*v) >= level * total - 1e-6 * total);
        reached.fold(f64::INFINITY, f64::min)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn quantiles_are_those_of_the_definition(
            values in prop::collection::vec((-1e3f64..1e3, 0.01f64..1.0), 1..80),
            level in 0.0f64..=1.0,
        ) {
            let spread = Spread::of(values.clone()).unwrap();
            // Where the definition itself stands on an edge, either neighbour is right.
            let (a, b) = (exact(&values, level - 1e-6), exact(&values, level + 1e-6));
            let got = spread.quantile(level);
            prop_assert!(got >= a.min(b) - 1e-9 && got <= a.max(b).max(a) + 1e-9, "{a} {got} {b}");
        }

        #[test]
        fn quantiles_rise_with_the_level_and_stay_among_the_values(
            values in prop::collection::vec((0f64..1e4, 0.01f64..1.0), 1..40),
            levels in (0.0f64..=1.0, 0.0f64..=1.0),
        ) {
            let spread = Spread::of(values.clone()).unwrap();
            let (low, high) = (levels.0.min(levels.1), levels.0.max(levels.1));
            prop_assert!(spread.quantile(low) <= spread.quantile(high));
            prop_assert!(spread.quantile(high) <= spread.quantile_with_room(high, 1.0));
            prop_assert!(values.iter().any(|(value, _)| *value == spread.quantile(high)));
        }
    }

    #[test]
    fn equal_weights_give_the_nearest_rank() {
        let spread = Spread::of((1..=10).map(|value| (f64::from(value), 1.0))).unwrap();
        assert_eq!([0.0, 0.1, 0.5, 0.9, 1.0].map(|level| spread.quantile(level)), [1.0, 1.0, 5.0, 9.0, 10.0]);
        assert_eq!(spread.quantile_with_room(0.9, 1.0), 10.0, "the tenth of eleven");
        assert_eq!((spread.mean(), spread.variance()), (5.5, 8.25));
    }

    #[test]
    fn what_is_not_a_number_or_weighs_nothing_is_left_out() {
        assert_eq!(Spread::of([(f64::NAN, 1.0), (f64::INFINITY, 1.0), (3.0, 0.0)]), None);
        assert_eq!(Spread::of([(f64::NAN, 1.0), (2.0, 0.5)]).unwrap().quantile(0.9), 2.0);
    }
}
