//! An archive's history: what a snapshot service serves under `/<ID>/`, and what the live mirror serves beside it.

use super::body::Body;
use super::date::Instant;
use super::repository::Tree;
use std::sync::Mutex;

/// By-hash files of the publication before stay this long (Launchpad's stay of execution).
const BY_HASH_STAYS: u64 = 86_400;

/// Publications by time. An ID names an instant and maps to the newest publication that is not after it; the live paths,
/// without an ID, are the newest publication of all, and there what was superseded is gone.
#[derive(Debug, Default)]
pub struct History {
    publications: Mutex<Vec<(Instant, Tree)>>,
}

impl History {
    /// Nothing was published yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Publishes a state of the whole archive. Times must rise.
    pub fn publish(&self, at: Instant, mut tree: Tree) {
        let mut publications = self.publications.lock().unwrap();
        if let Some((before, old)) = publications.last() {
            assert!(*before < at, "publications come in order");
            if at.0 - before.0 < BY_HASH_STAYS {
                for (path, body) in old.iter().filter(|(path, _)| path.contains("/by-hash/")) {
                    tree.entry(path.clone()).or_insert_with(|| body.clone());
                }
            }
        }
        publications.push((at, tree));
    }

    /// What stands at `path`, which starts with an ID or, on the live mirror, with `dists/` or `pool/`.
    pub fn find(&self, path: &str) -> Option<(Body, Instant)> {
        let publications = self.publications.lock().unwrap();
        let (at, rest) = match path.split_once('/') {
            Some((id, rest)) if Instant::parse_id(id).is_some() => (Instant::parse_id(id)?, rest),
            _ => (publications.last()?.0, path),
        };
        let (date, tree) = publications.iter().rev().find(|(date, _)| *date <= at)?;
        Some((tree.get(rest)?.clone(), *date))
    }
}
