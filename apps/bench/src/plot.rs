//! Lines in a chart, as SVG, and a page that holds several with what there is to say.

use anyhow::anyhow;
use plotters::prelude::*;
use std::fmt::{Display, Write};

/// Pixels.
const SIZE: (u32, u32) = (760, 440);

/// One line of a chart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    /// In the legend.
    pub(crate) name: String,
    /// From left to right.
    pub(crate) points: Vec<(f64, f64)>,
}

/// A chart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chart {
    /// Above it.
    pub(crate) title: String,
    /// Below it.
    pub(crate) x: String,
    /// Left of it.
    pub(crate) y: String,
    /// What stands at 0, 1, 2, … on the horizontal axis; empty: the numbers themselves.
    pub(crate) ticks: Vec<String>,
    /// Its lines.
    pub(crate) lines: Vec<Line>,
}

impl Chart {
    /// Draws it.
    ///
    /// # Errors
    /// There is nothing to draw.
    pub(crate) fn svg(&self) -> anyhow::Result<String> {
        let mut svg = String::new();
        let failed = |error: &dyn Display| anyhow!("\"{}\" cannot be drawn: {error}", self.title);
        self.draw(&mut svg).map_err(|error| failed(&error))?;
        // In a page it is an element like others.
        Ok(svg.split_once("?>").map_or(svg.clone(), |(_, element)| element.trim_start().to_owned()))
    }

    fn draw(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let ((left, right), top) = self.bounds().ok_or("it has no points")?;
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(72)
            .build_cartesian_2d(left..right, 0.0..top)?;
        let tick = |x: &f64| self.tick(*x);
        chart
            .configure_mesh()
            .x_desc(&self.x)
            .y_desc(&self.y)
            .x_labels(if self.ticks.is_empty() { 10 } else { self.ticks.len() })
            .x_label_formatter(&tick)
            .y_label_formatter(&|y| short(*y))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (index, line) in self.lines.iter().enumerate() {
            let color = Palette99::pick(index).to_rgba();
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), color.stroke_width(2)).point_size(3))?
                .label(&line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        }
        let mut legend = chart.configure_series_labels();
        legend.position(SeriesLabelPosition::UpperLeft).background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.2));
        legend.draw()?;
        area.present()?;
        Ok(())
    }

    /// The horizontal bounds, and the upper one; `None` without points.
    fn bounds(&self) -> Option<((f64, f64), f64)> {
        let points = || self.lines.iter().flat_map(|line| &line.points).filter(|(x, y)| x.is_finite() && y.is_finite());
        let left = points().map(|(x, _)| *x).reduce(f64::min)?;
        let right = points().map(|(x, _)| *x).reduce(f64::max)?;
        let top = points().map(|(_, y)| *y).reduce(f64::max)?;
        let right = if right > left { right } else { left + 1.0 };
        Some(((left, right), if top > 0.0 { top * 1.1 } else { 1.0 }))
    }

    fn tick(&self, x: f64) -> String {
        if self.ticks.is_empty() {
            return short(x);
        }
        // The library may ask for a place between two.
        let whole = (x - x.round()).abs() < 1e-6 && x > -0.5;
        if whole { self.ticks.get(x.round() as usize).cloned().unwrap_or_default() } else { String::new() }
    }
}

