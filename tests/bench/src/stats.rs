//! Samples and what is told of them.

/// Times in microseconds.
#[derive(Default, Clone)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn push_nanos(&mut self, nanos: u128) {
        self.0.push(nanos as f64 / 1000.0);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn quantile(&self, quantile: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let position = (sorted.len().saturating_sub(1)) as f64 * quantile;
        sorted.get(position.round() as usize).copied().unwrap_or(f64::NAN)
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    pub fn summary(&self) -> String {
        format!("{:8.0} ({:.0}–{:.0})", self.median(), self.quantile(0.1), self.quantile(0.9))
    }
}
