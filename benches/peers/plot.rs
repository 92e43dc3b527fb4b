//! Lines on two logarithmic axes, as SVG, with a ground of its own: it is read on white pages and on
//! dark ones.

use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

use crate::measure::Figures;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const SIZE: (u32, u32) = (860, 500);
/// What the chart has of the width; the names of the lines stand beside it, where they hide none.
const CHART: u32 = 610;
const GRID: RGBColor = RGBColor(225, 225, 225);
/// Those whose names begin so are drawn so in every plot, in colours that are told apart by those who
/// see few of them, too.
const COLOURS: [(&str, RGBColor); 12] = [
    ("ours, in memory", RGBColor(0, 30, 90)),
    ("ours (get", RGBColor(120, 160, 255)),
    ("ours (dyn", RGBColor(0, 30, 90)),
    ("ours", RGBColor(0, 90, 200)),
    ("vyre", RGBColor(213, 94, 0)),
    ("tokio::fs", RGBColor(0, 158, 115)),
    ("one hop", RGBColor(204, 121, 167)),
    ("inline", RGBColor(230, 159, 0)),
    ("object_store", RGBColor(86, 180, 233)),
    ("cacache", RGBColor(110, 110, 110)),
    ("foyer", RGBColor(120, 70, 20)),
    ("quick_cache", RGBColor(150, 60, 200)),
];

/// What is varied along the axis at the foot.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Axis {
    Bytes,
    Count(&'static str),
}

#[derive(Debug)]
pub(crate) struct Plot {
    title: &'static str,
    axis: Axis,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    name: String,
    /// What is varied, and the median in nanoseconds.
    points: Vec<(f64, f64)>,
}

impl Plot {
    pub(crate) fn new(title: &'static str, axis: Axis) -> Self {
        Self {
            title,
            axis,
            lines: Vec::new(),
        }
    }

    /// Goes on with the line of each of these.
    pub(crate) fn add(&mut self, at: usize, figures: &[Figures]) {
        for Figures { name, median, .. } in figures {
            let point = (at as f64, *median);
            match self.lines.iter_mut().find(|line| line.name == *name) {
                Some(line) => line.points.push(point),
                None => self.lines.push(Line {
                    name: name.clone(),
                    points: vec![point],
                }),
            }
        }
    }

    pub(crate) fn draw(&self, path: &Path) {
        let area = SVGBackend::new(path, SIZE).into_drawing_area();
        area.fill(&WHITE).expect("a plot");
        let area = area.titled(self.title, ("sans-serif", 22)).expect("a plot");
        let (chart, names) = area.split_horizontally(CHART);
        self.draw_chart(&chart);
        self.draw_names(&names);
        area.present().expect("a plot");
    }

    fn draw_chart(&self, area: &Area<'_>) {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let bounds = |of: fn(&(f64, f64)) -> f64| {
            points().map(of).fold((f64::MAX, 0.0_f64), |bounds, value| {
                (bounds.0.min(value), bounds.1.max(value))
            })
        };
        let ((left, right), (bottom, top)) = (bounds(|point| point.0), bounds(|point| point.1));
        let whole_decades = 10_f64.powf(bottom.log10().floor())..10_f64.powf(top.log10().ceil());
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d(
                (left / 1.2..right * 1.2).log_scale().base(self.axis.base()),
                whole_decades.log_scale(),
            )
            .expect("a plot");
        chart
            .configure_mesh()
            .x_desc(self.axis.name())
            .y_desc("median time per hit (log scale)")
            .x_label_formatter(&|value| self.axis.label(*value))
            .y_label_formatter(&|nanoseconds| tick(*nanoseconds))
            .max_light_lines(0)
            .bold_line_style(GRID)
            .label_style(("sans-serif", 14))
            .axis_desc_style(("sans-serif", 15))
            .draw()
            .expect("a plot");
        for (line, style) in self.styled() {
            let points = line.points.iter().copied();
            let series = LineSeries::new(points, style).point_size(3);
            chart.draw_series(series).expect("a plot");
        }
    }

    fn draw_names(&self, area: &Area<'_>) {
        for (row, (line, style)) in self.styled().enumerate() {
            let y = 24 + 24 * row as i32;
            let stroke = PathElement::new([(0, y), (22, y)], style);
            area.draw(&stroke).expect("a plot");
            let name = Text::new(line.name.clone(), (30, y - 7), ("sans-serif", 14));
            area.draw(&name).expect("a plot");
        }
    }

    /// The lines with their styles; ours first, broad and below the others, so that a peer that is
    /// as fast is seen on it.
    fn styled(&self) -> impl Iterator<Item = (&Line, ShapeStyle)> {
        let is_ours = |line: &&Line| line.name.starts_with("ours");
        let (ours, peers): (Vec<_>, Vec<_>) = self.lines.iter().partition(is_ours);
        let ours = ours.into_iter().map(|line| (line, 5));
        let peers = peers.into_iter().map(|line| (line, 2));
        ours.chain(peers)
            .map(|(line, width)| (line, line.colour().stroke_width(width)))
    }
}

impl Line {
    fn colour(&self) -> RGBColor {
        let known = COLOURS.iter().find(|(name, _)| self.name.starts_with(name));
        known.map_or(BLACK, |(_, colour)| *colour)
    }
}

impl Axis {
    /// What the distance of two marks stands for.
    fn base(self) -> f64 {
        match self {
            Self::Bytes => 4.0,
            Self::Count(_) => 10.0,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Bytes => "size of the artifact (log scale)".to_owned(),
            Self::Count(what) => format!("{what} (log scale)"),
        }
    }

    pub(crate) fn label(self, value: f64) -> String {
        match (self, value.round() as u64) {
            (Self::Bytes, bytes @ ..1024) => format!("{bytes} B"),
            (Self::Bytes, bytes @ ..1_048_576) => format!("{} KiB", bytes >> 10),
            (Self::Bytes, bytes) => format!("{} MiB", bytes >> 20),
            (Self::Count(_), count) => thousands(count),
        }
    }
}

/// 1000000 as 1,000,000.
pub(crate) fn thousands(count: u64) -> String {
    match count {
        ..1000 => count.to_string(),
        _ => format!("{},{:03}", thousands(count / 1000), count % 1000),
    }
}

/// A power of ten of nanoseconds.
fn tick(nanoseconds: f64) -> String {
    match nanoseconds {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.0} us", ns / 1e3),
        ns if ns < 1e9 => format!("{:.0} ms", ns / 1e6),
        ns => format!("{:.0} s", ns / 1e9),
    }
}
