//! The backdrop: a colour that varies slowly over the picture, as a low-order polynomial per channel, fitted so
//! that a subject which reaches the picture's border does not pull it along (iteratively reweighted least squares).

use crate::pipeline::raster::Raster;

/// The highest total degree. A lamp's glow behind the subject needs five.
const DEGREE_MAX: usize = 5;

/// Terms of a polynomial of that degree in two variables.
const TERMS_MAX: usize = (DEGREE_MAX + 1) * (DEGREE_MAX + 2) / 2;

/// Rounds of reweighting; the weights hardly move afterwards.
const REWEIGHTINGS: usize = 5;

/// A median distance that is no more than the noise of eight bits: there is nothing left to explain.
const EXACT_SCALE: f32 = 1.5 / 255.0;

/// How much better a higher degree must fit to be worth its freedom.
const WORTHWHILE_GAIN: f32 = 0.9;

/// A smooth field of colours over the unit square.
#[derive(Debug, Clone)]
pub(super) struct Backdrop {
    coefficients: [[f64; TERMS_MAX]; 3],
    terms: usize,
}

/// A pixel to fit: its position in the unit square and its colour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observation {
    pub(super) position: [f32; 2],
    pub(super) colour: [f32; 3],
}

impl Backdrop {
    /// The field of lowest degree that explains the observations about as well as any, and their median
    /// distance from it. `None` without observations.
    pub(super) fn fit(observations: &[Observation]) -> Option<(Backdrop, f32)> {
        let mut best: Option<(Backdrop, f32)> = None;
        for degree in 0..=DEGREE_MAX {
            if best.as_ref().is_some_and(|(_, scale)| *scale <= EXACT_SCALE) {
                break;
            }
            let start = best.as_ref().map(|(field, _)| field);
            let Some((field, scale)) = Backdrop::fit_degree(observations, degree, start) else { continue };
            if best.as_ref().is_none_or(|(_, scale_before)| scale < WORTHWHILE_GAIN * scale_before) {
                best = Some((field, scale));
            }
        }
        best
    }

    /// The colour at a position in the unit square.
    pub(super) fn at(&self, position: [f32; 2]) -> [f32; 3] {
        if self.terms == 1 {
            return [0, 1, 2].map(|channel| self.coefficients[channel][0] as f32);
        }
        let basis = basis(position);
        let value = |weights: &[f64; TERMS_MAX]| {
            weights[..self.terms].iter().zip(basis).map(|(weight, term)| weight * term).sum::<f64>() as f32
        };
        [value(&self.coefficients[0]), value(&self.coefficients[1]), value(&self.coefficients[2])]
    }

    /// What the picture shows beyond the backdrop.
    pub(super) fn residual(&self, colour: &Raster<[f32; 3]>) -> Raster<[f32; 3]> {
        // Along a row the field is a polynomial of one variable.
        let rows: Vec<_> =
            (0..colour.height()).map(|y| self.along_row(unit_position(colour, 0, y)[1])).collect();
        Raster::from_fn(colour.width(), colour.height(), |x, y| {
            let u = 2.0 * unit_position(colour, x, y)[0] - 1.0;
            let mut residual = colour.at(x, y);
            for (value, row) in residual.iter_mut().zip(&rows[y]) {
                *value -= row.iter().rev().fold(0.0, |sum, coefficient| sum * u + coefficient);
            }
            residual
        })
    }

    /// The coefficients of the powers of u at a height in the unit square.
    fn along_row(&self, y: f32) -> [[f32; DEGREE_MAX + 1]; 3] {
        let v = f64::from(2.0 * y - 1.0);
        self.coefficients.map(|weights| {
            let mut row = [0.0; DEGREE_MAX + 1];
            let mut index = 0;
            for degree in 0..=DEGREE_MAX {
                for power_of_v in 0..=degree {
                    if index < self.terms {
                        row[degree - power_of_v] += weights[index] * v.powi(power_of_v as i32);
                    }
                    index += 1;
                }
            }
            row.map(|coefficient| coefficient as f32)
        })
    }

