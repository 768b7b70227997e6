//! Plots as SVG: groups of bars for figures of different kinds, and distributions for times.

use plotters::prelude::*;

/// A bar: from the bottom to the value, with a whisker up to a higher one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bar {
    /// Height.
    pub value: f64,
    /// The end of the whisker: a high percentile for instance; `None`: no whisker.
    pub high: Option<f64>,
}

/// A plot with one group of bars per label, and one bar of each series in every group, on a
/// logarithmic scale.
#[derive(Clone, Debug, Default)]
pub struct Bars {
    /// Above everything.
    pub title: String,
    /// What the numbers are, with the unit.
    pub unit: String,
    /// Names of the groups.
    pub groups: Vec<String>,
    /// Names of the series, with a bar per group.
    pub series: Vec<(String, Vec<Option<Bar>>)>,
}

/// How times are distributed: panels side by side, in each a curve per series that shows which share
/// of its values is at most so long. The times are on a logarithmic scale, the same in all panels.
#[derive(Clone, Debug, Default)]
pub struct Distributions {
    /// Above everything.
    pub title: String,
    /// What the times are, with the unit.
    pub unit: String,
    /// From left to right.
    pub panels: Vec<Panel>,
}

/// A panel of [`Distributions`].
#[derive(Clone, Debug, Default)]
pub struct Panel {
    /// Above it.
    pub name: String,
    /// The curves: a name, which has the same colour in all panels, and the values in any order.
    pub series: Vec<(String, Vec<f64>)>,
}

/// One row of a picture.
#[derive(Clone, Debug)]
pub enum Plot {
    /// Groups of bars.
    Bars(Bars),
    /// Panels of curves.
    Distributions(Distributions),
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Plots below each other.
///
/// # Panics
/// If a plot has no values to span its axes, or too many to be laid out: a fault of the caller.
#[must_use]
pub fn svg(plots: &[Plot]) -> String {
    let width = plots.iter().map(Plot::width).fold(480, u32::max);
    let rows = u32::try_from(plots.len()).expect("a few plots");
    let mut text = String::new();
    {
        let size = (width, (ROW_HEIGHT * rows).max(1));
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        let draw = || -> Drawn {
            root.fill(&WHITE)?;
            for (plot, area) in plots.iter().zip(root.split_evenly((plots.len().max(1), 1))) {
                plot.draw(&area)?;
            }
            root.present()?;
            Ok(())
        };
        draw().expect("an image in memory can be written");
    }
    text
}

impl Plot {
    fn width(&self) -> u32 {
        let count = |n: usize| u32::try_from(n).expect("a few groups and series");
        match self {
            Self::Bars(bars) => {
                let group = BAR_WIDTH * count(bars.series.len()) + 24;
                LABELS_WIDTH + group.max(72) * count(bars.groups.len()) + LEGEND_WIDTH
            }
            Self::Distributions(all) => PANEL_WIDTH * count(all.panels.len()) + LEGEND_WIDTH,
        }
    }

