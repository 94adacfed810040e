//! The C side, from C: every program in `tests/c/<system>/`, also those in C++, is compiled with gcc and
//! all its warnings as errors, and run; so is `tests/c/mixed/`, one program of several files that uses all systems at
//! once. Every header in `include/` is compiled alone, as C11 and as C++17. A program that does not end is killed, and
//! what it said is shown.
//!
//! With `UMA_TEST_VALGRIND=1` (as `ci/valgrind.sh` sets it) the programs run under valgrind instead. What does not
//! run is said on the standard output. `UMA_TEST_C=<part of a name>` picks programs.
#![cfg(all(
    feature = "capi",
    feature = "solaris",
    feature = "umem",
    feature = "linux",
    feature = "netbsd",
    feature = "freebsd"
))]

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const HERE: &str = env!("CARGO_MANIFEST_DIR");
const SYSTEMS: &[&str] = &["common", "solaris", "umem", "linux", "netbsd", "freebsd"];
const WARNINGS: &[&str] = &["-Wall", "-Wextra", "-Werror", "-pedantic"];

/// Says something that stays visible when the test passes: the harness captures `println!` only.
fn say(what: &str) {
    let _ = writeln!(std::io::stdout(), "c.rs: {what}");
}

/// Where cargo has put this test, and the library beside it.
fn libraries() -> PathBuf {
    let me = std::env::current_exe().expect("this program has a path");
    me.parent().expect("it is in a directory").to_owned()
}

fn work() -> PathBuf {
    let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c");
    std::fs::create_dir_all(&work).expect("a directory to work in");
    work
}

fn has(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.expect("a readable directory").path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|has| has == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// What a command said, as an error if it failed.
fn outcome(what: &str, output: std::io::Result<Output>) -> Result<String, String> {
    let output = output.map_err(|error| format!("{what}: {error}"))?;
    let said = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
    if output.status.success() {
        return Ok(said(&output.stdout));
    }
    Err(format!("{what}: {}\n{}{}", output.status, said(&output.stdout), said(&output.stderr)))
}

/// As [`Command::output`], but for a command that hangs: after `patience` it is killed, with all its children.
fn output_within(command: &mut Command, patience: Duration) -> std::io::Result<Output> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    // Files, because a pipe is at its end only when all children are, too.
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let place = work().join(format!("output-{}-{count}", std::process::id()));
    let (stdout, stderr) = (place.with_extension("stdout"), place.with_extension("stderr"));
    command.stdin(Stdio::null()).process_group(0);
    command.stdout(std::fs::File::create(&stdout)?).stderr(std::fs::File::create(&stderr)?);
    let mut child = command.spawn()?;
    let start = Instant::now();
    let status = loop {
        match child.try_wait()? {
            Some(status) => break Some(status),
            None if start.elapsed() > patience => break None,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    if status.is_none() {
        let group = libc::pid_t::try_from(child.id()).expect("a process has a number of that type");
        // SAFETY: it kills the group of the child, which is not waited for yet, so the number is still its own.
        unsafe { libc::killpg(group, libc::SIGKILL) };
        child.wait()?;
    }
    let mut said = (std::fs::read(&stdout)?, std::fs::read(&stderr)?);
    let _ = (std::fs::remove_file(stdout), std::fs::remove_file(stderr));
    match status {
        Some(status) => Ok(Output { status, stdout: said.0, stderr: said.1 }),
        None => {
            said.0.append(&mut said.1);
            let said = String::from_utf8_lossy(&said.0);
            let text = format!("killed, for it had not ended after {patience:?}; it said:\n{said}");
            Err(std::io::Error::new(std::io::ErrorKind::TimedOut, text))
        }
    }
}

/// How long a program may take. Most are done within a second, but machines may be slow and busy.
fn patience(valgrind: bool) -> Duration {
    let wish = std::env::var("UMA_TEST_SECONDS").ok().and_then(|wish| wish.parse().ok());
    Duration::from_secs(if valgrind { 1800 } else { 600 } + wish.unwrap_or(0))
}

/// Does `job` for each, on a few threads, and returns what failed.
fn each<T: Sync>(things: &[T], job: impl Fn(&T) -> Result<(), String> + Sync) -> Vec<String> {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(2, |cpus| cpus.get().min(4));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(thing) = things.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(failure) = job(thing) {
                        failures.lock().unwrap().push(failure);
                    }
                }
            });
        }
    });
    failures.into_inner().unwrap()
}

#[derive(Clone, Copy, PartialEq)]
enum Linked {
    Shared,
    Static,
    /// With the shared library, and the short way compiled in (`uma/hit.h`).
    Inline,
}

/// The sources of a program: a file, or all in a directory.
fn sources(program: &Path) -> Vec<PathBuf> {
    if program.is_dir() { files(program, "c") } else { vec![program.to_owned()] }
}

