use super::*;

/// The unit cube from 0 to 1.
pub(crate) fn cube() -> Mesh {
    let positions = (0..8).map(|i| [i & 1, i >> 1 & 1, i >> 2 & 1].map(|bit| bit as f32)).collect();
    let quads = [[0, 2, 3, 1], [4, 5, 7, 6], [0, 1, 5, 4], [2, 6, 7, 3], [0, 4, 6, 2], [1, 3, 7, 5]];
    let triangles = quads.iter().flat_map(|&[a, b, c, d]| [[a, b, c], [a, c, d]]).collect();
    Mesh::new(positions, triangles).unwrap()
}

/// A corner of the unit cube, with its tip at the origin.
pub(crate) fn tetrahedron() -> Mesh {
    let positions = vec![[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    Mesh::new(positions, vec![[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]).unwrap()
}

#[test]
fn triangle_out_of_range_is_refused() {
    let made = Mesh::new(vec![[0.0; 3]; 3], vec![[0, 1, 2], [0, 1, 3]]);
    assert_eq!(made, Err(MeshError::IndexOutOfRange { triangle: 1, vertex: 3, vertices: 3 }));
}

#[test]
fn position_that_is_no_number_is_refused() {
    let made = Mesh::new(vec![[0.0; 3], [0.0, f32::NAN, 0.0]], vec![]);
    assert_eq!(made, Err(MeshError::NotFinite { attribute: "position", vertex: 1 }));
}

#[test]
fn attribute_without_a_value_for_each_vertex_is_refused() {
    let made = cube().with_uvs(vec![[0.0; 2]; 7]);
    assert_eq!(
        made,
        Err(MeshError::AttributeLength { attribute: "texture coordinate", found: 7, vertices: 8 })
    );
}

#[test]
fn volume_does_not_depend_on_the_place() {
    let moved = cube().transformed(&Mat4::from_translation(Vec3::splat(4096.0))).unwrap();
    assert!((moved.signed_volume() - 1.0).abs() < 1e-9);
}

#[test]
fn mirrored_mesh_still_looks_outwards() {
    let mirrored = cube().transformed(&Mat4::from_scale(Vec3::new(-2.0, 1.0, 1.0))).unwrap();
    assert!((mirrored.signed_volume() - 2.0).abs() < 1e-9);
}

#[test]
fn centred_mesh_has_the_extent_that_was_asked_for() {
    let long = cube().transformed(&Mat4::from_scale(Vec3::new(1.0, 4.0, 2.0))).unwrap();
    let bounds = long.centred(2.0).unwrap().bounds().unwrap();
    assert_eq!((bounds.min, bounds.max), ([-0.25, -1.0, -0.5], [0.25, 1.0, 0.5]));
}

#[test]
fn retained_triangles_keep_their_attributes() {
    let colours: Vec<[u8; 4]> = (0..8).map(|i| [i, 0, 0, 255]).collect();
    let part = cube().with_colours(colours).unwrap().retain_triangles(|triangle| triangle >= 10);
    let reds: Vec<u8> = part.colours().unwrap().iter().map(|colour| colour[0]).collect();
    assert_eq!(reds, [1, 3, 5, 7]);
    assert_eq!(part.triangles().len(), 2);
}
