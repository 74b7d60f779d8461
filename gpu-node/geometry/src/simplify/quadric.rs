//! The quadric error: a sum of squared distances to planes, kept as ten numbers.

use std::ops::AddAssign;

use glam::{DMat3, DVec3};

/// `error(p) = pᵀ A p + 2 b·p + c` with symmetric `A`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Quadric {
    xx: f64,
    xy: f64,
    xz: f64,
    yy: f64,
    yz: f64,
    zz: f64,
    b: DVec3,
    c: f64,
}

impl Quadric {
    /// Squared distance to the plane through `point` with unit `normal`, times `weight`.
    pub(super) fn plane(normal: DVec3, point: DVec3, weight: f64) -> Self {
        let d = -normal.dot(point);
        let w = normal * weight;
        Self {
            xx: w.x * normal.x,
            xy: w.x * normal.y,
            xz: w.x * normal.z,
            yy: w.y * normal.y,
            yz: w.y * normal.z,
            zz: w.z * normal.z,
            b: w * d,
            c: weight * d * d,
        }
    }

    /// Squared distance to `point`, times `weight`.
    pub(super) fn point(point: DVec3, weight: f64) -> Self {
        let (xx, b, c) = (weight, -point * weight, weight * point.length_squared());
        Self { xx, yy: xx, zz: xx, b, c, ..Self::default() }
    }

    /// The error at `p`.
    pub(super) fn error(&self, p: DVec3) -> f64 {
        let ap = DVec3::new(
            self.xx * p.x + self.xy * p.y + self.xz * p.z,
            self.xy * p.x + self.yy * p.y + self.yz * p.z,
            self.xz * p.x + self.yz * p.y + self.zz * p.z,
        );
        // Rounding can make a sum of squares negative.
        (p.dot(ap) + 2.0 * self.b.dot(p) + self.c).max(0.0)
    }

    /// Where the error is least; `None` if that is not one point, within what rounding lets us tell.
    pub(super) fn minimum(&self) -> Option<DVec3> {
        let a = DMat3::from_cols(
            DVec3::new(self.xx, self.xy, self.xz),
            DVec3::new(self.xy, self.yy, self.yz),
            DVec3::new(self.xz, self.yz, self.zz),
        );
        let determinant = a.determinant();
        let scale = (self.xx + self.yy + self.zz) / 3.0;
        if determinant.abs() <= 1e-12 * scale.powi(3) {
            return None;
        }
        let minimum = a.inverse() * -self.b;
        minimum.is_finite().then_some(minimum)
    }
}

impl AddAssign for Quadric {
    fn add_assign(&mut self, other: Self) {
        self.xx += other.xx;
        self.xy += other.xy;
        self.xz += other.xz;
        self.yy += other.yy;
        self.yz += other.yz;
        self.zz += other.zz;
        self.b += other.b;
        self.c += other.c;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_the_squared_distance_to_the_planes() {
        let mut quadric = Quadric::plane(DVec3::X, DVec3::new(2.0, 5.0, 7.0), 1.0);
        quadric += Quadric::plane(DVec3::Y, DVec3::new(0.0, 1.0, 0.0), 3.0);
        assert!((quadric.error(DVec3::new(4.0, 3.0, 9.0)) - (4.0 + 3.0 * 4.0)).abs() < 1e-12);
        assert_eq!(quadric.minimum(), None, "two planes meet in a line");
        quadric += Quadric::plane(DVec3::Z, DVec3::new(0.0, 0.0, -1.0), 1.0);
        assert!(quadric.minimum().unwrap().abs_diff_eq(DVec3::new(2.0, 1.0, -1.0), 1e-12));
    }

    #[test]
    fn a_point_quadric_is_the_squared_distance_to_it() {
        let quadric = Quadric::point(DVec3::new(1.0, 2.0, 3.0), 2.0);
        assert!((quadric.error(DVec3::new(1.0, 2.0, 6.0)) - 18.0).abs() < 1e-12);
        assert!(quadric.minimum().unwrap().abs_diff_eq(DVec3::new(1.0, 2.0, 3.0), 1e-12));
    }
}
