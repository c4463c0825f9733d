"""Measure the false alarms of the dual run, and the differences that it finds. Run it by hand; it is no test.

    python tests/benchmarks/bench_dual_run.py [--alike N] [--each N]

Two simulated services, in this process and on virtual time, generate their answers: text, ids, times, lists and latencies are new in
each answer. First both are alike, with the p95 latency gated: a run that does not pass is a false alarm. Then the new service has one
seeded difference: "found" counts the runs that fail. Each run has another seed. "answers" is the mean number of answers of each service
for one request, and the example is the detail of the first run.
"""

import argparse

import anyio

from cutover.model.results import StepResult, StepStatus
from cutover.text import printable
from tests.support.seeded_differences import DIFFERENCES, SLOWER, dual_run_of
from tests.support.virtual_time import virtual_backend


def _run(seed: int, *, difference: str = "", gated: bool) -> StepResult:
    backend, options = virtual_backend("asyncio")
    result: StepResult = anyio.run(
        lambda: dual_run_of(seed, difference=difference, gated=gated),
        backend=backend,
        backend_options=dict(options),
    )
    return result


def _answers(results: list[StepResult]) -> float:
    rows = [row for result in results for row in _rows(result)]
    return sum(rows) / len(rows)


def _rows(result: StepResult) -> list[int]:
    requests = result.facts["requests"]
    assert isinstance(requests, list)
    return [row["answers"] for row in requests]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--alike", type=int, default=200, help="dual runs of two services that are alike")
    parser.add_argument("--each", type=int, default=20, help="dual runs with each seeded difference")
    given = parser.parse_args()
    print("| difference of the new service | found | answers | example |\n|---|---|---|---|")
    alike = [_run(seed, gated=True) for seed in range(given.alike)]
    alarms = [result for result in alike if result.status is not StepStatus.PASS]
    example = printable(alarms[0].detail, 150) if alarms else ""
    print(f"| none | {len(alarms)} of {given.alike} | {_answers(alike):.1f} | {example} |", flush=True)
    for name in DIFFERENCES:
        results = [_run(1000 + seed, difference=name, gated=name == SLOWER) for seed in range(given.each)]
        found = sum(result.status is StepStatus.FAIL for result in results)
        example = results[0].detail.replace("the answers differ in meaning: ", "").partition(", after")[0]
        detail = printable(example, 120).replace("|", "/")
        print(f"| {name} | {found} of {given.each} | {_answers(results):.1f} | {detail} |", flush=True)


if __name__ == "__main__":
    main()
