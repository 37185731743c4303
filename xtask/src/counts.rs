//! Adds up what `cargo test` says of itself.

/// Tests that passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
}

impl Counts {
    /// Sums all lines such as `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
    pub(crate) fn in_output(output: &str) -> Self {
        output.lines().filter_map(Self::in_line).fold(Self::default(), Self::plus)
    }

    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { passed: self.passed + other.passed, failed: self.failed + other.failed }
    }

    fn in_line(line: &str) -> Option<Self> {
        let rest = line.trim_start().strip_prefix("test result: ")?;
        let (_, counts) = rest.split_once(". ")?;
        let number = |word: &str| {
            counts.split(';').find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
        };
        Some(Self { passed: number("passed")?, failed: number("failed")? })
    }
}

/// The names of the tests that failed.
pub(crate) fn failed_tests(output: &str) -> Vec<&str> {
    let failed = |line: &'_ str| line.starts_with("test ") && line.ends_with(" ... FAILED");
    let lines = output.lines().filter(|line| failed(line));
    lines.filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_of_several_binaries_are_summed() {
        let output = "\
running 3 tests
test a ... ok

test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s
the test result: was printed by a test
";
        assert_eq!(Counts::in_output(output), Counts { passed: 13, failed: 2 });
    }

    #[test]
    fn the_failed_are_named() {
        let output =
            "test a::works ... ok\ntest b::breaks ... FAILED\ntest result: FAILED. 1 passed; 1 failed;\n";
        assert_eq!(failed_tests(output), ["b::breaks"]);
    }

    #[test]
    fn output_without_a_result_counts_nothing() {
        assert_eq!(Counts::in_output("error: could not compile"), Counts::default());
    }
}
