"""Coverage-guided fuzzing of the parser and the checker: `nox -s fuzz -- SECONDS`.

A target takes bytes and raises where a promise does not hold. Its first bytes say how the rest, the body, is fed
(`tests.fuzz.feeding`), so that an input is a few bytes of settings and then a stream that a person can read.

The inputs of `fixtures/fuzz/` are the smallest set that reaches all the code that any input has reached; `test_fuzz_corpus.py` runs them
in every suite, without a fuzzer.
"""