/// A number as short as it may be.
fn short(value: f64) -> String {
    let text = if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A page of HTML that needs nothing else.
#[derive(Clone, Debug)]
pub(crate) struct Page(String);

impl Page {
    /// With a heading.
    pub(crate) fn new(title: &str) -> Self {
        let title = escaped(title);
        Self(format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n<style>\n\
             body {{ font: 15px/1.5 sans-serif; max-width: 1600px; margin: 2em auto; padding: 0 1em; }}\n\
             figure {{ display: inline-block; margin: 0 1em 1em 0; }}\n\
             table {{ border-collapse: collapse; }} td, th {{ padding: 2px 10px; text-align: right; }}\n\
             th {{ border-bottom: 1px solid; }} td:first-child, th:first-child {{ text-align: left; }}\n\
             </style></head><body>\n<h1>{title}</h1>\n"
        ))
    }

    /// A paragraph.
    pub(crate) fn paragraph(&mut self, text: &str) {
        let _ = writeln!(self.0, "<p>{}</p>", escaped(text));
    }

    /// A heading of a part.
    pub(crate) fn heading(&mut self, text: &str) {
        let _ = writeln!(self.0, "<h2>{}</h2>", escaped(text));
    }

    /// A chart.
    ///
    /// # Errors
    /// As [`Chart::svg`].
    pub(crate) fn chart(&mut self, chart: &Chart) -> anyhow::Result<()> {
        self.figure(&chart.svg()?);
        Ok(())
    }

    /// A chart that is drawn already.
    pub(crate) fn figure(&mut self, svg: &str) {
        let _ = writeln!(self.0, "<figure>{svg}</figure>");
    }

    /// A list.
    pub(crate) fn list(&mut self, items: &[String]) {
        let items: String = items.iter().map(|item| format!("<li>{}</li>\n", escaped(item))).collect();
        let _ = writeln!(self.0, "<ul>\n{items}</ul>");
    }

    /// A table.
    pub(crate) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        let cells = |tag: &str, cells: &mut dyn Iterator<Item = &str>| -> String {
            cells.map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect()
        };
        let _ = writeln!(self.0, "<table>\n<tr>{}</tr>", cells("th", &mut head.iter().copied()));
        for row in rows {
            let _ = writeln!(self.0, "<tr>{}</tr>", cells("td", &mut row.iter().map(String::as_str)));
        }
        self.0.push_str("</table>\n");
    }

    /// The whole of it.
    pub(crate) fn finish(self) -> String {
        self.0 + "</body></html>\n"
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        Chart {
            title: "Throughput & more".into(),
            x: "clients".into(),
            y: "requests/s".into(),
            ticks: ["1", "2", "4"].map(str::to_owned).to_vec(),
            lines: vec![
                Line { name: "3 servers".into(), points: vec![(0.0, 100.0), (1.0, 200.0), (2.0, 300.0)] },
                Line { name: "5 servers".into(), points: vec![(0.0, 50.0), (1.0, 100.0), (2.0, 150.0)] },
            ],
        }
    }

    #[test]
    fn a_chart_has_its_lines_legend_and_ticks() {
        let svg = chart().svg().expect("it has points");
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        for text in ["Throughput &amp; more", "3 servers", "5 servers", "clients", "requests/s"] {
            assert!(svg.contains(text), "{text}");
        }
        // Two lines of three points each, and a circle for each point.
        let lines: Vec<&str> =
            svg.lines().filter(|line| line.contains("<polyline") && line.contains("stroke-width=\"2\"")).collect();
        assert!(lines.len() >= 2, "{svg}");
        assert_eq!(svg.matches("<circle").count(), 6);
    }

    #[test]
    fn higher_values_are_drawn_higher() {
        let svg = chart().svg().expect("it has points");
        let heights: Vec<i32> = svg
            .split("<circle ")
            .skip(1)
            .filter_map(|circle| circle.split_once("cy=\"")?.1.split_once('"')?.0.parse().ok())
            .collect();
        assert!(heights[0] > heights[1] && heights[1] > heights[2], "{heights:?}");
        // The first point of the other line is half as high above the axis.
        assert!(heights[3] > heights[0], "{heights:?}");
    }

    #[test]
    fn nothing_cannot_be_drawn() {
        let empty = Chart { lines: Vec::new(), ..chart() };
        assert!(empty.svg().is_err_and(|error| error.to_string().contains("no points")));
    }

    #[test]
    fn ticks_stand_only_at_their_places() {
        assert_eq!([chart().tick(1.0), chart().tick(0.5), chart().tick(3.0)], ["2", "", ""]);
        assert_eq!([short(1234.56), short(0.5), short(2.0)], ["1235", "0.5", "2"]);
    }

    #[test]
    fn a_page_shows_text_as_it_is() {
        let mut page = Page::new("a < b");
        page.paragraph("1 & 2");
        page.table(&["n"], &[vec!["<b>".to_owned()]]);
        page.list(&["x".to_owned()]);
        page.chart(&chart()).expect("it has points");
        let html = page.finish();
        assert!(
            html.contains("<h1>a &lt; b</h1>")
                && html.contains("<p>1 &amp; 2</p>")
                && html.contains("<td>&lt;b&gt;</td>")
        );
        assert!(html.contains("<svg") && html.ends_with("</html>\n") && !html.contains("<?xml"));
    }
}
