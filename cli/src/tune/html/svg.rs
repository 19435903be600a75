//! Plots as SVG: logarithmic axes, dots, roofs, bars.

use std::fmt::Write;

use super::escaped;

const WIDTH: f64 = 1040.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 46.0;

/// A logarithmic axis from one value to another.
#[derive(Clone, Copy)]
pub struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    /// An axis on which all positive values lie, with some room; one decade if there are none.
    pub fn around(values: impl Iterator<Item = f64>) -> Scale {
        const ROOM: f64 = 1.25;
        let usable = values.filter(|value| value.is_finite() && *value > 0.0);
        let ends = usable.fold(None, |ends: Option<(f64, f64)>, value| match ends {
            None => Some((value, value)),
            Some((low, high)) => Some((low.min(value), high.max(value))),
        });
        let (low, high) = ends.unwrap_or((1.0, 10.0));
        Scale { low: low / ROOM, high: high * ROOM }
    }

    /// The place of a value: 0 at the low end, 1 at the high one.
    fn place(self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        (value / self.low).ln() / (self.high / self.low).ln()
    }

    /// Round values on the axis: 1, 2 and 5 times powers of ten, or powers alone if they are many.
    fn ticks(self) -> Vec<f64> {
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let steps: &[f64] =
            if self.high / self.low > 1e3 { &[1.0] } else { &[1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0] };
        let all = decades.flat_map(|decade| steps.iter().map(move |s| s * 10f64.powi(decade)));
        all.filter(|tick| (self.low..=self.high).contains(tick)).collect()
    }
}

/// A point of a plot.
pub struct Dot {
    /// Its place on the horizontal axis.
    pub x: f64,
    /// And on the vertical one.
    pub y: f64,
    /// Its kind: `default`, `pick` or `tried`.
    pub class: &'static str,
    /// What is said when the pointer rests on it.
    pub about: String,
}

/// A plot being drawn.
pub struct Plot {
    x: Scale,
    y: Scale,
    text: String,
}

impl Plot {
    /// Axes with their names.
    pub fn new(x: Scale, y: Scale, across: &str, up: &str) -> Plot {
        let mut plot = Plot { x, y, text: open(HEIGHT, &format!("{up} against {across}")) };
        for tick in x.ticks() {
            let at = plot.across(tick);
            plot.line((at, TOP), (at, HEIGHT - BOTTOM), "grid");
            plot.label((at, HEIGHT - BOTTOM + 18.0), "middle", &number(tick));
        }
        for tick in y.ticks() {
            let at = plot.up(tick);
            plot.line((LEFT, at), (WIDTH - RIGHT, at), "grid");
            plot.label((LEFT - 8.0, at + 4.0), "end", &number(tick));
        }
        plot.label(((LEFT + WIDTH) / 2.0, HEIGHT - 8.0), "middle", across);
        let _ = writeln!(
            plot.text,
            "<text class=\"dim\" transform=\"translate(16,{:.1}) rotate(-90)\" text-anchor=\"middle\">\
             {}</text>",
            HEIGHT / 2.0,
            escaped(up)
        );
        plot
    }

    fn across(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn up(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - TOP - BOTTOM)
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        // Writing to a string never fails.
        let _ = writeln!(
            self.text,
            "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
            from.0, from.1, to.0, to.1
        );
    }

    fn label(&mut self, at: (f64, f64), anchor: &str, text: &str) {
        let _ = writeln!(
            self.text,
            "<text class=\"dim\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            at.0,
            at.1,
            escaped(text)
        );
    }

    /// A dot.
    pub fn dot(&mut self, dot: Dot) {
        if !(dot.x > 0.0 && dot.y > 0.0 && dot.x.is_finite() && dot.y.is_finite()) {
            return;
        }
        let radius = if dot.class == "tried" { 3.0 } else { 5.0 };
        let _ = writeln!(
            self.text,
            "<circle class=\"{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\"><title>{}</title></circle>",
            dot.class,
            self.across(dot.x),
            self.up(dot.y),
            escaped(&dot.about)
        );
    }

    /// A line between two dots.
    pub fn link(&mut self, from: (f64, f64), to: (f64, f64)) {
        let ends = [from, to].map(|(x, y)| (self.across(x), self.up(y)));
        if ends.iter().all(|(x, y)| x.is_finite() && y.is_finite()) {
            self.line(ends[0], ends[1], "link");
        }
    }

    /// Where both axes say the same.
    pub fn diagonal(&mut self) {
        let (low, high) = (self.x.low.max(self.y.low), self.x.high.min(self.y.high));
        if low < high {
            let ends = [low, high].map(|value| (self.across(value), self.up(value)));
            self.line(ends[0], ends[1], "roof");
        }
    }

    /// What bandwidth allows, up to a peak.
    pub fn roof(&mut self, slope: f64, peak: f64, name: &str) {
        let start = self.x.low.max(self.y.low / slope);
        let end = (peak / slope).min(self.x.high);
        if start < end {
            let ends = [start, end].map(|x| (self.across(x), self.up(slope * x)));
            self.line(ends[0], ends[1], "roof");
            self.label((ends[0].0 + 10.0, ends[0].1 - 6.0), "start", name);
        }
    }

    /// What arithmetic allows.
    pub fn level(&mut self, peak: f64, name: &str) {
        let at = self.up(peak);
        self.line((LEFT, at), (WIDTH - RIGHT, at), "roof");
        self.label((WIDTH - RIGHT - 6.0, at - 5.0), "end", name);
    }

    /// The drawing.
    pub fn finish(self) -> String {
        self.text + "</svg>"
    }
}

/// Bars that begin at zero, with a mark at one: a name, a value, and what it is about.
pub fn bars(bars: &[(String, f64, String)]) -> String {
    const BAR: f64 = 20.0;
    const NAMES: f64 = 260.0;
    const VALUES: f64 = 60.0;
    let height = bars.len() as f64 * BAR + 2.0 * TOP;
    let largest = bars.iter().map(|bar| bar.1).filter(|v| v.is_finite()).fold(1.0, f64::max);
    let across = |value: f64| NAMES + value / largest * (WIDTH - NAMES - VALUES);
    let mut text = open(height, "gains");
    for (i, (name, value, about)) in bars.iter().enumerate() {
        let y = TOP + i as f64 * BAR;
        let value = if value.is_finite() { *value } else { 0.0 };
        let _ = writeln!(
            text,
            "<g><title>{}</title><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><rect \
             class=\"pick\" x=\"{NAMES}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"2\"/><text \
             class=\"dim\" x=\"{:.1}\" y=\"{:.1}\">{value:.2}\u{d7}</text></g>",
            escaped(about),
            NAMES - 8.0,
            y + 14.0,
            escaped(name),
            y + 3.0,
            across(value) - NAMES,
            BAR - 6.0,
            across(value) + 6.0,
            y + 14.0
        );
    }
    let one = across(1.0);
    let _ = writeln!(
        text,
        "<line class=\"roof\" x1=\"{one:.1}\" y1=\"{:.1}\" x2=\"{one:.1}\" y2=\"{:.1}\"/>",
        TOP / 2.0,
        height - TOP / 2.0
    );
    text + "</svg>"
}

fn open(height: f64, about: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n",
        escaped(about)
    )
}

/// A number in three digits.
fn number(value: f64) -> String {
    match value {
        large if large >= 100.0 => format!("{large:.0}"),
        some if some >= 10.0 => format!("{some:.0}"),
        some => {
            let text = format!("{some:.3}");
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        }
    }
}
