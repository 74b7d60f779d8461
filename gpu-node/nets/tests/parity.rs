//! The networks against reference results on random weights (`tests/golden`).

use std::path::Path;

#[test]
fn every_tensor_is_as_the_reference_has_it() {
    tch::set_num_threads(1);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let rows = orfeas_nets::parity::run(&folder).unwrap();
    for row in &rows {
        println!("{row}");
    }
    let bad: Vec<String> = rows.iter().filter(|row| !row.ok()).map(ToString::to_string).collect();
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    assert!(!rows.is_empty());
}
