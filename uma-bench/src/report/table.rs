//! Tables, for the terminal and in Markdown.

use std::fmt::Write as _;

use crate::goals::GOALS;
use crate::report::title;
use crate::rounds::Figure;
use crate::work::Row;

/// A number with three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn ratio(row: &Row, figure: &Figure, to: &str) -> String {
    let ratio = row.figure(to).map(|peer| figure.ratio(peer)).filter(|ratio| ratio.is_finite());
    ratio.map_or("-".to_owned(), number)
}

/// The columns of one subject: name, median, spread, ratio to mimalloc and to the system's malloc.
fn columns(row: &Row, figure: &Figure) -> [String; 5] {
    let (low, high) = figure.quartiles();
    let spread = if figure.count() > 1 {
        format!("{} .. {}", number(low), number(high))
    } else {
        "-".to_owned()
    };
    [
        figure.name.clone(),
        number(figure.median()),
        spread,
        ratio(row, figure, "mimalloc"),
        ratio(row, figure, "system"),
    ]
}

/// One row as a small table for the terminal.
pub(crate) fn terminal(row: &Row) -> String {
    let mut text = format!("\n{} ({})\n", title(row), row.unit);
    for figure in &row.figures {
        let [name, median, spread, mimalloc, system] = columns(row, figure);
        let _ = writeln!(
            text,
            "  {name:<22}{median:>9}   {spread:<18} mimalloc x {mimalloc:<7} system x {system}"
        );
    }
    text
}

/// The goals, and whether they were reached. Only those are listed that something was measured for.
fn goals(rows: &[Row]) -> Vec<[String; 7]> {
    let mut lines = Vec::new();
    for goal in GOALS {
        for row in rows {
            let Some(value) = goal.reached_by(row) else { continue };
            lines.push([
                format!("{}, {}", goal.workload, goal.size),
                row.threads.to_string(),
                goal.measure(),
                format!("{value:.3}"),
                format!("{}", goal.at_most),
                goal.limit(row).map_or("-".to_owned(), |limit| format!("{limit:.3}")),
                if value <= goal.at_most { "reached" } else { "missed" }.to_owned(),
            ]);
        }
    }
    lines
}

const GOAL_HEAD: [&str; 7] = ["goal", "threads", "what", "is", "at most", "limit", ""];

/// The goals for the terminal.
pub(crate) fn goals_terminal(rows: &[Row]) -> String {
    let mut text = "\nGoals\n".to_owned();
    let head = GOAL_HEAD.map(str::to_owned);
    for [goal, threads, what, is, bound, limit, reached] in std::iter::once(head).chain(goals(rows))
    {
        let _ = writeln!(
            text,
            "  {goal:<50}{threads:>7}  {what:<24}{is:>9}{bound:>9}{limit:>9}  {reached}"
        );
    }
    text
}

fn line(text: &mut String, cells: &[String]) {
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn head(text: &mut String, cells: &[&str]) {
    line(text, &cells.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>());
    line(text, &vec!["---".to_owned(); cells.len()]);
}

/// Everything in Markdown. `facts` are lines about the run.
pub(crate) fn markdown(rows: &[Row], facts: &[String]) -> String {
    let mut text =
        "# Results\n\nWritten by `uma-bench --markdown`; do not edit. [How it was measured, \
                    and what to make of it.](README.md)\n\n"
            .to_owned();
    for fact in facts {
        let _ = writeln!(text, "- {fact}");
    }
    text.push_str("\n## Goals\n\n");
    head(&mut text, &GOAL_HEAD);
    for cells in goals(rows) {
        line(&mut text, &cells);
    }
    text.push_str(
        "\n## All figures\n\nThe median of all rounds, the range of the middle half, and the median of \
         the ratios to mimalloc and to the system's malloc in the same round.\n",
    );
    for row in rows {
        let _ = writeln!(text, "\n### {}\n", title(row));
        head(&mut text, &["", row.unit, "spread", "/ mimalloc", "/ system"]);
        for figure in &row.figures {
            line(&mut text, &columns(row, figure));
        }
    }
    text
}
