//! The command line.

use std::path::PathBuf;

use lexopt::prelude::{Long, Short, Value, ValueExt as _};

use crate::clock;
use crate::subject::{Filter, NAMES, is_there};
use crate::work::{WORKLOADS, Workload};

/// What was asked for: a run, or nothing more (help was printed).
pub(crate) struct Options {
    pub(crate) run: Option<Run>,
}

/// A run.
pub(crate) struct Run {
    pub(crate) workloads: Vec<&'static Workload>,
    pub(crate) filter: Filter,
    pub(crate) rounds: usize,
    pub(crate) passes: usize,
    pub(crate) threads: Vec<usize>,
    pub(crate) cpus: Vec<usize>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) svg: Option<PathBuf>,
    pub(crate) markdown: Option<PathBuf>,
}

const ROUNDS: usize = 15;

fn help() {
    println!(
        "uma-bench [workload...] [options]\n\n\
         \x20 --peers A,B        only these beside uma and mimalloc\n\
         \x20 --only A,B         only these, for a profiler\n\
         \x20 --rounds N         samples of each ({ROUNDS})\n\
         \x20 --passes N         all of it so many times, minutes apart\n\
         \x20 --threads 1,2      on how many threads\n\
         \x20 --cpus 0,1         on which CPUs (all)\n\
         \x20 --json FILE        write the results for programs\n\
         \x20 --markdown FILE    write the results as tables\n\
         \x20 --svg DIRECTORY    write plots\n\nWorkloads (all unless named):"
    );
    for Workload { name, about, .. } in WORKLOADS {
        println!("  {name:<19}{about}");
    }
    let missing = NAMES.iter().filter(|name| !is_there(name)).copied().collect::<Vec<_>>();
    println!("\nPeers: {}", NAMES.join(", "));
    if !missing.is_empty() {
        println!("not compiled in (feature `peers`): {}", missing.join(", "));
    }
}

/// A list of numbers with commas between.
fn numbers(text: &str) -> Result<Vec<usize>, Box<dyn std::error::Error>> {
    let numbers = text.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>();
    numbers.map_err(|_| format!("{text}: numbers with commas between are expected").into())
}

/// Reads the command line.
pub(crate) fn parse() -> Result<Options, Box<dyn std::error::Error>> {
    let mut run = Run {
        workloads: Vec::new(),
        filter: Filter::default(),
        rounds: ROUNDS,
        passes: 1,
        threads: Vec::new(),
        cpus: clock::cpus(),
        json: None,
        svg: None,
        markdown: None,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => {
                help();
                return Ok(Options { run: None });
            }
            Long(how @ ("peers" | "only")) => {
                run.filter.alone = how == "only";
                let names = parser.value()?.string()?;
                run.filter.names = names.split(',').map(str::to_owned).collect();
                for name in &run.filter.names {
                    if !NAMES.contains(&name.as_str()) || !is_there(name) {
                        return Err(format!("{name}: no such peer, or not compiled in").into());
                    }
                }
            }
            Long("rounds") => run.rounds = parser.value()?.parse::<usize>()?.max(1),
            Long("passes") => run.passes = parser.value()?.parse::<usize>()?.max(1),
            Long("threads") => run.threads = numbers(&parser.value()?.string()?)?,
            Long("cpus") => run.cpus = numbers(&parser.value()?.string()?)?,
            Long("json") => run.json = Some(parser.value()?.into()),
            Long("svg") => run.svg = Some(parser.value()?.into()),
            Long("markdown") => run.markdown = Some(parser.value()?.into()),
            Value(name) => {
                let found = WORKLOADS.iter().find(|workload| name == workload.name);
                let found = found.ok_or_else(|| format!("{}: no such workload", name.display()))?;
                run.workloads.push(found);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if run.workloads.is_empty() {
        run.workloads = WORKLOADS.iter().collect();
    }
    if run.threads.is_empty() {
        run.threads = if run.cpus.len() > 1 { vec![1, 2] } else { vec![1] };
    }
    if run.threads.contains(&0) {
        return Err("0 threads can do nothing".into());
    }
    Ok(Options { run: Some(run) })
}
