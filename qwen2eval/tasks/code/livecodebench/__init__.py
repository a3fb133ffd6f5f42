"""LiveCodeBench: contest problems with tests on standard input or by call."""
