//! The results for programs.

use serde_json::{Value, json};

use crate::goals::GOALS;
use crate::work::Row;

/// Everything as one value.
pub(crate) fn value(rows: &[Row], facts: &[String]) -> Value {
    let results = rows.iter().map(|row| {
        let figures = row.figures.iter().map(|figure| {
            let (low, high) = figure.quartiles();
            json!({
                "subject": figure.name,
                "median": figure.median(),
                "quartiles": [low, high],
                "samples": figure.count(),
                "of_mimalloc": row.ratio(&figure.name, "mimalloc"),
                "of_system": row.ratio(&figure.name, "system"),
            })
        });
        json!({
            "workload": row.workload,
            "size": row.size,
            "threads": row.threads,
            "unit": row.unit,
            "figures": figures.collect::<Vec<_>>(),
        })
    });
    let goals = GOALS.iter().flat_map(|goal| {
        rows.iter().filter_map(move |row| {
            let value = goal.reached_by(row)?;
            Some(json!({
                "workload": goal.workload,
                "size": goal.size,
                "threads": row.threads,
                "what": goal.measure(),
                "is": value,
                "at_most": goal.at_most,
                "limit": goal.limit(row),
                "reached": value <= goal.at_most,
            }))
        })
    });
    json!({
        "facts": facts,
        "results": results.collect::<Vec<_>>(),
        "goals": goals.collect::<Vec<_>>(),
    })
}