    fn fit_degree(
        observations: &[Observation],
        degree: usize,
        start: Option<&Backdrop>,
    ) -> Option<(Backdrop, f32)> {
        let terms = (degree + 1) * (degree + 2) / 2;
        let mut field = match start {
            Some(field) => field.clone(),
            None => Backdrop::constant(median_colour(observations)?),
        };
        let mut scale = field.scale(observations)?;
        for _ in 0..REWEIGHTINGS {
            // Cauchy weights: an outlier of k scales counts 1 / (1 + k²).
            let weight = |distance: f32| f64::from(1.0 / (1.0 + (distance / (1.5 * scale)).powi(2)));
            let mut normal = NormalEquations::new(terms);
            for observation in observations {
                normal.add(observation, weight(field.distance(observation.position, observation.colour)));
            }
            field = Backdrop { coefficients: normal.solve()?, terms };
            scale = field.scale(observations)?;
        }
        Some((field, scale))
    }

    fn constant(colour: [f32; 3]) -> Backdrop {
        let mut coefficients = [[0.0; TERMS_MAX]; 3];
        for (weights, value) in coefficients.iter_mut().zip(colour) {
            weights[0] = f64::from(value);
        }
        Backdrop { coefficients, terms: 1 }
    }

    /// How far a colour is from the field.
    pub(super) fn distance(&self, position: [f32; 2], colour: [f32; 3]) -> f32 {
        self.at(position).iter().zip(colour).map(|(field, c)| (c - field).powi(2)).sum::<f32>().sqrt()
    }

    /// The median distance; never zero, as pictures have eight bits.
    fn scale(&self, observations: &[Observation]) -> Option<f32> {
        let mut distances: Vec<f32> =
            observations.iter().map(|o| self.distance(o.position, o.colour)).collect();
        median(&mut distances).map(|scale| scale.max(1.0 / 255.0))
    }
}

/// A sample's centre in the unit square.
pub(super) fn unit_position<T: Copy>(raster: &Raster<T>, x: usize, y: usize) -> [f32; 2] {
    [(x as f32 + 0.5) / raster.width() as f32, (y as f32 + 0.5) / raster.height() as f32]
}

/// Monomials in the order of their total degree.
fn basis([x, y]: [f32; 2]) -> [f64; TERMS_MAX] {
    let (u, v) = (f64::from(2.0 * x - 1.0), f64::from(2.0 * y - 1.0));
    let mut terms = [1.0; TERMS_MAX];
    let mut index = 1;
    for degree in 1..=DEGREE_MAX {
        // Each degree is the last one times u, and its final term, a power of v, once more times v.
        for _ in 0..degree {
            terms[index] = terms[index - degree] * u;
            index += 1;
        }
        terms[index] = terms[index - degree - 1] * v;
        index += 1;
    }
    terms
}

fn median(values: &mut [f32]) -> Option<f32> {
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f32::total_cmp).1)
}

fn median_colour(observations: &[Observation]) -> Option<[f32; 3]> {
    let channel =
        |index: usize| median(&mut observations.iter().map(|o| o.colour[index]).collect::<Vec<_>>());
    Some([channel(0)?, channel(1)?, channel(2)?])
}

/// Weighted least squares for three right-hand sides at once.
struct NormalEquations {
    terms: usize,
    matrix: [[f64; TERMS_MAX]; TERMS_MAX],
    right: [[f64; TERMS_MAX]; 3],
}

impl NormalEquations {
    fn new(terms: usize) -> Self {
        Self { terms, matrix: [[0.0; TERMS_MAX]; TERMS_MAX], right: [[0.0; TERMS_MAX]; 3] }
    }

    fn add(&mut self, observation: &Observation, weight: f64) {
        let basis = basis(observation.position);
        for row in 0..self.terms {
            let weighted = weight * basis[row];
            for (sum, other) in self.matrix[row].iter_mut().zip(&basis[..=row]) {
                *sum += weighted * other;
            }
            for (right, value) in self.right.iter_mut().zip(observation.colour) {
                right[row] += weighted * f64::from(value);
            }
        }
    }

