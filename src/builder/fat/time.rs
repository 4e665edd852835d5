//! Times on FAT.

/// A time as FAT stores it; UTC, as there is no zone to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DosTime {
    /// Years since 1980, month, day.
    pub date: u16,
    /// Hour, minute, half of the second.
    pub time: u16,
    /// The bit that `time` loses.
    pub odd_second: u8,
}

impl DosTime {
    /// 1980-01-01T00:00:00Z and 2107-12-31T23:59:59Z.
    const RANGE: (u64, u64) = (315_532_800, 4_354_819_199);

    /// The instant `epoch` seconds after 1970, moved into the years that FAT can say: 1980 to 2107.
    pub fn at(epoch: u64) -> Self {
        let epoch = epoch.clamp(Self::RANGE.0, Self::RANGE.1);
        let (mut days, second) = ((epoch - Self::RANGE.0) / 86_400, epoch % 86_400);
        let mut year = 1980;
        // 2100 is the only year from 1980 to 2107 that a multiple of four does not make a leap year.
        let leap = |year: u64| year.is_multiple_of(4) && year != 2100;
        while days >= 365 + u64::from(leap(year)) {
            days -= 365 + u64::from(leap(year));
            year += 1;
        }
        let mut month = 0;
        let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        while days >= lengths[month] {
            days -= lengths[month];
            month += 1;
        }
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        Self {
            date: (((year - 1980) << 9) | ((month as u64 + 1) << 5) | (days + 1)) as u16,
            time: ((hour << 11) | (minute << 5) | (second / 2)) as u16,
            odd_second: (second % 2) as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(epoch: u64) -> String {
        let DosTime { date, time, odd_second } = DosTime::at(epoch);
        format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
            1980 + (date >> 9),
            date >> 5 & 15,
            date & 31,
            time >> 11,
            time >> 5 & 63,
            (time & 31) * 2 + u16::from(odd_second)
        )
    }

    #[test]
    fn instants() {
        assert_eq!(text(0), "1980-01-01 00:00:00");
        assert_eq!(text(951_782_399), "2000-02-28 23:59:59");
        assert_eq!(text(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(text(1_762_000_001), "2025-11-01 12:26:41");
        assert_eq!(text(4_107_542_400), "2100-03-01 00:00:00");
        assert_eq!(text(u64::MAX), "2107-12-31 23:59:59");
    }
}
