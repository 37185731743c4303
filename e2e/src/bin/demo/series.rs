//! What the accelerometer measures: three angles between 340 and 360 degrees.

/// The axes, each with a topic of its own.
pub(crate) const AXES: [&str; 3] = ["roll", "pitch", "yaw"];
/// Messages of each axis.
pub(crate) const COUNT: usize = 240;
/// Messages of all axes.
pub(crate) const TOTAL: usize = COUNT * AXES.len();
/// Seconds between two messages of an axis.
pub(crate) const PAUSE: f64 = 0.1;

/// An axis' values as the sensor writes them, one a line: 341.7, and 360 without a decimal point.
pub(crate) fn lines(axis: usize) -> String {
    (0..COUNT).map(|place| format!("{}\n", angle(axis, place))).collect()
}

/// A slow swing, a faster one, and a little noise. What exceeds the circle is 360 exactly.
fn angle(axis: usize, place: usize) -> f64 {
    let (seconds, axis) = (place as f64 * PAUSE, axis as f64);
    let swing = 7.5 * (seconds / (2.0 + axis) + axis).sin();
    let shake = 2.5 * (seconds * (1.7 + axis * 0.6)).cos();
    let noise = 0.6 * (seconds * 131.7 + axis * 17.0).sin();
    let degrees = (352.0 + swing + shake + noise).clamp(340.0, 360.0);
    (degrees * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_axis_stays_in_range_and_touches_360_without_a_decimal_point() {
        for axis in 0..AXES.len() {
            let lines = lines(axis);
            assert_eq!(lines.lines().count(), COUNT);
            assert!(lines.lines().any(|line| line == "360"), "{lines}");
            assert!(lines.lines().any(|line| line.contains('.')), "{lines}");
            assert!(lines.lines().all(|line| (340.0..=360.0).contains(&line.parse::<f64>().unwrap())));
        }
    }
}
