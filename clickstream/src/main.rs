fn main() -> std::process::ExitCode {
    clickstream::main()
}