/// Compiles and links one program.
fn compile(source: &Path, linked: Linked) -> Result<PathBuf, String> {
    let relative = source.strip_prefix(HERE).unwrap_or(source);
    let name = relative.with_extension("").to_string_lossy().replace(['/', '\\'], "-");
    let kind = match linked {
        Linked::Shared => "shared",
        Linked::Static => "static",
        Linked::Inline => "inline",
    };
    let program = work().join(format!("{name}-{kind}"));
    let plus = source.extension().is_some_and(|extension| extension == "cc");
    let (compiler, standard) = if plus { ("g++", "-std=c++17") } else { ("gcc", "-std=c11") };
    let mut gcc = Command::new(compiler);
    gcc.arg(standard).args(WARNINGS).args(["-g", "-O1", "-pthread", "-I"]);
    gcc.arg(Path::new(HERE).join("include")).args(sources(source)).arg("-o").arg(&program);
    let libraries = libraries();
    if linked == Linked::Inline {
        gcc.arg("-DUMA_INLINE_HITS");
    }
    match linked {
        Linked::Shared | Linked::Inline => {
            gcc.arg("-L").arg(&libraries).arg("-luma_kmem_compat");
            // The old kind of path, before LD_LIBRARY_PATH, which cargo sets: there may be older libraries.
            gcc.arg(format!("-Wl,-rpath,{},--disable-new-dtags", libraries.display()));
        }
        Linked::Static => {
            gcc.arg(libraries.join("libuma_kmem_compat.a")).args(["-ldl", "-lm", "-lrt"]);
        }
    }
    outcome(&format!("gcc {}", relative.display()), gcc.output())?;
    Ok(program)
}

fn run(program: &Path, percpu: &str, valgrind: bool) -> Result<String, String> {
    let mut command = if valgrind {
        let mut command = Command::new("valgrind");
        // Children end by abort(3) on purpose. What statics of the library point to is theirs for good.
        command.args(["--quiet", "--error-exitcode=99", "--child-silent-after-fork=yes"]);
        command.args(["--fair-sched=try", "--leak-check=full", "--errors-for-leak-kinds=definite"]);
        command.arg(program);
        command
    } else {
        Command::new(program)
    };
    command
        .env("UMA_PERCPU", percpu)
        .env_remove("UMA_COMPAT")
        .env("UMA_TEST_SHORT", if valgrind { "1" } else { "" });
    let by = if valgrind { "valgrind, " } else { "" };
    let output = output_within(&mut command, patience(valgrind));
    outcome(&format!("{} ({by}UMA_PERCPU={percpu})", program.display()), output)
}

#[test]
fn programs() {
    if !has("gcc") {
        say("NOT RUN: the C tests, because there is no gcc");
        return;
    }
    let wish = std::env::var("UMA_TEST_C").unwrap_or_default();
    let valgrind = std::env::var("UMA_TEST_VALGRIND").is_ok_and(|wish| wish == "1");
    assert!(!valgrind || has("valgrind"), "UMA_TEST_VALGRIND=1, but there is no valgrind");
    let mut sources = Vec::new();
    for system in SYSTEMS {
        let directory = Path::new(HERE).join("tests/c").join(system);
        let mut found = files(&directory, "c");
        let plus = files(&directory, "cc");
        if plus.is_empty() || has("g++") {
            found.extend(plus);
        } else {
            say(&format!("NOT RUN: {} programs in C++, because there is no g++", plus.len()));
        }
        if found.is_empty() {
            say(&format!("NOT RUN: tests of {system}, because there are none"));
        }
        sources.extend(found);
    }
    // First, since it takes longest.
    sources.insert(0, Path::new(HERE).join("tests/c/mixed"));
    sources.retain(|source| source.to_string_lossy().contains(&wish));
    assert!(!sources.is_empty(), "no program's name contains {wish:?}");
    let failures = each(&sources, |source| {
        let program = compile(source, Linked::Shared)?;
        if valgrind {
            run(&program, "locks", true)?;
        } else {
            run(&program, "", false)?;
            run(&program, "locks", false)?;
        }
        Ok(())
    });
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    let count = sources.len();
    if valgrind {
        say(&format!("{count} programs under valgrind"));
    } else {
        say(&format!("{count} programs, each with sequences and with locks"));
        say("NOT RUN: the programs under valgrind (ci/valgrind.sh does)");
    }
}

