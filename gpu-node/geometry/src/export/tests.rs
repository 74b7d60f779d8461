use serde_json::Value;

use super::*;
use crate::import::{ImportError, read_glb};
use crate::mesh::Mesh;
use crate::mesh::tests::{cube, tetrahedron};
use crate::model::ImageFormat;
use crate::normals::vertex_normals;

fn painted() -> Model {
    let normals = vertex_normals(&cube());
    let uvs = (0..8).map(|i| [(i & 1) as f32, (i >> 1 & 1) as f32]).collect();
    let mesh = cube().with_normals(normals).unwrap().with_uvs(uvs).unwrap();
    let pixels = vec![[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255], [9, 9, 9, 255]];
    let texture = Texture::new(2, 2, pixels).unwrap().encode(ImageFormat::Png).unwrap();
    Model::textured(mesh, texture)
}

#[test]
fn a_glb_reads_back_as_what_was_written() {
    for model in [painted(), Model::untextured(tetrahedron())] {
        assert_eq!(read_glb(&glb(&model).unwrap()).unwrap(), model);
    }
}

#[test]
fn a_large_mesh_has_wide_indices() {
    let positions: Vec<[f32; 3]> = (0..70_000).map(|i| [i as f32, (i % 7) as f32, (i % 11) as f32]).collect();
    let triangles = (0..69_998).map(|i| [i, i + 1, i + 2]).collect();
    let model = Model::untextured(Mesh::new(positions, triangles).unwrap());
    assert_eq!(read_glb(&glb(&model).unwrap()).unwrap(), model);
}

#[test]
fn an_empty_mesh_is_no_glb() {
    let empty = Model::untextured(Mesh::default());
    assert!(matches!(glb(&empty), Err(ExportError::Empty)));
}

#[test]
fn a_damaged_glb_is_refused_wherever_it_is_cut() {
    let file = glb(&painted()).unwrap();
    for length in 0..file.len() {
        assert!(read_glb(&file[..length]).is_err(), "{length}");
    }
    let json_length = u32::from_le_bytes(file[12..16].try_into().unwrap()) as usize;
    let json: Value = serde_json::from_slice(&file[20..20 + json_length]).unwrap();
    assert_eq!(json["accessors"][0]["max"], serde_json::json!([1.0, 1.0, 1.0]));
    // A count that leads out of its view, in a file of the right length.
    let mut greedy = file.clone();
    let text = String::from_utf8_lossy(&file[20..20 + json_length]).into_owned();
    let at = text.find("\"count\":8").unwrap() + 20 + "\"count\":".len();
    greedy[at] = b'9';
    assert!(matches!(read_glb(&greedy), Err(ImportError::Container(_))));
}

#[test]
fn an_stl_has_fifty_bytes_a_triangle_and_outward_normals() {
    let file = stl(&tetrahedron()).unwrap();
    assert_eq!(file.len(), 84 + 4 * 50);
    assert_eq!(file[80..84], 4u32.to_le_bytes());
    let normal: Vec<f32> = (0..3)
        .map(|axis| f32::from_le_bytes(file[84 + 4 * axis..88 + 4 * axis].try_into().unwrap()))
        .collect();
    assert_eq!(normal, [0.0, 0.0, -1.0]);
}

#[test]
fn obj_and_ply_take_their_colours_from_the_texture() {
    let model = painted();
    let text = String::from_utf8(obj(&model).unwrap()).unwrap();
    assert!(text.lines().any(|line| line == "v 0 0 0 1.0000 0.0000 0.0000"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("f ")).count(), 12);
    assert!(text.lines().all(|line| !line.starts_with("f ") || !line.contains(" 0")), "counted from one");

    let file = ply(&model).unwrap();
    let end = b"end_header\n";
    let body = file.windows(end.len()).position(|window| window == end).unwrap() + end.len();
    assert_eq!(file.len() - body, 8 * (12 + 12 + 3) + 12 * 13);
    assert_eq!(file[body + 24..body + 27], [255, 0, 0]);
}

#[test]
fn a_texture_seam_is_no_gap_in_obj_and_ply() {
    let cube = cube();
    let corners: Vec<u32> = cube.triangles().iter().flatten().copied().collect();
    let positions = corners.iter().map(|&vertex| cube.positions()[vertex as usize]).collect();
    let split = Mesh::new(positions, (0..12).map(|t| [3 * t, 3 * t + 1, 3 * t + 2]).collect()).unwrap();
    let text = String::from_utf8(obj(&Model::untextured(split.clone())).unwrap()).unwrap();
    assert_eq!(text.lines().filter(|line| line.starts_with("v ")).count(), 8);
    assert!(text.lines().any(|line| line == "f 1 2 3"), "{text}");
    let file = ply(&Model::untextured(split)).unwrap();
    assert!(String::from_utf8_lossy(&file).contains("element vertex 8\n"));
}
