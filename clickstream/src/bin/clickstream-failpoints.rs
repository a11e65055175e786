//! The same program with failpoints, at each of which a test can have it kill itself.

fn main() -> std::process::ExitCode {
    clickstream::main()
}
