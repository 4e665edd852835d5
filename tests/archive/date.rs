//! Points in time, in the five spellings that archives and HTTP use.

/// Seconds since 1970 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub u64);

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A point in time, taken apart.
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    weekday: &'static str,
}

/// Days from 1970-01-01 to the first day of `year`.
fn days_before(year: u64) -> u64 {
    let y = year - 1;
    365 * (year - 1970) + (y / 4 - y / 100 + y / 400) - (1969 / 4 - 1969 / 100 + 1969 / 400)
}

fn month_lengths(year: u64) -> [u64; 12] {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

impl Instant {
    /// The present, by this machine's clock.
    pub fn now() -> Self {
        Self(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs())
    }

    /// Reads a snapshot service's ID, `YYYYMMDDTHHMMSSZ`.
    pub fn parse_id(id: &str) -> Option<Self> {
        let bytes = id.as_bytes();
        if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
            return None;
        }
        let number = |range: std::ops::Range<usize>| -> Option<u64> {
            let text = id.get(range)?;
            text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
        };
        let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
        let (hour, minute, second) = (number(9..11)?, number(11..13)?, number(13..15)?);
        let lengths = month_lengths(year);
        if year < 1970 || !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        if day == 0 || day > lengths[month as usize - 1] {
            return None;
        }
        let days = days_before(year) + lengths[..month as usize - 1].iter().sum::<u64>() + day - 1;
        Some(Self(days * 86_400 + hour * 3600 + minute * 60 + second))
    }

    fn civil(self) -> Civil {
        let (mut days, seconds) = (self.0 / 86_400, self.0 % 86_400);
        let weekday = DAYS[(days % 7) as usize];
        let mut year = 1970;
        while days_before(year + 1) <= days {
            year += 1;
        }
        days -= days_before(year);
        let mut month = 1;
        for length in month_lengths(year) {
            if days < length {
                break;
            }
            days -= length;
            month += 1;
        }
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        Civil { year, month, day: days + 1, hour, minute, second, weekday }
    }

    /// As a snapshot service's ID.
    pub fn id(self) -> String {
        let c = self.civil();
        format!("{:04}{:02}{:02}T{:02}{:02}{:02}Z", c.year, c.month, c.day, c.hour, c.minute, c.second)
    }

    /// As Launchpad writes `Date`: the hour is padded with a **space** (strftime's `%k`).
    pub fn launchpad(self) -> String {
        let c = self.civil();
        let month = MONTHS[c.month as usize - 1];
        format!(
            "{}, {:02} {} {} {:2}:{:02}:{:02} UTC",
            c.weekday, c.day, month, c.year, c.hour, c.minute, c.second
        )
    }

    /// As Debian writes `Date` and `Valid-Until`.
    pub fn debian(self) -> String {
        self.zoned("UTC")
    }

    /// As `date -R -u` writes it, which is what NVIDIA's publisher calls.
    pub fn rfc2822(self) -> String {
        self.zoned("+0000")
    }

    /// As HTTP headers have it.
    pub fn http(self) -> String {
        self.zoned("GMT")
    }

    fn zoned(self, zone: &str) -> String {
        let c = self.civil();
        let month = MONTHS[c.month as usize - 1];
        format!(
            "{}, {:02} {} {} {:02}:{:02}:{:02} {zone}",
            c.weekday, c.day, month, c.year, c.hour, c.minute, c.second
        )
    }

    /// This instant, `seconds` later.
    pub fn plus(self, seconds: u64) -> Self {
        Self(self.0 + seconds)
    }

    /// This instant, `seconds` earlier.
    pub fn minus(self, seconds: u64) -> Self {
        Self(self.0 - seconds)
    }
}
