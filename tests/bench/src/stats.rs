//! Samples, and what is told of them.

/// Times in microseconds.
#[derive(Default, Clone)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn push_nanos(&mut self, nanos: u128) {
        self.0.push(nanos as f64 / 1000.0);
    }

    pub fn extend_nanos(&mut self, nanos: impl IntoIterator<Item = u128>) {
        nanos.into_iter().for_each(|nanos| self.push_nanos(nanos));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The sample that this share of all does not exceed.
    pub fn quantile(&self, quantile: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let position = (sorted.len() as f64 * quantile).ceil() as usize;
        sorted
            .get(position.saturating_sub(1).min(sorted.len().saturating_sub(1)))
            .copied()
            .unwrap_or(f64::NAN)
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}
