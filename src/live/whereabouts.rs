//! Whether somebody has to read the screen: where the report is nowhere else, a machine that switches itself off loses it.

use crate::report::model::Delivery;

/// What is known of where the report is.
#[derive(Clone, Copy, Debug)]
pub enum Whereabouts<'a> {
    /// While the run goes on.
    Expected {
        /// A partition takes it, so far.
        has_partition: bool,
        /// It was asked to be sent, and what sends it is there.
        may_be_sent: bool,
    },
    /// At the end.
    Known {
        /// All of it is on a partition.
        is_written: bool,
        /// What became of sending it, where that was asked for.
        delivery: Option<&'a Delivery>,
    },
}

/// Must the machine stay on? `is_default` says that nobody said what to do afterwards.
pub fn must_stay(is_default: bool, whereabouts: Whereabouts<'_>) -> bool {
    let is_anywhere = match whereabouts {
        Whereabouts::Expected { has_partition, may_be_sent } => has_partition || may_be_sent,
        Whereabouts::Known { is_written, delivery } => {
            is_written || delivery.is_some_and(|delivery| delivery.sent)
        }
    };
    is_default && !is_anywhere
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::delivery::not_sent;

    #[test]
    fn the_machine_stays_on_where_the_report_is_nowhere_else() {
        let failed = not_sent("http://h", "nobody listens there");
        let sent = Delivery { sent: true, error: None, ..failed.clone() };
        let expected = |has_partition, may_be_sent| Whereabouts::Expected { has_partition, may_be_sent };
        let known = |is_written, delivery| Whereabouts::Known { is_written, delivery };
        for (whereabouts, stays) in [
            (expected(false, false), true),
            (expected(true, false), false),
            (expected(false, true), false),
            // Never asked for, or its step failed.
            (known(false, None), true),
            (known(false, Some(&failed)), true),
            (known(false, Some(&sent)), false),
            // The disk was there, and is full now.
            (known(true, None), false),
            (known(true, Some(&failed)), false),
        ] {
            assert_eq!(must_stay(true, whereabouts), stays, "{whereabouts:?}");
            // What was asked for is done.
            assert!(!must_stay(false, whereabouts));
        }
    }
}
