//! Scenario files on disk.

use crate::scenario::{self, Scenario, ScenarioError};
use std::path::{Component, Path, PathBuf};

/// A scenario file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// Its name: the path below the folder that was asked for, without ".toml".
    pub name: String,
}

/// Why a scenario file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A folder without scenarios.
    #[error("{}: no scenario (*.toml) in this folder", .0.display())]
    Empty(PathBuf),
    /// It is larger than any scenario.
    #[error("{}: {size} bytes, a scenario has at most {}", path.display(), scenario::MAX_FILE_BYTES)]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// It is not a valid scenario.
    #[error("{0}")]
    Scenario(ScenarioError),
}

/// The scenario files at `path`: itself, or all below it in the order of their names.
pub fn discover(path: &Path) -> Result<Vec<Found>, LoadError> {
    let read = |source| LoadError::Read { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(read)?.is_dir() {
        return Ok(vec![Found { path: path.to_owned(), name: name_of(path) }]);
    }
    let mut found = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(read)? {
            let entry = entry.map_err(read)?.path();
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|e| e == "toml") {
                found.push(Found { name: name_of(&entry), path: entry });
            }
        }
    }
    if found.is_empty() {
        return Err(LoadError::Empty(path.to_owned()));
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// "mission/two-homes" for any path that ends in ".../scenarios/mission/two-homes.toml"; else the last folder and the file.
/// Results go to a folder of that name, so it never leads out of where it is put.
fn name_of(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for component in path.with_extension("").components() {
        match component {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::ParentDir => _ = parts.pop(),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    let last = parts.len().saturating_sub(1);
    let start = match parts[..last].iter().rposition(|p| p == "scenarios") {
        Some(i) => i + 1,
        None => parts.len().saturating_sub(2),
    };
    parts[start..].join("/")
}

/// Reads and parses a scenario file.
pub fn load(found: &Found) -> Result<Scenario, LoadError> {
    let read = |source| LoadError::Read { path: found.path.clone(), source };
    let size = std::fs::metadata(&found.path).map_err(read)?.len();
    if size > scenario::MAX_FILE_BYTES as u64 {
        return Err(LoadError::TooLarge { path: found.path.clone(), size });
    }
    let text = std::fs::read_to_string(&found.path).map_err(read)?;
    let path = found.path.display().to_string();
    let folder = found.path.parent().unwrap_or(Path::new(""));
    let beside = |name: &str| read_beside(folder, name);
    scenario::parse_with(&found.name, &path, &text, &beside).map_err(LoadError::Scenario)
}

/// Reads a file that a scenario names: in the scenario's folder or below it, nowhere else.
fn read_beside(folder: &Path, name: &str) -> Result<String, String> {
    let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    let outside = || "not in the folder of the scenario".to_owned();
    if name.is_empty() || !inside {
        return Err(outside());
    }
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let failed = |error: std::io::Error| error.to_string();
    let path = folder.join(name).canonicalize().map_err(failed)?;
    // A link may lead elsewhere.
    if !path.starts_with(folder.canonicalize().map_err(failed)?) {
        return Err(outside());
    }
    let data = std::fs::metadata(&path).map_err(failed)?;
    if !data.is_file() {
        return Err("not a file".to_owned());
    }
    if data.len() > scenario::MAX_TRACE_BYTES as u64 {
        return Err(format!("{} bytes, a trace has at most {}", data.len(), scenario::MAX_TRACE_BYTES));
    }
    std::fs::read_to_string(&path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_path_below_the_scenarios() {
        assert_eq!(name_of(Path::new("scenarios/mission/two-homes.toml")), "mission/two-homes");
        assert_eq!(name_of(Path::new("/a/scenarios/nat/x.toml")), "nat/x");
        assert_eq!(name_of(Path::new("mine/x.toml")), "mine/x");
        assert_eq!(name_of(Path::new("x.toml")), "x");
        assert_eq!(name_of(Path::new("./x.toml")), "x");
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        assert_eq!(name_of(Path::new("scenarios/../mine/x.toml")), "mine/x");
        assert_eq!(name_of(Path::new("../../x.toml")), "x");
        assert_eq!(name_of(Path::new("/x.toml")), "x");
        assert_eq!(name_of(Path::new("scenarios.toml")), "scenarios");
    }
}
