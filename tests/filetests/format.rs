//! The text of a `.conv` file, split into its parts.
//!
//! ```text
//! # what would break if this failed
//! test schedule                          the kind: what is done with the sections
//! limits reg=64 scratch=4096 unrolled=8  optional; what is left out is generous
//! target lanes=4 registers=16            optional; the register budget of a machine
//! problem:
//! conv1d ic1 oc1 iw8 kw3
//! schedule:
//! split ow by 9                          # error: a tile of 9 does not fit
//! ```
//! A section lasts to the next one. A trailing `# error: text` says that this very line is refused
//! with a message that contains the text. Anything else is refused here, and so is an expectation
//! that nothing met, so that a misspelt word cannot switch a test off.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use convgen_ir::verify::Limits;

/// A test file.
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// The first line: what would break.
    pub purpose: String,
    /// The word after `test`.
    pub kind: String,
    /// What the verifier grants, by `limits` or `target`.
    pub limits: Limits,
    /// The sections in order.
    pub sections: Vec<Section>,
}

/// A section: its lines, numbered as in the file.
pub struct Section {
    /// The word before the colon.
    pub key: String,
    /// The lines that are not blank, without annotations.
    pub lines: Vec<Line>,
}

/// A line of a section.
pub struct Line {
    /// Counted from one, in the file.
    pub number: usize,
    /// The text without the annotation.
    pub text: String,
    /// What the message of the refusal must contain.
    pub error: Option<String>,
    /// Whether it was refused so.
    met: Cell<bool>,
}

/// The keys that introduce a section.
const KEYS: [&str; 4] = ["problem", "schedule", "nest", "expect"];

impl File {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<File, String> {
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        let mut file = File {
            path: path.to_path_buf(),
            purpose: String::new(),
            kind: String::new(),
            limits: Limits::INTERPRETER,
            sections: vec![],
        };
        for (index, line) in text.lines().enumerate() {
            file.line(index + 1, line).map_err(|error| format!("line {}: {error}", index + 1))?;
        }
        match file.kind.is_empty() {
            true => Err("no `test` line".to_string()),
            false => Ok(file),
        }
    }

    /// The file's name without its extension: the name of its snapshot.
    pub fn stem(&self) -> String {
        self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The sections of that key.
    pub fn all<'f>(&'f self, key: &'f str) -> impl Iterator<Item = &'f Section> {
        self.sections.iter().filter(move |section| section.key == key)
    }

    /// The only section of that key, if there is one.
    pub fn one<'f>(&'f self, key: &'f str) -> Result<Option<&'f Section>, String> {
        let mut found = self.all(key);
        match (found.next(), found.next()) {
            (section, None) => Ok(section),
            (_, Some(_)) => Err(format!("a second section `{key}:`")),
        }
    }

    /// Refuses sections that this kind of test has no use for.
    pub fn allow(&self, keys: &[&str]) -> Result<(), String> {
        match self.sections.iter().find(|section| !keys.contains(&section.key.as_str())) {
            Some(section) => Err(format!("`test {}` has no use for `{}:`", self.kind, section.key)),
            None => Ok(()),
        }
    }

    /// Refuses expectations that nothing met.
    pub fn all_met(&self) -> Result<(), String> {
        let mut lines = self.sections.iter().flat_map(|section| &section.lines);
        match lines.find(|line| line.error.is_some() && !line.met.get()) {
            Some(line) => Err(format!("line {}: not refused", line.number)),
            None => Ok(()),
        }
    }

    fn line(&mut self, number: usize, line: &str) -> Result<(), String> {
        let key = line.strip_suffix(':').filter(|key| KEYS.contains(key));
        if number == 1 {
            let purpose = line.strip_prefix("# ").ok_or("the first line says what would break")?;
            self.purpose = purpose.to_string();
        } else if number == 2 {
            let kind = line.strip_prefix("test ").ok_or("the second line is `test <kind>`")?;
            self.kind = kind.to_string();
        } else if let Some(key) = key {
            self.sections.push(Section { key: key.to_string(), lines: vec![] });
        } else if let Some(section) = self.sections.last_mut() {
            section.lines.extend(Line::read(number, line));
        } else if let Some(settings) = line.strip_prefix("limits ") {
            self.limits(settings)?;
        } else if let Some(settings) = line.strip_prefix("target ") {
            self.target(settings)?;
        } else if !line.is_empty() {
            return Err(format!("`{line}` is no key"));
        }
        Ok(())
    }

    fn limits(&mut self, settings: &str) -> Result<(), String> {
        for (key, value) in pairs(settings)? {
            *match key {
                "reg" => &mut self.limits.reg_bytes,
                "scratch" => &mut self.limits.scratch_bytes,
                "unrolled" => &mut self.limits.unrolled,
                _ => return Err(format!("`{key}` is no limit")),
            } = value;
        }
        Ok(())
    }

    /// Lanes of f32 and vector registers: together the bytes of all register tiles.
    fn target(&mut self, settings: &str) -> Result<(), String> {
        match pairs(settings)?[..] {
            [("lanes", lanes), ("registers", registers)] => {
                self.limits.reg_bytes = lanes * registers * size_of::<f32>() as i64;
                Ok(())
            }
            _ => Err("expected `target lanes=<n> registers=<n>`".to_string()),
        }
    }
}

impl Section {
    /// The text with every line at its number, as the parsers are to report it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut at = 1;
        for line in &self.lines {
            text.extend(std::iter::repeat_n('\n', line.number - at));
            text.push_str(&line.text);
            at = line.number;
        }
        text + "\n"
    }

    /// The lines one below the other.
    pub fn compact(&self) -> String {
        self.lines.iter().map(|line| line.text.clone() + "\n").collect()
    }

    /// A line of the section was refused: as expected, or the test fails.
    pub fn refused(&self, number: usize, message: &impl ToString) -> Result<(), String> {
        match self.lines.iter().find(|line| line.number == number) {
            Some(line) => line.refused(message),
            None => Err(format!("line {number}: {}", message.to_string())),
        }
    }

    /// The only line.
    pub fn single(&self) -> Result<&Line, String> {
        match &self.lines[..] {
            [line] => Ok(line),
            lines => Err(format!("`{}:` takes one line, has {}", self.key, lines.len())),
        }
    }
}

impl Line {
    /// The line was refused: as expected, or the test fails.
    pub fn refused(&self, message: &impl ToString) -> Result<(), String> {
        let (number, message) = (self.number, message.to_string());
        match &self.error {
            Some(text) if message.contains(text) => {
                self.met.set(true);
                Ok(())
            }
            Some(text) => Err(format!("line {number}: `{message}` does not contain `{text}`")),
            None => Err(format!("line {number}: {message}")),
        }
    }

    /// None for a blank line.
    fn read(number: usize, line: &str) -> Option<Line> {
        let (text, error) = match line.split_once("# error: ") {
            Some((text, error)) => (text, Some(error.trim().to_string())),
            None => (line, None),
        };
        let text = text.trim_end().to_string();
        let met = Cell::new(false);
        (!text.is_empty() || error.is_some()).then_some(Line { number, text, error, met })
    }
}

/// `key=value key=value`
fn pairs(settings: &str) -> Result<Vec<(&str, i64)>, String> {
    let pair = |setting| {
        let (key, value): (&str, &str) = str::split_once(setting, '=')?;
        Some((key, value.parse().ok()?))
    };
    let bad = || format!("expected `key=number`, found `{settings}`");
    settings.split_whitespace().map(|setting| pair(setting).ok_or_else(bad)).collect()
}
