//! The plots: lines over a number of sockets or of MiB, both axes logarithmic.

use plotters::coord::combinators::IntoLogRange;
use plotters::prelude::*;
use std::error::Error;
use std::path::Path;

pub struct Line {
    pub name: &'static str,
    pub points: Vec<(f64, f64)>,
}

const COLOURS: [RGBColor; 11] = [
    RGBColor(120, 120, 120),
    RGBColor(0, 0, 0),
    RGBColor(0, 90, 180),
    RGBColor(0, 150, 220),
    RGBColor(0, 130, 60),
    RGBColor(80, 180, 60),
    RGBColor(150, 200, 40),
    RGBColor(230, 140, 0),
    RGBColor(210, 80, 30),
    RGBColor(170, 0, 90),
    RGBColor(200, 0, 0),
];

/// Draws the lines; the axes are labelled as given.
pub fn draw(path: &Path, x: &str, y: &str, lines: &[Line]) -> Result<(), Box<dyn Error>> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let range = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(value), most.max(value)))
    };
    let (left, right) = range(&mut points().map(|point| point.0));
    let (low, high) = range(&mut points().map(|point| point.1));
    let area = SVGBackend::new(path, (900, 520)).into_drawing_area();
    area.fill(&WHITE)?;
    let (chart, key) = area.split_horizontally(680);
    let mut context = ChartBuilder::on(&chart)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(70)
        .build_cartesian_2d((left * 0.9..right * 1.1).log_scale(), (low * 0.8..high * 1.25).log_scale())?;
    context
        .configure_mesh()
        .x_desc(x)
        .y_desc(y)
        .light_line_style(WHITE)
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&|value| format!("{value:.0}"))
        .label_style(("sans-serif", 13))
        .draw()?;
    for (position, line) in lines.iter().enumerate() {
        let colour = COLOURS[position % COLOURS.len()];
        context.draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)))?;
        context.draw_series(line.points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
        let height = 30 + 22 * position as i32;
        key.draw(&PathElement::new(vec![(4, height + 7), (26, height + 7)], colour.stroke_width(3)))?;
        key.draw(&Text::new(line.name, (32, height), ("sans-serif", 14)))?;
    }
    area.present()?;
    Ok(())
}
