//! Turns `PLANTED=<fault>` into `--cfg planted="<fault>"`, so that planting a fault rebuilds only this crate.

/// The faults of `src/planted.rs`.
const FAULTS: [&str; 3] = ["hybrid_accepted", "index_past_the_end", "unbounded_recursion"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PLANTED");
    println!("cargo::rustc-check-cfg=cfg(planted, values(\"{}\"))", FAULTS.join("\", \""));
    match std::env::var("PLANTED") {
        Ok(fault) if FAULTS.contains(&fault.as_str()) => println!("cargo::rustc-cfg=planted=\"{fault}\""),
        Ok(fault) if !fault.is_empty() => println!("cargo::error=PLANTED is {fault:?}; it must be one of {FAULTS:?}"),
        Ok(_) | Err(_) => {}
    }
}
