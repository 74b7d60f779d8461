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

#[test]
fn a_case_that_cannot_run_is_bad_and_the_others_run() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let folder = tempfile::tempdir().unwrap();
    for (from, to) in [("vae", "dit_broken"), ("schedulers", "schedulers")] {
        let (from, to) = (format!("{from}.safetensors"), format!("{to}.safetensors"));
        std::fs::copy(golden.join(from), folder.path().join(to)).unwrap();
    }
    let rows = orfeas_nets::parity::run(folder.path()).unwrap();
    let (broken, others): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.case == "dit_broken");
    assert!(!broken.is_empty() && broken.iter().all(|row| !row.ok()));
    assert!(!others.is_empty() && others.iter().all(|row| row.ok()));
}
