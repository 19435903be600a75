//! A tuning database: whatever it says, problems compile, and compute what they did.

use std::sync::Arc;

use convgen::record::Database;
use convgen_ir::problem::ConvProblem;

use super::{BACKENDS, hold, is_small};
use crate::drive::stage;

/// Records of one database that are compiled with, at most.
const RECORDS: usize = 4;

/// Panics where something is wrong.
pub fn target(data: &[u8]) {
    stage("read");
    let mut database = Database::read(data);
    let again = Database::read(&database.text());
    assert_eq!(again.text(), database.text(), "prints as another");
    database.examine();
    let database = Arc::new(database);
    for record in database.records().into_iter().take(RECORDS) {
        let problem: ConvProblem = record.key.problem().parse().expect("a record is sound");
        let of_target = |key: &str| BACKENDS.iter().find(|b| b.compiler.target().key() == key);
        let Some(backend) = of_target(record.key.target()) else { continue };
        stage("find");
        let found = database.find(&problem, backend.compiler.target(), record.key.threads());
        assert!(matches!(found, Ok(Some(_))), "a record is lost: {found:?}");
        stage("compile");
        let compiler = backend.compiler.clone().with_threads(record.key.threads());
        match compiler.with_database(Arc::clone(&database)).compile(&problem) {
            Ok(kernel) if is_small(&problem) => hold(&kernel, backend),
            Ok(_) => {}
            Err(error) => panic!("a legal problem with a record is refused: {error}: {problem}"),
        }
    }
}
