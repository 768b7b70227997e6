//! Plots as SVG: groups of bars on a logarithmic scale, which is what all results here need.

use std::fmt::Write;

/// A bar: from zero to the value, with whiskers up to a higher one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bar {
    /// Height.
    pub value: f64,
    /// The end of the whisker: a high percentile for instance; `None`: no whisker.
    pub high: Option<f64>,
}

/// A plot with one group of bars per label, and one bar of each series in every group.
#[derive(Clone, Debug, Default)]
pub struct Plot {
    /// Above everything.
    pub title: String,
    /// What the numbers are, with the unit.
    pub unit: String,
    /// Names of the groups.
    pub groups: Vec<String>,
    /// Names of the series, with a bar per group.
    pub series: Vec<(String, Vec<Option<Bar>>)>,
}

/// Colours that can be told apart by everybody (Okabe and Ito).
const COLOURS: [&str; 7] =
    ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442"];

const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const TOP: f64 = 56.0;
const BAR: f64 = 16.0;

/// Plots below each other.
#[must_use]
pub fn svg(plots: &[Plot]) -> String {
    let width = plots.iter().map(Plot::width).fold(400.0, f64::max);
    let each = TOP + HEIGHT + 48.0;
    let height = each * plots.iter().map(|_| 1.0).sum::<f64>();
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         width=\"{width:.0}\" height=\"{height:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut y = 0.0;
    for plot in plots {
        let _ = writeln!(text, "<g transform=\"translate(0 {y:.0})\">");
        plot.draw(&mut text);
        text += "</g>\n";
        y += each;
    }
    text + "</svg>\n"
}

impl Plot {
    #[expect(clippy::cast_precision_loss, reason = "a few bars")]
    fn group_width(&self) -> f64 {
        BAR * self.series.len() as f64 + 18.0
    }

    #[expect(clippy::cast_precision_loss, reason = "a few groups")]
    fn width(&self) -> f64 {
        LEFT + self.groups.len() as f64 * self.group_width() + 190.0
    }

    /// The powers of ten below and above all values.
    fn range(&self) -> (i32, i32) {
        let bars = || self.series.iter().flat_map(|(_, bars)| bars.iter().flatten());
        let positive = |value: f64| if value > 0.0 { value } else { 1.0 };
        let low = bars().map(|bar| positive(bar.value)).fold(f64::INFINITY, f64::min);
        let tops = bars().map(|bar| positive(bar.high.unwrap_or(bar.value).max(bar.value)));
        let high = tops.fold(0.0, f64::max);
        if high == 0.0 {
            return (0, 1);
        }
        #[expect(clippy::cast_possible_truncation, reason = "exponents of ten are small")]
        let (low, high) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        (low, high.max(low + 1))
    }

    /// Where a value stands on the page.
    fn y(&self, value: f64) -> f64 {
        let (low, high) = self.range();
        let (low, span) = (f64::from(low), f64::from(high - low));
        let power = if value > 0.0 { value.log10() } else { low };
        TOP + HEIGHT * (1.0 - ((power - low) / span).clamp(0.0, 1.0))
    }

    #[expect(clippy::cast_precision_loss, reason = "a few groups")]
    fn draw(&self, text: &mut String) {
        let right = LEFT + self.groups.len() as f64 * self.group_width();
        let _ = writeln!(
            text,
            "<text x=\"{LEFT}\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{}</text>\n\
             <text x=\"{LEFT}\" y=\"38\" fill=\"#555\">{}, logarithmic</text>",
            escape(&self.title),
            escape(&self.unit)
        );
        let (low, high) = self.range();
        for value in (low..=high).map(|power| 10f64.powi(power)) {
            let y = self.y(value);
            let _ = writeln!(
                text,
                "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                short(value)
            );
        }
        for group in 0..self.groups.len() {
            self.draw_group(group, LEFT + group as f64 * self.group_width() + 9.0, text);
        }
        for (s, (name, _)) in self.series.iter().enumerate() {
            let y = TOP + 18.0 * s as f64;
            let _ = writeln!(
                text,
                "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"11\" height=\"11\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                right + 12.0,
                COLOURS[s % COLOURS.len()],
                right + 28.0,
                y + 10.0,
                escape(name)
            );
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a few series")]
    fn draw_group(&self, group: usize, x: f64, text: &mut String) {
        let label = escape(&self.groups[group]);
        for (s, (name, bars)) in self.series.iter().enumerate() {
            let Some(bar) = bars.get(group).copied().flatten() else { continue };
            let (x, top) = (x + s as f64 * BAR, self.y(bar.value));
            let _ = writeln!(
                text,
                "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
                 fill=\"{}\"><title>{} {label}: {}</title></rect>",
                BAR - 2.0,
                TOP + HEIGHT - top,
                COLOURS[s % COLOURS.len()],
                escape(name),
                short(bar.value)
            );
            if let Some(high) = bar.high {
                let (middle, end) = (x + BAR / 2.0 - 1.0, self.y(high));
                let _ = writeln!(
                    text,
                    "<path d=\"M{middle:.1} {top:.1}V{end:.1}M{:.1} {end:.1}H{:.1}\" \
                     stroke=\"#333\" fill=\"none\"/>",
                    middle - 4.0,
                    middle + 4.0
                );
            }
        }
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            x + BAR * self.series.len() as f64 / 2.0,
            TOP + HEIGHT + 16.0
        );
    }
}

/// A number in few characters: `1.2k`, `30M`.
#[must_use]
pub fn short(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match scaled.abs() {
        v if v >= 100.0 || v == v.round() => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{scaled:.digits$}{unit}")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stand_between_powers_of_ten() {
        let bar = |value| Some(Bar { value, high: Some(2.0 * value) });
        let plot = Plot {
            title: "a < b".into(),
            unit: "ms".into(),
            groups: vec!["3".into(), "5".into()],
            series: vec![("mio".into(), vec![bar(3.0), bar(70.0)]), ("std".into(), vec![None])],
        };
        assert_eq!(plot.range(), (0, 3));
        let text = svg(&[plot]);
        assert!(text.starts_with("<svg") && text.ends_with("</svg>\n"));
        assert!(text.contains("a &lt; b"));
        assert_eq!(text.matches("<title>").count(), 2);
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.25, 1.0, 12.34, 950.0, 1234.0, 4.7e6].map(short);
        assert_eq!(shown, ["0.250", "1", "12.3", "950", "1.23k", "4.70M"]);
    }
}
