//! Plots as SVG, one file for each workload: bars, or lines where something becomes more and more.

use std::path::Path;

use crate::work::Row;

/// Writes all plots into a directory, and returns the names of the files.
///
/// # Errors
///
/// If one cannot be written, or plots were not compiled in.
#[cfg(not(feature = "svg"))]
pub(crate) fn write(_: &[Row], _: &Path) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    Err("plots need the feature `svg`".into())
}

#[cfg(feature = "svg")]
pub(crate) use svg::write;

#[cfg(feature = "svg")]
mod svg {
    use std::error::Error;

    use plotters::coord::Shift;
    use plotters::prelude::*;
    use plotters::style::text_anchor::{HPos, Pos, VPos};

    use super::{Path, Row};
    use crate::report::title;

    const WIDTH: u32 = 860;
    const LEFT: i32 = 190;
    const RIGHT: i32 = 110;
    const BAR: i32 = 16;
    const HEAD: i32 = 30;

    type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
    type Outcome<T> = Result<T, Box<dyn Error>>;

    /// Writes all plots into a directory, and returns the names of the files.
    ///
    /// # Errors
    ///
    /// If one cannot be written.
    pub(crate) fn write(rows: &[Row], directory: &Path) -> Outcome<Vec<String>> {
        std::fs::create_dir_all(directory)?;
        let mut workloads: Vec<&str> = Vec::new();
        for row in rows {
            if !workloads.contains(&row.workload) {
                workloads.push(row.workload);
            }
        }
        let mut files = Vec::new();
        for workload in workloads {
            let rows: Vec<&Row> = rows.iter().filter(|row| row.workload == workload).collect();
            let words = workload.replace('%', "percent");
            let words: Vec<_> = words.split(|c: char| !c.is_ascii_alphanumeric()).collect();
            let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
            let file = format!("{}.svg", words.join("-"));
            let path = directory.join(&file);
            if workload.contains("threads on") || workload.contains("more and more") {
                lines(&rows, &path)?;
            } else {
                bars(&rows, &path)?;
            }
            files.push(file);
        }
        Ok(files)
    }

    fn color(name: &str) -> RGBColor {
        match name {
            "bare arena" | "random segment" | "tags and table" => RGBColor(31, 119, 180),
            "quantum cache" => RGBColor(44, 160, 44),
            "aligned to two pages" => RGBColor(148, 103, 189),
            "uma" | "uma-from-c" | "uma-bare" | "uma-malloc" | "one call" => RGBColor(31, 119, 180),
            "limit" | "pages in use" | "timer alone" | "ten misses" => RGBColor(160, 160, 160),
            "mimalloc" => RGBColor(214, 39, 40),
            "system" => RGBColor(255, 127, 14),
            "jemalloc" => RGBColor(44, 160, 44),
            "snmalloc" => RGBColor(148, 103, 189),
            "rpmalloc" => RGBColor(140, 86, 75),
            _ => RGBColor(200, 170, 120),
        }
    }

    fn text(area: &Area<'_>, at: (i32, i32), size: i32, right: bool, what: &str) -> Outcome<()> {
        let side = if right { HPos::Right } else { HPos::Left };
        let style = ("sans-serif", size).into_text_style(area).pos(Pos::new(side, VPos::Center));
        area.draw(&Text::new(what.to_owned(), at, style))?;
        Ok(())
    }

    /// A group of bars for each row. Bars end at the median; a thin line spans the middle half. What
    /// is more than twelve times mimalloc's is cut off, and its number says how much it is.
    fn bars(rows: &[&Row], path: &Path) -> Outcome<()> {
        let count: usize = rows.iter().map(|row| row.figures.len()).sum();
        let height = HEAD * rows.len() as i32 + BAR * count as i32 + 10;
        let root = SVGBackend::new(path, (WIDTH, height as u32)).into_drawing_area();
        root.fill(&WHITE)?;
        let room = f64::from(WIDTH as i32 - LEFT - RIGHT);
        let mut y = 0;
        for row in rows {
            text(&root, (10, y + HEAD / 2), 14, false, &format!("{} ({})", title(row), row.unit))?;
            y += HEAD;
            let largest = row.figures.iter().map(|figure| figure.median()).fold(0.0, f64::max);
            let middle = row.figure("mimalloc").or(row.figures.first());
            let cut = middle.map_or(largest, |figure| figure.median() * 12.0);
            let scale = room / largest.min(cut).max(1e-9);
            for figure in &row.figures {
                let x = |value: f64| LEFT + (value * scale).clamp(0.0, room) as i32;
                let (low, high) = figure.quartiles();
                let end = x(figure.median());
                let bar = [(LEFT, y + 2), (end.max(LEFT + 1), y + BAR - 2)];
                root.draw(&Rectangle::new(bar, color(&figure.name).filled()))?;
                let spread = vec![(x(low), y + BAR / 2), (x(high), y + BAR / 2)];
                root.draw(&PathElement::new(spread, BLACK))?;
                text(&root, (LEFT - 6, y + BAR / 2), 12, true, &figure.name)?;
                let label = format!("{:.2}", figure.median());
                text(&root, (end.max(x(high)) + 6, y + BAR / 2), 12, false, &label)?;
                y += BAR;
            }
        }
        root.present()?;
        Ok(())
    }

    /// A line for each subject, over the logarithm of how many there are.
    fn lines(rows: &[&Row], path: &Path) -> Outcome<()> {
        let threads = rows.iter().any(|row| row.threads != rows[0].threads);
        let x = |row: &Row| (if threads { row.threads } else { row.size }) as f64;
        let Some(last) = rows.last() else { return Ok(()) };
        let of = if last.workload.contains("segments") { "segments" } else { "zones" };
        let most = rows
            .iter()
            .flat_map(|row| &row.figures)
            .filter(|figure| !matches!(figure.name.as_str(), "system"));
        let most = most.map(|figure| figure.median()).fold(0.0, f64::max) * 1.1;
        let root = SVGBackend::new(path, (WIDTH, 420)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(last.workload, ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(50)
            .build_cartesian_2d((x(rows[0])..x(last)).log_scale(), 0.0..most)?;
        chart
            .configure_mesh()
            .x_desc(if threads { "threads" } else { of })
            .y_desc("ns for a pair")
            .x_label_formatter(&|value| format!("{value:.0}"))
            .draw()?;
        for figure in &last.figures {
            let name = figure.name.clone();
            let shade = color(&name);
            let points = rows.iter().filter_map(|row| Some((x(row), row.figure(&name)?.median())));
            chart.draw_series(LineSeries::new(points, shade.stroke_width(2)))?.label(name).legend(
                move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], shade.stroke_width(2)),
            );
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .border_style(BLACK)
            .background_style(WHITE)
            .draw()?;
        root.present()?;
        Ok(())
    }
}