    fn draw(&self, area: &Area<'_>) -> Drawn {
        let (title, unit) = match self {
            Self::Bars(bars) => (&bars.title, &bars.unit),
            Self::Distributions(all) => (&all.title, &all.unit),
        };
        area.draw_text(title, &("sans-serif", 15).into_font().into(), (8, 8))?;
        let grey = ("sans-serif", 12).into_font().color(&RGBColor(0x55, 0x55, 0x55));
        area.draw_text(&format!("{unit}, logarithmic"), &grey, (8, 28))?;
        let (_, below) = area.split_vertically(48);
        let (chart, legend) = below.split_horizontally(self.width() - LEGEND_WIDTH);
        let names: Vec<&str> = match self {
            Self::Bars(bars) => bars.series.iter().map(|(name, _)| name.as_str()).collect(),
            Self::Distributions(all) => all.names(),
        };
        for (y, (name, colour)) in (8..).step_by(18).zip(names.iter().zip(COLOURS.iter().cycle())) {
            legend.draw(&Rectangle::new([(4, y), (15, y + 11)], colour.filled()))?;
            legend.draw_text(name, &("sans-serif", 12).into_font().into(), (20, y))?;
        }
        match self {
            Self::Bars(bars) => bars.draw(&chart),
            Self::Distributions(all) => all.draw(&chart),
        }
    }
}

impl Bars {
    fn draw(&self, area: &Area<'_>) -> Drawn {
        let values = self.series.iter().flat_map(|(_, bars)| bars.iter().flatten());
        let (low, high) = decades(values.flat_map(|bar| [Some(bar.value), bar.high]).flatten());
        let groups = as_f64(self.groups.len());
        let mut chart = ChartBuilder::on(area)
            .margin(6)
            .x_label_area_size(22)
            .y_label_area_size(LABELS_WIDTH - 12)
            .build_cartesian_2d(0.0..groups, (low..high).log_scale())?;
        let name = |x: &f64| -> String {
            let at = (0..self.groups.len()).find(|at| (as_f64(*at) + 0.5 - x).abs() < 0.01);
            at.map(|at| self.groups[at].clone()).unwrap_or_default()
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .disable_x_axis()
            .light_line_style(TRANSPARENT)
            .y_label_formatter(&|value| short(*value))
            .draw()?;
        // Labels of the groups stand in their middle, where an axis of numbers has no mark.
        for at in 0..self.groups.len() {
            let middle = as_f64(at) + 0.5;
            let (x, y) = chart.backend_coord(&(middle, low));
            let (left, top) = area.get_base_pixel();
            let style = ("sans-serif", 12).into_font().into_text_style(area);
            let style = style.pos(plotters::style::text_anchor::Pos::new(
                plotters::style::text_anchor::HPos::Center,
                plotters::style::text_anchor::VPos::Top,
            ));
            area.draw_text(&name(&middle), &style, (x - left, y - top + 6))?;
        }
        let width = 0.8 / as_f64(self.series.len()).max(1.0);
        for (s, (_, bars)) in self.series.iter().enumerate() {
            let colour = COLOURS[s % COLOURS.len()];
            for (group, bar) in bars.iter().enumerate() {
                let Some(bar) = bar else { continue };
                let left = as_f64(group) + 0.1 + width * as_f64(s);
                let corners = [(left, low), (left + 0.9 * width, bar.value.max(low))];
                chart.draw_series([Rectangle::new(corners, colour.filled())])?;
                if let Some(end) = bar.high {
                    let (middle, tip) = (left + 0.45 * width, 0.2 * width);
                    chart.draw_series([
                        PathElement::new([(middle, bar.value.max(low)), (middle, end)], WHISKER),
                        PathElement::new([(middle - tip, end), (middle + tip, end)], WHISKER),
                    ])?;
                }
            }
        }
        Ok(())
    }
}

impl Distributions {
    /// Names of all series, each once, in the order in which they first appear.
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.panels.iter().flat_map(|panel| &panel.series) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }

    fn draw(&self, area: &Area<'_>) -> Drawn {
        let all = self.panels.iter().flat_map(|panel| &panel.series);
        let span = decades(all.flat_map(|(_, values)| values.iter().copied()));
        let names = self.names();
        let panels = area.split_evenly((1, self.panels.len().max(1)));
        for (Panel { name, series }, panel) in self.panels.iter().zip(&panels) {
            let mut chart = ChartBuilder::on(panel)
                .caption(name, ("sans-serif", 13))
                .margin(6)
                .x_label_area_size(22)
                .y_label_area_size(40)
                .build_cartesian_2d((span.0..span.1).log_scale(), 0.0..100.0)?;
            chart
                .configure_mesh()
                .x_labels(6)
                .light_line_style(TRANSPARENT)
                .x_label_formatter(&|value| short(*value))
                .y_label_formatter(&|share| format!("{share:.0} %"))
                .draw()?;
            for (name, values) in series {
                let at = names.iter().position(|known| known == name).unwrap_or(0);
                let colour = COLOURS[at % COLOURS.len()];
                let style = colour.stroke_width(2);
                chart.draw_series(LineSeries::new(steps(values, span.1), style))?;
            }
        }
        Ok(())
    }
}

/// The corners of the curve "which share, in percent, is at most so much", up to `end`.
fn steps(values: &[f64], end: f64) -> Vec<(f64, f64)> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| *value > 0.0).collect();
    sorted.sort_by(f64::total_cmp);
    let share = |n: usize| 100.0 * as_f64(n) / as_f64(sorted.len()).max(1.0);
    let corner = |(n, value): (usize, &f64)| [(*value, share(n)), (*value, share(n + 1))];
    let mut corners: Vec<(f64, f64)> = sorted.iter().enumerate().flat_map(corner).collect();
    corners.extend((!sorted.is_empty()).then_some((end, 100.0)));
    corners
}

