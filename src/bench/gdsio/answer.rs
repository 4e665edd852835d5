//! What gdsio_verify printed. Its last word counts, where nothing else that it printed speaks against it: a file that is
//! shorter than what it was to compare is a success to it.

use serde::{Deserialize, Serialize};

/// How many complaints are kept.
const MOST: usize = 16;
/// The longest complaint, in characters.
const LONGEST: usize = 300;

/// One run of gdsio_verify.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct VerifyAnswer {
    /// Bytes that it was to compare, as it understood its options.
    pub bytes: Option<u64>,
    /// Its last word: `Data Verification Success` or `Data Verification Failed`. A transfer that fails makes it say the
    /// latter too.
    pub success: Option<bool>,
    /// Its complaints.
    pub complaints: Vec<String>,
}

/// Words of complaints, in lower case. That there is no libcrypto is none: it then compares the bytes themselves.
const COMPLAINTS: &[&str] = &[
    "***fail",
    "***cu",
    "error",
    "failed",
    "mismatch",
    "unsuccessful",
    "invalid ",
    "bad io size",
    "bad chunk size",
    "pread .",
];
const SUCCESS: &str = "Data Verification Success";
const FAILED: &str = "Data Verification Failed";

impl VerifyAnswer {
    /// Reads what it printed.
    pub fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let mut answer = Self::default();
        for line in lines.map(str::trim) {
            if line.contains(FAILED) {
                answer.success = Some(false);
            } else if line.contains(SUCCESS) {
                answer.success = Some(answer.success.unwrap_or(true));
            } else if let Some(bytes) = asked(line) {
                answer.bytes = Some(bytes);
            } else {
                answer.complain(line);
            }
        }
        answer
    }

    fn complain(&mut self, line: &str) {
        let small = line.to_ascii_lowercase();
        // perror's words come as a line of their own.
        let goes_on =
            line.starts_with(": ") && self.complaints.last().is_some_and(|last| !last.contains(": "));
        if goes_on {
            if let Some(last) = self.complaints.last_mut() {
                last.extend(line.chars().take(LONGEST));
            }
        } else if COMPLAINTS.iter().any(|word| small.contains(word)) && self.complaints.len() < MOST {
            self.complaints.push(line.chars().take(LONGEST).collect());
        }
    }

    /// What it found to differ.
    pub fn mismatch(&self) -> Option<&str> {
        self.complaints.iter().map(String::as_str).find(|line| line.contains("***FAIL") && differs(line))
    }

    /// Why its success is none, where it should have compared `bytes`.
    pub fn nonsense(&self, bytes: u64) -> Option<String> {
        if self.success != Some(true) {
            return Some("it said neither success nor failure".into());
        }
        if let Some(complaint) = self.complaints.first() {
            return Some(format!("it said success, but also: {complaint}"));
        }
        match self.bytes {
            Some(compared) if compared == bytes => None,
            Some(compared) => Some(format!("it compared {compared} bytes, not {bytes}")),
            None => Some("it did not say how much it compared".into()),
        }
    }
}

fn differs(line: &str) -> bool {
    line.to_ascii_lowercase().contains("mismatch")
}

/// `gpu index :0,file :/x, ..., io_requested :16777216, ..., nr ios :2,`: the bytes of all transfers.
fn asked(line: &str) -> Option<u64> {
    let (_, fields) = line.split_once("gpu index :")?;
    // The file's name stands before them and may hold anything.
    let number = |label: &str| {
        let rest = fields.rsplit_once(label)?.1;
        rest.split(',').next()?.trim().parse::<u64>().ok()
    };
    number("io_requested :")?.checked_mul(number("nr ios :")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: &str = "gpu index :0,file :/m, nr ios :9, io_requested :1,x, gpu buffer alignment :0, gpu buffer offset :0, gpu \
                        devptr offset :0, file offset :0, io_requested :1048576, io_chunk_size :4096, bufregister :true, \
                        sync :1, nr ios :2, \nfsync :0, \nBatch mode: 0\n";

    fn answer(rest: &str) -> VerifyAnswer {
        VerifyAnswer::parse(format!("{HEAD}{rest}").lines())
    }

    #[test]
    fn success_counts_where_nothing_speaks_against_it() {
        let good = answer(SUCCESS);
        assert_eq!((good.success, good.bytes, good.nonsense(2 << 20)), (Some(true), Some(2 << 20), None));
        for (text, why) in [
            ("", "it said neither success nor failure"),
            ("Data Verification Succ", "it said neither success nor failure"),
            (FAILED, "it said neither success nor failure"),
            (
                "Pread . Read 5 bytes. requested 9 bytes\nData Verification Success",
                "it said success, but also: Pread . Read 5 bytes. requested 9 bytes",
            ),
        ] {
            assert_eq!(answer(text).nonsense(2 << 20).as_deref(), Some(why), "{text}");
        }
        assert_eq!(good.nonsense(4096).as_deref(), Some("it compared 2097152 bytes, not 4096"));
        let headless = VerifyAnswer::parse(SUCCESS.lines());
        assert_eq!(headless.nonsense(4096).as_deref(), Some("it did not say how much it compared"));
    }

    #[test]
    fn failure_outweighs_success_on_either_side_of_it() {
        for text in [format!("{FAILED}\n{SUCCESS}"), format!("{SUCCESS}\n{FAILED}")] {
            assert_eq!(answer(&text).success, Some(false));
        }
    }

    #[test]
    fn what_differs_is_told_from_what_could_not_be_transferred() {
        let differs = answer("***FAIL Read md5sum Mismatch!!\nData Verification Failed\n");
        assert_eq!(differs.mismatch(), Some("***FAIL Read md5sum Mismatch!!"));
        let failed =
            answer("cuFileRead returned error(ret=-5, step_size=1, bytes_left=1)\nData Verification Failed");
        assert_eq!((failed.mismatch(), failed.complaints.len()), (None, 1));
        let closed = answer("***FAIL open failed\n: Read-only file system\nData Verification Failed\n");
        assert_eq!(closed.complaints, ["***FAIL open failed: Read-only file system"]);
    }

    proptest! {
        #[test]
        fn any_text_is_taken(
            text in "(gpu index :|io_requested :|nr ios :|Data Verification |Success|Failed|\\*\\*\\*FAIL|: |[ a-z0-9,\n\u{e9}])\
                     {0,60}",
            bytes in any::<u64>(),
        ) {
            let answer = VerifyAnswer::parse(text.lines());
            let _ = (answer.mismatch(), answer.nonsense(bytes));
        }

        #[test]
        fn sizes_are_read_as_they_are_printed(size in 0u64..1 << 40, count in 0u64..1 << 10, file in "[a-z :,/]{0,30}") {
            let text = format!(
                "gpu index :0,file :{file}, file offset :0, io_requested :{size}, sync :1, nr ios :{count}, "
            );
            prop_assert_eq!(VerifyAnswer::parse(text.lines()).bytes, Some(size * count));
        }
    }
}
