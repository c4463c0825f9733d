"""Coverage-guided fuzzing of the parser and the checker: `nox -s fuzz -- SECONDS`.

A target is a function that takes bytes and raises an error if a promise of the parser or the checker does not hold. The
first bytes of an input are settings: they decide how the other bytes, the body, are cut into pieces (`tests.fuzz.feeding`).
So an input is a few bytes of settings and then a stream that a person can read.

The inputs in `fixtures/fuzz/` are the smallest set that reaches all the code that any input has reached.
`test_fuzz_corpus.py` runs them in every suite, without a fuzzer.
"""
