//! The topology for people: what each party calls a pair, and the tree as a picture.

use super::layout::cut;
use crate::facts::Facts;
use crate::topology::p2pdma::P2pdma;
use crate::topology::{Topology, draw};
use minijinja::HtmlEscape;
use serde::Serialize;
use std::fmt::Write as _;

/// More pairs than this are for programs: the JSON has the facts that they are computed from.
const PAIRS: usize = 256;
/// Sizes of the picture, in pixels.
const LINE: usize = 26;
const BOX: usize = 20;
const INDENT: usize = 26;
const LETTER: usize = 7;

/// What the four parties say of one pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The GPU's PCI address.
    pub gpu: String,
    /// The other device's.
    pub peer: String,
    /// `nvidia-smi topo -m`.
    pub nvidia_smi: String,
    /// NCCL.
    pub nccl: String,
    /// nvidia-fs's distance, computed.
    pub nvidia_fs: String,
    /// The distance that nvidia-fs itself shows; `-` where it shows none.
    pub nvidia_fs_says: String,
    /// The kernel's p2pdma.
    pub p2pdma: String,
}

/// All pairs, as many as people read.
pub fn rows(facts: &Facts) -> Vec<Row> {
    let word = |label: Option<String>| label.unwrap_or_else(|| "?".to_owned());
    let pairs = Topology::of(facts).pairs.into_iter().take(PAIRS);
    pairs
        .map(|pair| Row {
            nvidia_smi: word(pair.nvidia_smi.map(|label| label.to_string())),
            nccl: word(pair.nccl.map(|label| label.to_string())),
            nvidia_fs: word(
                pair.nvfs.map(|d| format!("{}{}", d.distance, if d.cross { " cross" } else { "" })),
            ),
            nvidia_fs_says: pair.nvfs_says.map_or("-".to_owned(), |distance| distance.to_string()),
            p2pdma: match pair.p2pdma {
                P2pdma::Direct => "direct".to_owned(),
                P2pdma::ThroughHostBridge { why, .. } => format!("through the host bridge: {why}"),
                P2pdma::Refused { why, .. } => format!("refused: {why}"),
                P2pdma::Unknown { why } => format!("unknown: {why}"),
            },
            gpu: pair.gpu,
            peer: pair.peer,
        })
        .collect()
}

/// The tree as SVG: one box per device, indented under the bridge above it. Empty where there is nothing to draw.
pub fn svg(facts: &Facts) -> String {
    let text = draw::draw(facts);
    let lines: Vec<(usize, &str)> = text
        .lines()
        .map(|line| {
            let words = line.trim_start_matches([' ', '|', '+', '-', '`']);
            ((line.len() - words.len()) / 3, words)
        })
        .collect();
    if lines.is_empty() {
        return String::new();
    }
    let width = |depth: usize, words: &str| depth * INDENT + words.chars().count() * LETTER + 20;
    let most = lines.iter().map(|(depth, words)| width(*depth, words)).max().unwrap_or_default();
    let height = lines.len() * LINE + 4;
    let mut out = format!(
        "<svg viewBox=\"0 0 {most} {height}\" width=\"{most}\" height=\"{height}\" role=\"img\" aria-label=\"topology\" \
         font-family=\"ui-monospace, monospace\" font-size=\"11\">"
    );
    // The line of the last box at each depth, from which the next one below hangs.
    let mut above: Vec<usize> = Vec::new();
    for (n, (depth, words)) in lines.iter().enumerate() {
        let (x, y) = (depth * INDENT + 2, n * LINE + 2);
        above.truncate(*depth);
        if let Some(parent) = above.last() {
            let (px, py) = ((depth - 1) * INDENT + 12, parent * LINE + 2 + BOX);
            let middle = y + BOX / 2;
            let _ = write!(out, "<path d=\"M{px} {py} V{middle} H{x}\" fill=\"none\" stroke=\"#8a93a0\"/>");
        }
        above.resize(depth + 1, n);
        let fill = match words.split_once("  ").map(|(_, rest)| rest) {
            Some(rest) if rest.starts_with("GPU") => "#cfe8d4",
            Some(rest) if rest.starts_with("NVMe") => "#cfdff5",
            Some(rest) if rest.starts_with("network") => "#ece3f6",
            _ => "#f3f5f8",
        };
        let boxed = words.chars().count() * LETTER + 14;
        let _ = write!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{boxed}\" height=\"{BOX}\" rx=\"4\" fill=\"{fill}\" stroke=\"#8a93a0\"/>\
             <text x=\"{}\" y=\"{}\">{}</text>",
            x + 7,
            y + 14,
            HtmlEscape(words)
        );
    }
    out.push_str("</svg>");
    out
}

/// The pairs as lines of text, a heading first.
pub fn lines(facts: &Facts) -> Vec<String> {
    let line = |row: [&str; 7]| {
        let [gpu, peer, smi, nccl, fs, says, p2pdma] = row;
        let text = format!("  {gpu:<12} {peer:<12} {smi:<10} {nccl:<5} {fs:<10} {says:<5} {p2pdma}");
        cut(&text, super::layout::WIDTH)
    };
    let rows = rows(facts);
    let mut out = Vec::new();
    if !rows.is_empty() {
        out.push(line(["GPU", "peer", "nvidia-smi", "NCCL", "nvidia-fs", "says", "kernel p2pdma"]));
    }
    out.extend(rows.iter().map(|r| {
        line([&r.gpu, &r.peer, &r.nvidia_smi, &r.nccl, &r.nvidia_fs, &r.nvidia_fs_says, &r.p2pdma])
    }));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::tests::sample;

    #[test]
    fn a_pair_in_a_table_and_in_a_picture() {
        let facts = sample().facts;
        let lines = lines(&facts);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[1].contains("0000:01:00.0") && lines[1].contains("0000:00:04.0"));
        let svg = svg(&facts);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>"));
        assert_eq!(svg.matches("<rect ").count(), draw::draw(&facts).lines().count());
        assert_eq!(self::svg(&Facts::default()), "");
    }
}
