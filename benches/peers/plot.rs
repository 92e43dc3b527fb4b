//! Lines on two logarithmic axes, as SVG.

use plotters::prelude::*;
use std::path::Path;

use crate::report::time;

#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    /// What is varied, and nanoseconds.
    pub(crate) points: Vec<(f64, f64)>,
}

impl Line {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            points: Vec::new(),
        }
    }
}

const COLOURS: [RGBColor; 3] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(120, 120, 120),
];

pub(crate) fn draw(path: &Path, title: &str, axis: &str, lines: &[Line]) {
    let points = || lines.iter().flat_map(|line| &line.points);
    let bounds = |of: fn(&(f64, f64)) -> f64| {
        let values = points().map(of);
        values.fold((f64::MAX, 0.0_f64), |(least, most), value| {
            (least.min(value), most.max(value))
        })
    };
    let ((left, right), (bottom, top)) = (bounds(|point| point.0), bounds(|point| point.1));
    let area = SVGBackend::new(path, (720, 420)).into_drawing_area();
    area.fill(&WHITE).expect("a plot");
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(80)
        .build_cartesian_2d(
            (left..right).log_scale(),
            (bottom / 2.0..top * 2.0).log_scale(),
        )
        .expect("a plot");
    chart
        .configure_mesh()
        .x_desc(axis)
        .y_label_formatter(&|nanoseconds| time(*nanoseconds))
        .x_label_formatter(&|value| format!("{value:.0}"))
        .light_line_style(RGBColor(235, 235, 235))
        .draw()
        .expect("a plot");
    for (line, colour) in lines.iter().zip(COLOURS) {
        let series = LineSeries::new(line.points.iter().copied(), colour.stroke_width(2));
        let series = series.point_size(3);
        chart
            .draw_series(series)
            .expect("a plot")
            .label(line.name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], colour));
    }
    let mut labels = chart.configure_series_labels();
    let labels = labels.position(SeriesLabelPosition::UpperLeft);
    labels
        .border_style(BLACK)
        .background_style(WHITE)
        .draw()
        .expect("a plot");
    area.present().expect("a plot");
}
