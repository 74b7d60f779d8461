//! Gaussian mixtures over colours, fitted as GrabCut does: clusters split along their principal axis (Orchard and
//! Bouman, 1991), then a few rounds of hard assignment. No randomness: the same picture gives the same mixture.

/// Rounds of reassigning samples to the component that explains them best.
const REFINEMENTS: usize = 4;

/// Samples that a fit looks at; more only cost time.
const FIT_SAMPLES_MAX: usize = 8000;

/// A mixture of Gaussians over RGB.
#[derive(Debug, Clone)]
pub(super) struct Mixture {
    components: Vec<Component>,
}

#[derive(Debug, Clone)]
struct Component {
    mean: [f32; 3],
    /// Inverse covariance: xx, xy, xz, yy, yz, zz.
    precision: [f32; 6],
    /// ln(weight / sqrt(det(2π Σ))).
    log_scale: f32,
}

/// Weighted sums up to second order.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    count: f64,
    sum: [f64; 3],
    products: [f64; 6],
}

impl Mixture {
    /// At most `count` components, none narrower than `deviation_min` in any direction. `None` without samples.
    pub(super) fn fit(samples: &[[f32; 3]], count: usize, deviation_min: f32) -> Option<Mixture> {
        let stride = samples.len().div_ceil(FIT_SAMPLES_MAX).max(1);
        let samples: Vec<[f32; 3]> = samples.iter().step_by(stride).copied().collect();
        let variance_min = f64::from(deviation_min).powi(2);
        let mut labels = split(&samples, count);
        let mut mixture = Mixture::from_labels(&samples, &labels, variance_min)?;
        for _ in 0..REFINEMENTS {
            for (label, sample) in labels.iter_mut().zip(&samples) {
                *label = mixture.best(*sample).0;
            }
            mixture = Mixture::from_labels(&samples, &labels, variance_min)?;
        }
        Some(mixture)
    }

    /// The natural logarithm of the density, taken as that of the strongest component.
    pub(super) fn log_density(&self, colour: [f32; 3]) -> f32 {
        self.best(colour).1
    }

    fn best(&self, colour: [f32; 3]) -> (usize, f32) {
        let mut best = (0, f32::NEG_INFINITY);
        for (index, component) in self.components.iter().enumerate() {
            let log_density = component.log_density(colour);
            if log_density > best.1 {
                best = (index, log_density);
            }
        }
        best
    }

    fn from_labels(samples: &[[f32; 3]], labels: &[usize], variance_min: f64) -> Option<Mixture> {
        let mut moments = vec![Moments::default(); labels.iter().max()? + 1];
        for (sample, &label) in samples.iter().zip(labels) {
            moments[label].add(*sample);
        }
        let total = samples.len() as f64;
        let components: Vec<_> =
            moments.iter().filter(|m| m.count > 0.0).map(|m| m.component(total, variance_min)).collect();
        (!components.is_empty()).then_some(Mixture { components })
    }
}

impl Component {
    fn log_density(&self, colour: [f32; 3]) -> f32 {
        let [x, y, z] = [colour[0] - self.mean[0], colour[1] - self.mean[1], colour[2] - self.mean[2]];
        let [xx, xy, xz, yy, yz, zz] = self.precision;
        let squared = x * (xx * x + 2.0 * (xy * y + xz * z)) + y * (yy * y + 2.0 * yz * z) + zz * z * z;
        self.log_scale - 0.5 * squared
    }
}

impl Moments {
    fn add(&mut self, sample: [f32; 3]) {
        let [x, y, z] = sample.map(f64::from);
        self.count += 1.0;
        for (sum, value) in self.sum.iter_mut().zip([x, y, z]) {
            *sum += value;
        }
        for (sum, value) in self.products.iter_mut().zip([x * x, x * y, x * z, y * y, y * z, z * z]) {
            *sum += value;
        }
    }

    fn mean(&self) -> [f64; 3] {
        self.sum.map(|sum| sum / self.count.max(1.0))
    }

    fn covariance(&self) -> [f64; 6] {
        let [x, y, z] = self.mean();
        let means = [x * x, x * y, x * z, y * y, y * z, z * z];
        let mut covariance = self.products.map(|product| product / self.count.max(1.0));
        covariance.iter_mut().zip(means).for_each(|(value, mean)| *value -= mean);
        covariance
    }

