//! Reno's congestion avoidance (RFC 5681 §3.1).

#[derive(Debug, Default)]
pub(crate) struct Reno {
    /// Segments acknowledged towards the next increase.
    credit: u32,
}

impl Reno {
    /// One segment more for each window acknowledged.
    pub(crate) fn on_ack(&mut self, window: u32, acked: u32) -> u32 {
        self.credit += acked;
        let grown = self.credit / window;
        self.credit %= window;
        window + grown
    }

    /// RFC 5681 equation 4.
    pub(crate) fn after_loss(&mut self, window: u32) -> u32 {
        self.credit = 0;
        (window / 2).max(2)
    }
}
