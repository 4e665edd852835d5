//! The runs on a boot's disks, before it and after.

use super::console::Console;
use super::media::Media;
use crate::boot_contract::REPORT_RUNS;
use crate::report::source::{Image, Run};
use anyhow::Result;

/// The names of all runs, by the place in [`Media::places`]; none where a place has no report partition or cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before(Vec<Vec<String>>);

impl Before {
    /// Those that are there now.
    pub fn now(media: &Media) -> Self {
        let runs = |path| Image::open(path).and_then(|image| image.runs()).unwrap_or_default();
        Self(media.places().map(|medium| runs(&medium.path)).collect())
    }
}

/// The run that a boot left, and whether its partition, or the first, was left mounted. It is the one that the console named,
/// else the newest of those that were not there before.
///
/// # Errors
/// There is none, and a place for it cannot be read.
pub fn left(media: &Media, before: &Before, console: &Console) -> Result<(Option<Run>, bool)> {
    let mut places = Vec::new();
    let mut unreadable = None;
    for (number, medium) in media.places().enumerate() {
        let read = || -> Result<_> {
            let image = Image::open(&medium.path)?;
            let dirty = image.filesystem(image.report_partition()?)?.is_dirty();
            let runs = image.runs()?;
            Ok((image, dirty, runs))
        };
        match read() {
            Ok((image, dirty, runs)) => {
                let old = before.0.get(number).map(Vec::as_slice).unwrap_or_default();
                let new: Vec<String> = runs.into_iter().filter(|name| !old.contains(name)).collect();
                places.push((image, dirty, new));
            }
            Err(error) => unreadable = unreadable.or(Some(error)),
        }
    }
    let path = console.verdict.as_ref().and_then(|(_, path)| path.as_deref());
    let named = path.and_then(|path| path.strip_prefix(REPORT_RUNS)).map(|name| name.trim_matches('/'));
    let suffix = console.run_id.as_ref().map(|id| format!("-{id}"));
    let by_path = |name: &String| Some(name.as_str()) == named;
    let by_id = |name: &String| suffix.as_ref().is_some_and(|suffix| name.ends_with(suffix));
    let find = |is_it: &dyn Fn(&String) -> bool| {
        places.iter().find_map(|place| Some((place, place.2.iter().rev().find(|name| is_it(name))?)))
    };
    match (find(&by_path).or_else(|| find(&by_id)).or_else(|| find(&|_| true)), unreadable) {
        (Some(((image, dirty, _), name)), _) => Ok((Some(image.run(name)?), *dirty)),
        (None, Some(error)) => Err(error),
        (None, None) => Ok((None, places.first().is_some_and(|(_, dirty, _)| *dirty))),
    }
}