/// The powers of ten below and above all values that are above zero.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| *value > 0.0 && value.is_finite())
        .fold((f64::INFINITY, 0.0), |(low, high), value| {
            (f64::min(low, value), f64::max(high, value))
        });
    if high == 0.0 {
        return (1.0, 10.0);
    }
    let (low, high) = (low.log10().floor(), high.log10().ceil());
    (10f64.powf(low), 10f64.powf(high.max(low + 1.0)))
}

#[expect(clippy::cast_precision_loss, reason = "counts of groups, series and rounds are small")]
fn as_f64(n: usize) -> f64 {
    n as f64
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
        v if v >= 100.0 || (v - v.round()).abs() < 1e-9 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{scaled:.digits$}{unit}")
}

/// Colours that can be told apart by everybody (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0xf0, 0xe4, 0x42),
];
const WHISKER: RGBColor = RGBColor(0x33, 0x33, 0x33);

/// Sizes in pixels.
const ROW_HEIGHT: u32 = 340;
const LABELS_WIDTH: u32 = 64;
const LEGEND_WIDTH: u32 = 190;
const BAR_WIDTH: u32 = 16;
const PANEL_WIDTH: u32 = 260;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stand_between_powers_of_ten() {
        assert_eq!(decades([3.0, 6.0, 70.0, 140.0].into_iter()), (1.0, 1000.0));
        assert_eq!(decades([0.0, f64::NAN].into_iter()), (1.0, 10.0));
        assert_eq!(decades([5.0].into_iter()), (1.0, 10.0));
    }

    #[test]
    fn a_picture_has_every_name_once() {
        let bar = |value| Some(Bar { value, high: Some(2.0 * value) });
        let bars = Bars {
            title: "a < b".into(),
            unit: "ms".into(),
            groups: vec!["three".into(), "five".into()],
            series: vec![("mio".into(), vec![bar(3.0), bar(70.0)]), ("std".into(), vec![None])],
        };
        let curve = |name: &str| (name.to_owned(), vec![4.0, 2.0, 9.0]);
        let all = Distributions {
            title: "elections".into(),
            unit: "ms".into(),
            panels: vec![
                Panel { name: "3 members".into(), series: vec![curve("smol"), curve("other")] },
                Panel { name: "5 members".into(), series: vec![curve("smol")] },
            ],
        };
        let text = svg(&[Plot::Bars(bars), Plot::Distributions(all)]);
        assert!(text.starts_with("<svg") && text.contains("a &lt; b"));
        for name in ["mio", "std", "smol", "other", "three", "five", "3 members", "5 members"] {
            assert_eq!(text.matches(&format!("\n{name}\n")).count(), 1, "{name}");
        }
        assert!(text.matches("<polyline").count() >= 3);
    }

    #[test]
    fn a_distribution_rises_by_a_step_per_value() {
        let corners = steps(&[4.0, 2.0], 10.0);
        let expected = [(2.0, 0.0), (2.0, 50.0), (4.0, 50.0), (4.0, 100.0), (10.0, 100.0)];
        assert_eq!(corners, expected);
        assert!(steps(&[], 10.0).is_empty());
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.25, 1.0, 12.34, 950.0, 1234.0, 4.7e6].map(short);
        assert_eq!(shown, ["0.250", "1", "12.3", "950", "1.23k", "4.70M"]);
    }
}
