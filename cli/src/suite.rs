//! The networks whose layers are measured: lists of descriptors, built into the program.
//!
//! Promises: each list is the text of `suites/<name>.txt`, every line of which is a canonical
//! descriptor whose name begins with the suite's.
//!
//! Does not: choose a machine or run anything.

use convgen_ir::problem::{Descriptor, DescriptorError, parse_list};

/// A list of problems under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite {
    name: &'static str,
    text: &'static str,
}

/// No suite has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown suite `{given}`, expected one of {}", names().join(", "))]
pub struct UnknownSuite {
    /// The name asked for.
    pub given: String,
}

/// The suite of this name: name and file name are the same word.
macro_rules! suite {
    ($name:literal) => {
        Suite { name: $name, text: include_str!(concat!("../suites/", $name, ".txt")) }
    };
}

/// Every suite, in alphabetical order.
pub const ALL: [Suite; 10] = [
    suite!("conv1d_causal_dw"),
    suite!("deeplab"),
    suite!("efficientnet_b0"),
    suite!("lenet"),
    suite!("mobilenet_v2"),
    suite!("resnet50"),
    suite!("resnext50"),
    suite!("unet3d"),
    suite!("vgg16"),
    suite!("wav2vec2"),
];

impl Suite {
    /// The name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The first line of the list, which says what the network is.
    pub fn title(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches("# ")
    }

    /// The problems, in the order of the list.
    ///
    /// # Errors
    /// None of the lists built in has a line with an error; the tests hold them to it.
    pub fn descriptors(&self) -> Result<Vec<Descriptor>, DescriptorError> {
        parse_list(self.text).into_iter().map(|(_, descriptor)| descriptor).collect()
    }
}

/// The names of all suites.
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(Suite::name).collect()
}

/// The suite of that name.
///
/// # Errors
/// If there is none; the message lists those there are.
pub fn find(name: &str) -> Result<Suite, UnknownSuite> {
    let found = ALL.into_iter().find(|suite| suite.name == name);
    found.ok_or_else(|| UnknownSuite { given: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_list_of_the_repository_is_built_in() {
        let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites");
        let mut files: Vec<String> = std::fs::read_dir(shapes)
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        files.sort();
        assert_eq!(names(), files);
    }

    #[test]
    fn every_line_is_a_problem_named_after_its_suite() {
        for suite in ALL {
            let descriptors = suite.descriptors().unwrap();
            assert!(!descriptors.is_empty() && !suite.title().is_empty(), "{}", suite.name());
            for descriptor in descriptors {
                let name = descriptor.name.unwrap();
                assert!(name.starts_with(&format!("{}:", suite.name())), "{name}");
            }
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let message = find("resnet").unwrap_err().to_string();
        assert!(message.starts_with("unknown suite `resnet`, expected one of conv1d_causal_dw, "));
        assert!(message.ends_with(", wav2vec2"), "{message}");
        assert_eq!(find("vgg16").unwrap().name(), "vgg16");
    }
}