/// The same with hits that are compiled in: what has most to do with them, from all faces at once, and misuse.
#[test]
fn hits_compiled_in() {
    if !has("gcc") {
        say("NOT RUN: programs with hits compiled in, because there is no gcc");
        return;
    }
    const PROGRAMS: &[&str] = &[
        "mixed",
        "solaris/cache.c",
        "solaris/misuse.c",
        "umem/cache.c",
        "umem/threads.c",
        "linux/cache.c",
        "linux/misuse.c",
        "linux/threads.c",
        "netbsd/cache.c",
        "netbsd/misuse.c",
        "netbsd/threads.c",
        "freebsd/misuse.c",
        "freebsd/zones.c",
        "freebsd/smr.c",
        "linux/names.cc",
        "freebsd/names.cc",
    ];
    let failures = each(PROGRAMS, |program| {
        let source = Path::new(HERE).join("tests/c").join(program);
        if source.extension().is_some_and(|extension| extension == "cc") && !has("g++") {
            say(&format!("NOT RUN: {program} with hits compiled in, because there is no g++"));
            return Ok(());
        }
        let program = compile(&source, Linked::Inline)?;
        let output = run(&program, "", false)?;
        if source.is_dir() && !output.contains("hits are compiled in") {
            say("NOT RUN: hits that are compiled in, because there are no restartable sequences");
        }
        Ok(())
    });
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// The archive is whole, too.
#[test]
fn linked_statically() {
    if !has("gcc") {
        say("NOT RUN: a program linked statically, because there is no gcc");
        return;
    }
    let source = Path::new(HERE).join("tests/c/common/policy.c");
    let said = compile(&source, Linked::Static).and_then(|program| run(&program, "", false));
    said.unwrap_or_else(|error| panic!("{error}"));
}

/// What hangs is ended, with its children, and what it said is not lost.
#[test]
fn hanging() {
    let mut command = Command::new("sh");
    command.args(["-c", "echo this far; (sleep 1000; echo no further) & wait"]);
    let start = Instant::now();
    let error = output_within(&mut command, Duration::from_millis(500)).expect_err("it hangs");
    assert!(start.elapsed() < Duration::from_secs(500));
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert!(error.to_string().contains("this far"), "{error}");
    assert!(!error.to_string().contains("no further"), "{error}");
}

/// A library that was closed goes on: threads and handlers for fork(2) lead into it.
#[test]
fn it_cannot_be_unloaded() {
    if !has("gcc") {
        say("NOT RUN: a library that is closed, because there is no gcc");
        return;
    }
    let source = Path::new(HERE).join("tests/c/unload.c");
    let program = work().join("unload");
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=c11", "-g", "-pthread"]).args(WARNINGS).arg(&source).arg("-o").arg(&program);
    let mut command = Command::new(&program);
    command.arg(libraries().join("libuma_kmem_compat.so"));
    outcome("gcc unload.c", gcc.arg("-ldl").output())
        .and_then(|_| outcome("unload", output_within(&mut command, patience(false))))
        .unwrap_or_else(|error| panic!("{error}"));
}

/// What sources of a system include, where they look for it. docs/compat.md has the same.
#[test]
fn headers_by_the_names_of_each_system() {
    let all = [
        ("uma/solaris", "<sys/kmem.h> <sys/vmem.h> <sys/ddi.h> <sys/sunddi.h>"),
        ("", "<umem.h>"),
        ("uma", "<linux/slab.h> <linux/mempool.h> <linux/gfp.h>"),
        ("uma/netbsd", "<sys/pool.h> <sys/kmem.h> <sys/vmem.h> <uvm/uvm_extern.h>"),
        ("uma/freebsd", "<vm/uma.h> <sys/malloc.h> <sys/smr.h>"),
    ];
    let page = std::fs::read_to_string(Path::new(HERE).join("../docs/compat.md")).unwrap();
    for (folder, headers) in all {
        let listed = format!("`{}`", headers.replace(' ', "`, `"));
        assert!(page.contains(&listed), "docs/compat.md does not say that there is {headers}");
        if !has("gcc") {
            say("NOT RUN: headers by the names of each system, because there is no gcc");
            continue;
        }
        let text: String =
            headers.split(' ').map(|header| format!("#include {header}\n")).collect();
        let file = work().join(format!("own-names-{}.c", folder.replace('/', "-")));
        std::fs::write(&file, text + "int uma_;\n").unwrap();
        let include = Path::new(HERE).join("include");
        let mut gcc = Command::new("gcc");
        gcc.args(["-std=c11", "-fsyntax-only", "-I"]).arg(include.join(folder)).arg("-I");
        gcc.arg(&include).args(WARNINGS).arg(&file);
        outcome(&format!("gcc {headers}"), gcc.output()).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn headers_alone() {
    let headers = files(&Path::new(HERE).join("include"), "h");
    assert!(!headers.is_empty());
    for (compiler, standard) in [("gcc", "-std=c11"), ("g++", "-std=c++17")] {
        if !has(compiler) {
            say(&format!("NOT RUN: headers as {standard}, because there is no {compiler}"));
            continue;
        }
        let failures = each(&headers, |header| {
            // Included, twice, and not compiled by itself: a header is no main file.
            let name = header.strip_prefix(Path::new(HERE).join("include")).unwrap_or(header);
            let text = format!("#include <{0}>\n#include <{0}>\nint uma_;\n", name.display());
            let language = if compiler == "gcc" { "c" } else { "c++" };
            let file = name.to_string_lossy().replace(['/', '\\'], "-");
            let file = work().join(file).with_extension(if compiler == "gcc" { "c" } else { "cc" });
            std::fs::write(&file, text).map_err(|error| error.to_string())?;
            let mut command = Command::new(compiler);
            command.args([standard, "-x", language]).args(WARNINGS).args(["-Wshadow", "-I"]);
            command.arg(Path::new(HERE).join("include")).arg("-fsyntax-only").arg(&file);
            outcome(&format!("{compiler} {}", name.display()), command.output())?;
            command.arg("-DUMA_INLINE_HITS");
            outcome(&format!("{compiler}, inline, {}", name.display()), command.output()).map(drop)
        });
        assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    }
}
