//! The parameters of a network in a `.npz` file, one array each, under PyTorch's names.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use anyhow::{Context, ensure};
use convgen_nn::Network;
use ndarray::{ArrayD, ArrayViewD};
use ndarray_npy::{NpzReader, NpzWriter};

/// Writes all parameters.
pub fn save(path: &Path, network: &Network) -> anyhow::Result<()> {
    let write = || {
        let mut file = NpzWriter::new(BufWriter::new(File::create(path)?));
        for (name, parameter) in network.parameters() {
            file.add_array(name, &ArrayViewD::from_shape(&*parameter.shape, &parameter.values)?)?;
        }
        file.finish()?;
        anyhow::Ok(())
    };
    write().with_context(|| format!("cannot write `{}`", path.display()))
}

/// Replaces all parameters.
pub fn load(path: &Path, network: &mut Network) -> anyhow::Result<()> {
    let mut read = || {
        let mut file = NpzReader::new(BufReader::new(File::open(path)?))?;
        let parameters = network.parameters();
        let expected: Vec<_> = parameters.map(|(name, p)| (name, p.shape.clone())).collect();
        for (name, shape) in expected {
            let array: ArrayD<f32> = file.by_name(&name).with_context(|| name.clone())?;
            let given = array.shape();
            ensure!(given == shape, "`{name}` has shape {given:?}, expected {shape:?}");
            let values: Vec<f32> = array.iter().copied().collect();
            network.set_parameter(&name, &values)?;
        }
        anyhow::Ok(())
    };
    read().with_context(|| format!("cannot read `{}`", path.display()))
}
