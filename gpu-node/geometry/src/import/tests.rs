use super::*;
use crate::export::{obj, ply, stl};
use crate::mesh::tests::{cube, tetrahedron};
use crate::report::MeshReport;

/// A cube with a colour at each corner, and its normals.
fn coloured() -> Model {
    let colours = (0..8u8).map(|corner| [30 * corner, 255 - corner, 7, 255]).collect();
    let normals = vertex_normals(&cube());
    Model::untextured(cube().with_normals(normals).unwrap().with_colours(colours).unwrap())
}

fn close(a: &[[f32; 3]], b: &[[f32; 3]]) -> bool {
    a.len() == b.len() && a.iter().flatten().zip(b.iter().flatten()).all(|(a, b)| (a - b).abs() < 1e-5)
}

#[test]
fn obj_and_ply_read_back_with_their_colours() {
    let model = coloured();
    let read = [read_obj(&obj(&model).unwrap()).unwrap(), read_ply(&ply(&model).unwrap()).unwrap()];
    for found in read {
        assert_eq!(found.mesh.positions(), model.mesh.positions());
        assert_eq!(found.mesh.triangles(), model.mesh.triangles());
        assert_eq!(found.mesh.colours(), model.mesh.colours());
        assert!(close(found.mesh.normals().unwrap(), model.mesh.normals().unwrap()));
    }
}

#[test]
fn files_without_colours_read_back_without() {
    let model = Model::untextured(tetrahedron());
    for found in [read_obj(&obj(&model).unwrap()), read_ply(&ply(&model).unwrap())] {
        let found = found.unwrap().mesh;
        assert_eq!((found.positions(), found.triangles()), (model.mesh.positions(), model.mesh.triangles()));
        assert!(found.colours().is_none());
    }
}

#[test]
fn a_heap_of_triangles_becomes_a_closed_surface_again() {
    let found = read_stl(&stl(&cube()).unwrap()).unwrap().mesh;
    let report = MeshReport::of(&found);
    assert!(report.watertight && report.manifold && report.vertices == 8 && report.faces == 12, "{report:?}");
    assert!((report.volume - MeshReport::of(&cube()).volume).abs() < 1e-9);
}

#[test]
fn damaged_files_are_refused_wherever_they_are_cut() {
    let model = coloured();
    let (ply, stl) = (ply(&model).unwrap(), stl(&model.mesh).unwrap());
    for length in 0..ply.len() {
        assert!(read_ply(&ply[..length]).is_err(), "{length} bytes of the PLY");
    }
    for length in 0..stl.len() {
        assert!(read_stl(&stl[..length]).is_err(), "{length} bytes of the STL");
    }
    let mut greedy = stl.clone();
    greedy[80..84].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(read_stl(&greedy).is_err());
}

#[test]
fn what_our_files_do_not_have_is_refused() {
    for text in [
        "v 0 0\n",
        "v 0 0 0\nf 1 1 1 1\n",
        "f 0 1 2\n",
        "f 1 2\n",
        "v 0 0 0\nf 1 2 3\n",
        "usemtl x\n",
        "v a b c\n",
    ] {
        assert!(read_obj(text.as_bytes()).is_err(), "{text:?}");
    }
    assert!(read_obj(b"\xff\xfe").is_err());
    let header = "ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty double x\nelement face 0\nend_header\n";
    assert!(read_ply(header.as_bytes()).is_err());
}
