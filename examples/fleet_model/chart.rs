//! Lines on two axes, as SVG, with a ground of its own: it is read on white pages and on dark ones.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use std::fmt::Debug;
use std::path::Path;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const SIZE: (u32, u32) = (860, 440);
/// What the chart has of the width; the names of the lines stand beside it.
const CHART: u32 = 640;
const GRID: RGBColor = RGBColor(225, 225, 225);
/// Told apart by those who see few colours, too.
const COLOURS: [RGBColor; 8] = [
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
    RGBColor(0, 90, 200),
    RGBColor(0, 158, 115),
    RGBColor(120, 70, 20),
    RGBColor(110, 110, 110),
    RGBColor(120, 160, 255),
    RGBColor(150, 60, 200),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    Log,
}

#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) title: &'static str,
    pub(crate) x: (&'static str, Scale),
    pub(crate) y: (&'static str, Scale),
    pub(crate) lines: Vec<Line>,
}

impl Chart {
    pub(crate) fn draw(mut self, path: &Path) -> Result<()> {
        self.lines.retain(|line| !line.points.is_empty());
        let drawn = self.draw_all(path).map_err(|error| anyhow!("{error}"));
        drawn.map_err(|error| error.context(format!("cannot draw {}", path.display())))
    }

    fn draw_all(&self, path: &Path) -> Result<(), Box<dyn std::error::Error + '_>> {
        let area = SVGBackend::new(path, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(|error| error.to_string())?;
        let area = area
            .titled(self.title, ("sans-serif", 22))
            .map_err(|error| error.to_string())?;
        let (chart, names) = area.split_horizontally(CHART);
        let (x, y) = (self.bounds(|point| point.0), self.bounds(|point| point.1));
        match (self.x.1, self.y.1) {
            (Scale::Log, Scale::Log) => {
                let decades = 10_f64.powf(y.0.log10().floor())..10_f64.powf(y.1.log10().ceil());
                let x = (x.0 / 1.2..x.1 * 1.2).log_scale();
                self.draw_lines(&chart, x, decades.log_scale())?;
            }
            _ => self.draw_lines(&chart, x.0..x.1, 0.0..y.1 * 1.05)?,
        }
        self.draw_names(&names)?;
        area.present().map_err(|error| error.to_string().into())
    }

    /// The least and the largest value that can be drawn.
    fn bounds(&self, of: fn(&(f64, f64)) -> f64) -> (f64, f64) {
        let points = self.lines.iter().flat_map(|line| &line.points);
        points
            .map(of)
            .fold((f64::MAX, 1e-9), |(least, most), value| {
                (least.min(value.max(1e-9)), most.max(value))
            })
    }

    fn draw_lines<X, Y>(&self, area: &Area<'_>, x: X, y: Y) -> Result<(), String>
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d(x, y)
            .map_err(|error| error.to_string())?;
        chart
            .configure_mesh()
            .x_desc(described(self.x))
            .y_desc(described(self.y))
            .x_label_formatter(&|value| label(*value))
            .y_label_formatter(&|value| label(*value))
            .max_light_lines(0)
            .bold_line_style(GRID)
            .label_style(("sans-serif", 14))
            .axis_desc_style(("sans-serif", 15))
            .draw()
            .map_err(|error| error.to_string())?;
        let marks = if self.x.1 == Scale::Log { 3 } else { 0 };
        for (line, colour) in self.coloured() {
            let points = line.points.iter().copied();
            let series = LineSeries::new(points, colour.stroke_width(2)).point_size(marks);
            chart
                .draw_series(series)
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn draw_names(&self, area: &Area<'_>) -> Result<(), String> {
        for (row, (line, colour)) in self.coloured().enumerate() {
            let y = 24 + 24 * row as i32;
            let stroke = PathElement::new([(0, y), (22, y)], colour.stroke_width(2));
            area.draw(&stroke).map_err(|error| error.to_string())?;
            let name = Text::new(line.name.clone(), (30, y - 7), ("sans-serif", 14));
            area.draw(&name).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn coloured(&self) -> impl Iterator<Item = (&Line, RGBColor)> {
        self.lines.iter().zip(COLOURS.into_iter().cycle())
    }
}

fn described((what, scale): (&str, Scale)) -> String {
    match scale {
        Scale::Linear => what.to_owned(),
        Scale::Log => format!("{what} (log scale)"),
    }
}

fn label(value: f64) -> String {
    match value {
        value if value < 10.0 && value.fract().abs() > 1e-6 => format!("{value:.1}"),
        value => thousands(value.round() as u64),
    }
}

/// 1000000 as 1,000,000.
fn thousands(count: u64) -> String {
    match count {
        ..1000 => count.to_string(),
        _ => format!("{},{:03}", thousands(count / 1000), count % 1000),
    }
}
