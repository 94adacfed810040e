//! Measures uma against other allocators: in one process, in turns, each through its own functions.
//!
//! ```text
//! cargo run --release -p uma-bench --features peers -- [workload...] [options]
//! ```
//!
//! `--help` lists workloads and options; `docs/performance/README.md` says how it measures and what
//! that flatters. Linux only.
//!
//! # Layers of this program
//!
//! ```text
//!   main, options        what to do
//!   work                 the workloads, generic over ...
//!   subject              ... what is measured
//!   rounds               turns, medians
//!   team                 pinned threads
//!   clock                time, CPUs
//!   report, goals        what is made of the results
//! ```
#![cfg_attr(not(target_os = "linux"), allow(unused))]

#[cfg(target_os = "linux")]
mod clock;
#[cfg(target_os = "linux")]
mod goals;
#[cfg(target_os = "linux")]
mod options;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod rounds;
#[cfg(target_os = "linux")]
mod subject;
#[cfg(target_os = "linux")]
mod sync;
#[cfg(target_os = "linux")]
mod team;
#[cfg(target_os = "linux")]
mod work;

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("uma-bench runs on Linux only");
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, first, name, size] = arguments.as_slice() {
        let measure: Option<fn(&str, &str)> = match first.as_str() {
            work::memory::CHILD => Some(work::memory::measure),
            work::system::CHILD => Some(work::system::measure),
            _ => None,
        };
        if let Some(measure) = measure {
            measure(name, size);
            return std::process::ExitCode::SUCCESS;
        }
    }
    match options::parse().and_then(run) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(target_os = "linux")]
fn run(options: options::Options) -> Result<(), Box<dyn std::error::Error>> {
    let Some(run) = options.run else { return Ok(()) };
    let options::Run { workloads, filter, rounds, passes, threads, cpus, json, svg, markdown } =
        run;
    clock::tick();
    let (machine, before) = clock::machine();
    println!("{machine}; load {before}");
    let mut bench = work::Bench {
        team: team::Team::new(cpus),
        filter: filter.clone(),
        rounds,
        threads,
        rows: Vec::new(),
    };
    for pass in 0..passes {
        for workload in workloads.iter().filter(|workload| pass == 0 || workload.noisy) {
            (workload.run)(&mut bench);
        }
    }
    let after = clock::load();
    let rows = bench.rows;
    print!("{}", report::table::goals_terminal(&rows));

    let versions = subject::NAMES.iter().filter(|name| filter.has(name));
    let versions = versions
        .filter_map(|name| subject::version(name).map(|version| format!("{name} {version}")))
        .collect::<Vec<_>>();
    let facts = [
        format!("Machine: {machine}."),
        format!(
            "Load of the machine (processes that want to run): {before} before, {after} after."
        ),
        format!(
            "{passes} passes of {rounds} rounds. uma reaches its slots by: {}.",
            subject::mode()
        ),
        format!("Versions: uma {}, {}.", env!("CARGO_PKG_VERSION"), versions.join(", ")),
    ];
    if let Some(path) = json {
        std::fs::write(path, format!("{:#}\n", report::json::value(&rows, &facts)))?;
    }
    let mut text = report::table::markdown(&rows, &facts);
    if let Some(directory) = svg {
        let files = report::plot::write(&rows, &directory)?;
        text.push_str("\n## Plots\n\n");
        for file in files {
            text.push_str(&format!("![{file}]({file})\n"));
        }
    }
    if let Some(path) = markdown {
        std::fs::write(path, text)?;
    }
    Ok(())
}
