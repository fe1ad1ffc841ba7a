//! Links without the C runtime.

fn main() {
    for arg in
        ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,--gc-sections"]
    {
        println!("cargo::rustc-link-arg-bins={arg}");
    }
}