    fn component(&self, total: f64, variance_min: f64) -> Component {
        let [mut xx, xy, xz, mut yy, yz, mut zz] = self.covariance();
        for variance in [&mut xx, &mut yy, &mut zz] {
            *variance = variance.max(0.0) + variance_min;
        }
        let minors = [yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy];
        let determinant = (xx * minors[0] + xy * minors[1] + xz * minors[2]).max(f64::MIN_POSITIVE);
        let inverse =
            [minors[0], minors[1], minors[2], xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy];
        let log_normaliser = 1.5 * std::f64::consts::TAU.ln() + 0.5 * determinant.ln();
        Component {
            mean: self.mean().map(|v| v as f32),
            precision: inverse.map(|v| (v / determinant) as f32),
            log_scale: ((self.count / total).ln() - log_normaliser) as f32,
        }
    }

    /// The direction of greatest variance and the variance in it, by power iteration.
    fn principal_axis(&self) -> ([f64; 3], f64) {
        let [xx, xy, xz, yy, yz, zz] = self.covariance();
        let mut axis = [1.0, 0.9, 0.8];
        let mut variance = 0.0;
        for _ in 0..12 {
            let [x, y, z] = axis;
            let image = [xx * x + xy * y + xz * z, xy * x + yy * y + yz * z, xz * x + yz * y + zz * z];
            variance = image.iter().map(|v| v * v).sum::<f64>().sqrt();
            if variance < 1e-12 {
                break;
            }
            axis = image.map(|v| v / variance);
        }
        (axis, variance * self.count)
    }
}

/// Labels each sample: the cluster of greatest spread is cut in two at its mean until there are enough.
fn split(samples: &[[f32; 3]], count: usize) -> Vec<usize> {
    let mut labels = vec![0; samples.len()];
    for new in 1..count {
        let mut moments = vec![Moments::default(); new];
        for (sample, &label) in samples.iter().zip(&labels) {
            moments[label].add(*sample);
        }
        let axes = moments.iter().map(Moments::principal_axis).enumerate();
        let Some((widest, (axis, spread))) = axes.max_by(|a, b| a.1.1.total_cmp(&b.1.1)) else { break };
        if spread < 1e-9 {
            break;
        }
        let along = |colour: [f64; 3]| colour.iter().zip(axis).map(|(c, a)| c * a).sum::<f64>();
        let cut = along(moments[widest].mean());
        for (sample, label) in samples.iter().zip(&mut labels) {
            if *label == widest && along(sample.map(f64::from)) > cut {
                *label = new;
            }
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separate_clusters_get_components_of_their_own() {
        let centres = [[0.1, 0.1, 0.1], [0.9, 0.2, 0.1], [0.2, 0.9, 0.8]];
        let samples: Vec<[f32; 3]> =
            (0..300).map(|i| centres[i % 3].map(|c: f32| c + ((i * 37 % 11) as f32 - 5.0) * 0.002)).collect();
        let mixture = Mixture::fit(&samples, 3, 0.005).unwrap();
        for centre in centres {
            assert!(mixture.log_density(centre) > 5.0);
        }
        assert!(mixture.log_density([0.5, 0.5, 0.5]) < -100.0);
    }

    #[test]
    fn density_integrates_to_one() {
        let samples = [[0.5, 0.5, 0.5], [0.6, 0.5, 0.4], [0.4, 0.6, 0.5], [0.5, 0.4, 0.6]];
        let mixture = Mixture::fit(&samples, 1, 0.05).unwrap();
        let steps = 60;
        let mut integral = 0.0;
        for i in 0..steps * steps * steps {
            let colour =
                [i % steps, i / steps % steps, i / steps / steps].map(|v| (v as f32 + 0.5) / steps as f32);
            integral += mixture.log_density(colour).exp() / (steps * steps * steps) as f32;
        }
        assert!((integral - 1.0).abs() < 0.02, "{integral}");
    }

    #[test]
    fn no_samples_no_mixture() {
        assert!(Mixture::fit(&[], 3, 0.01).is_none());
    }
}
