//! The `pgweir` program: hands the command line to the library.

fn main() -> std::process::ExitCode {
    pgweir::app::main()
}