    /// By Cholesky decomposition, with a ridge that keeps nearly dependent terms small.
    fn solve(mut self) -> Option<[[f64; TERMS_MAX]; 3]> {
        let n = self.terms;
        let ridge = 1e-6 * self.matrix[0][0];
        for row in 0..n {
            self.matrix[row][row] += ridge;
            for column in 0..=row {
                let dot: f64 = (0..column).map(|k| self.matrix[row][k] * self.matrix[column][k]).sum();
                let value = self.matrix[row][column] - dot;
                if row != column {
                    self.matrix[row][column] = value / self.matrix[column][column];
                } else if value > 0.0 {
                    self.matrix[row][row] = value.sqrt();
                } else {
                    return None;
                }
            }
        }
        for right in &mut self.right {
            for row in 0..n {
                let dot: f64 = (0..row).map(|k| self.matrix[row][k] * right[k]).sum();
                right[row] = (right[row] - dot) / self.matrix[row][row];
            }
            for row in (0..n).rev() {
                let dot: f64 = (row + 1..n).map(|k| self.matrix[k][row] * right[k]).sum();
                right[row] = (right[row] - dot) / self.matrix[row][row];
            }
        }
        Some(self.right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe(colour: impl Fn(f32, f32) -> [f32; 3]) -> Vec<Observation> {
        let grid = (0..400).map(|i| [(i % 20) as f32 / 19.0, (i / 20) as f32 / 19.0]);
        grid.map(|position| Observation { position, colour: colour(position[0], position[1]) }).collect()
    }

    #[test]
    fn a_gradient_is_recovered_under_a_third_of_outliers() {
        let gradient = |x: f32, y: f32| [0.2 + 0.3 * x, 0.5 - 0.2 * y, 0.4 + 0.2 * x * y];
        let field =
            Backdrop::fit(&observe(
                |x, y| if x < 0.33 && y < 0.9 { [1.0, 0.0, 0.0] } else { gradient(x, y) },
            ));
        let (field, _) = field.unwrap();
        for (x, y) in [(0.1, 0.1), (0.5, 0.5), (0.9, 0.2)] {
            for (fitted, expected) in field.at([x, y]).iter().zip(gradient(x, y)) {
                assert!((fitted - expected).abs() < 0.02, "{fitted} {expected}");
            }
        }
    }

    #[test]
    fn basis_holds_every_monomial_once() {
        let terms = basis([0.75, 1.5]);
        let mut expected: Vec<f64> =
            (0..=5).flat_map(|d| (0..=d).map(move |k| 0.5_f64.powi(d - k) * 2.0_f64.powi(k))).collect();
        let mut terms = terms.to_vec();
        terms.sort_by(f64::total_cmp);
        expected.sort_by(f64::total_cmp);
        assert_eq!(terms, expected);
    }

    #[test]
    fn the_residual_is_the_colour_less_the_field() {
        let twisted = observe(|x, y| [x * x * y, 0.3 + 0.5 * y - 0.4 * x * y * y, 0.5 * x + 0.2 * x * x * x]);
        let (field, _) = Backdrop::fit(&twisted).unwrap();
        let colour = Raster::filled(31, 17, [0.5, 0.25, 0.75]);
        let residual = field.residual(&colour);
        for (x, y) in [(0, 0), (30, 16), (12, 3)] {
            let expected = field.at(unit_position(&colour, x, y));
            for ((r, c), f) in residual.at(x, y).iter().zip(colour.at(x, y)).zip(expected) {
                assert!((r - (c - f)).abs() < 1e-5, "{r} for {}", c - f);
            }
        }
    }

    #[test]
    fn a_plain_colour_needs_one_term() {
        assert_eq!(Backdrop::fit(&observe(|_, _| [0.3, 0.6, 0.9])).unwrap().0.terms, 1);
    }
}
