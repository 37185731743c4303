//! Curves in a terminal, drawn with braille characters: two by four dots in each.

use std::fmt::Write;

/// A curve: what it is called, and its points.
pub struct Curve {
    /// Shown in the legend.
    pub name: String,
    /// Points, x in seconds.
    pub points: Vec<(f64, f64)>,
}

/// The part of the plot that dots are drawn in, in characters.
const WIDTH: usize = 84;
const HEIGHT: usize = 9;

/// Draws each curve in a plot of its own, one below the other on the same axes, at most 100 columns
/// wide. Curves that lie on each other could not be told apart without colours.
pub fn draw(curves: &[Curve], unit: &str) -> String {
    let points = || curves.iter().flat_map(|curve| curve.points.iter().copied());
    let Some((first, last)) = bounds(points().map(|(x, _)| x)) else {
        return "no points to draw\n".into();
    };
    let (low, high) = bounds(points().map(|(_, y)| y)).unwrap_or((0.0, 1.0));
    let margin = ((high - low) * 0.05).max(0.05);
    let frame = Frame { first, last, low: low - margin, high: high + margin };
    let mut text = String::new();
    for curve in curves {
        let _ = writeln!(text, "  {} ({} points, mean by interval, {unit})", curve.name, curve.points.len());
        frame.draw(curve, &mut text);
    }
    let _ = writeln!(text, "{:>9} └{}", "", "─".repeat(WIDTH));
    let _ = writeln!(text, "{:>11}0 s{:>width$.0} s", "", last - first, width = WIDTH - 5);
    text
}

fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |bounds, value| match bounds {
        None => Some((value, value)),
        Some((low, high)) => Some((value.min(low), value.max(high))),
    })
}

/// What the axes span.
struct Frame {
    first: f64,
    last: f64,
    low: f64,
    high: f64,
}

impl Frame {
    fn draw(&self, curve: &Curve, text: &mut String) {
        let mut dots = vec![[0_u8; WIDTH]; HEIGHT];
        let places: Vec<(f64, f64)> = curve.points.iter().map(|point| self.place(*point)).collect();
        for pair in places.windows(2) {
            line(&mut dots, pair[0], pair[1]);
        }
        if let [only] = places.as_slice() {
            line(&mut dots, *only, *only);
        }
        for (row, cells) in dots.iter().enumerate() {
            let height = self.high - (self.high - self.low) * (row as f64 + 0.5) / HEIGHT as f64;
            let label = if row % 4 == 0 { format!("{height:9.1} ┤") } else { format!("{:9} │", "") };
            let drawn: String = cells.iter().map(|dots| braille(*dots)).collect();
            let _ = writeln!(text, "{label}{}", drawn.trim_end());
        }
    }

    /// A point's place in dots, from the upper left.
    fn place(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let across = (WIDTH * 2 - 1) as f64 * (x - self.first) / (self.last - self.first).max(1e-9);
        let down = (HEIGHT * 4 - 1) as f64 * (self.high - y) / (self.high - self.low);
        (across, down)
    }
}

/// Sets the dots between two places.
fn line(dots: &mut [[u8; WIDTH]], from: (f64, f64), to: (f64, f64)) {
    let steps = (to.0 - from.0).abs().max((to.1 - from.1).abs()).ceil().max(1.0);
    for step in 0..=steps as usize {
        let part = step as f64 / steps;
        let x = (from.0 + (to.0 - from.0) * part).round() as usize;
        let y = (from.1 + (to.1 - from.1) * part).round() as usize;
        if let Some(cell) = dots.get_mut(y / 4).and_then(|row| row.get_mut(x / 2)) {
            *cell |= dot(x % 2, y % 4);
        }
    }
}

/// A dot's bit. <https://en.wikipedia.org/wiki/Braille_Patterns#Identifying,_naming_and_ordering>
fn dot(x: usize, y: usize) -> u8 {
    [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]][y][x]
}

fn braille(dots: u8) -> char {
    if dots == 0 { ' ' } else { char::from_u32(0x2800 + u32::from(dots)).unwrap_or(' ') }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_is_at_most_100_columns_wide_and_has_every_curve() {
        let points = |offset: f64| (0..200).map(|i| (f64::from(i), offset + f64::from(i % 17))).collect();
        let curves = ["roll", "yaw"].map(|name| Curve { name: name.into(), points: points(340.0) });
        let plot = draw(&curves, "degrees");
        assert!(plot.lines().all(|line| line.chars().count() <= 100), "{plot}");
        assert!(plot.contains("roll (200 points") && plot.contains("yaw"), "{plot}");
        assert!(plot.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "{plot}");
    }

    #[test]
    fn nothing_and_one_point_can_be_drawn() {
        assert_eq!(draw(&[], "degrees"), "no points to draw\n");
        let one = Curve { name: "pitch".into(), points: vec![(3.0, 360.0)] };
        assert!(draw(&[one], "degrees").contains("360.0"));
    }
}
