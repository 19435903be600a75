//! A tensor in a file: refused, or as many values as its shape says.

use std::path::PathBuf;
use std::sync::LazyLock;

use crate::cli::npy;
use crate::drive::stage;

/// The file that is read, one a process; in memory where the system has such a folder.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
    folder.join(format!("convgen-fuzz-{}.npy", std::process::id()))
});

/// Panics where something is wrong.
pub fn target(data: &[u8]) {
    std::fs::write(&*FILE, data).expect("a file can be written");
    stage("read");
    for rank in 0..5 {
        let Ok(tensor) = npy::read(&FILE, "the tensor", &vec![None; rank]) else { continue };
        assert_eq!(tensor.shape.len(), rank);
        assert_eq!(tensor.shape.iter().product::<u64>(), tensor.values.len() as u64);
        assert!(size_of_val(&*tensor.values) <= data.len(), "more values than bytes");
    }
    // What is left behind by a process that ends here is one small file.
    let _ = std::fs::remove_file(&*FILE);
}
