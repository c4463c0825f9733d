"""Every check of this project: ``nox`` runs them all."""

import shutil
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "docs", "tests", "build"]

EVERYTHING = ".[serve,aiohttp,gcp,trio,junit,openapi,locust]"
WHOLE_PRODUCT = [
    "tests/project", "tests/cli/test_commands.py", "tests/cli/test_entry.py", "tests/cli/test_check_urls.py", "tests/contract/test_rules.py",
    "tests/testing", "tests/report/test_summary.py", "tests/report/test_page.py", "tests/wiring/test_preflight.py",
]  # fmt: skip
"""Tests that go through all of it: entry points, templates, data files, every module."""
CORE = "cutover/sse/*,cutover/contract/*,cutover/protocols/*,cutover/errors.py,cutover/text.py"


def _group(name: str) -> tuple[str, ...]:
    """Return a dependency group; pip itself knows them only from 25.1 on, and a new venv has what Python came with."""
    return nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), name)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, formatting and the layers."""
    session.install("-e", ".", *_group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Types, strictly."""
    session.install("-e", EVERYTHING, *_group("types"))
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests, on asyncio and on trio, and hold the coverage to its figures.

    The fast tests measure the coverage. The others run without it, because it doubles their time: on trio, whole trains, other programs.
    `nox -s tests -- -m fast` gives an answer while you work; `nox -s tests -- PATH -k NAME` runs some tests, `-n 0` in one process.
    """
    session.install("-e", EVERYTHING, *_group("test"), *_group("lint"), *_group("interop"))
    pytest = ("-m", "pytest", "-q", "-n", "3", "--dist=worksteal")
    if session.posargs:
        session.run("python", *pytest, *session.posargs)
        return
    session.run("coverage", "erase")
    session.run("coverage", "run", *pytest, "-m", "fast")
    session.run("coverage", "combine")
    session.run("coverage", "report", "--fail-under=95")
    session.run("coverage", "report", f"--include={CORE}", "--fail-under=100")
    session.run("python", *pytest, "-m", "not fast")


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel, and run against it, in a folder without the source, the tests of what could be missing from it."""
    session.install("build", *_group("test"), *_group("lint"))
    room = Path(session.create_tmp())
    shutil.rmtree(room)
    session.run("python", "-m", "build", "--outdir", str(room / "dist"), ".")
    (wheel,) = (room / "dist").glob("*.whl")
    session.install(f"{wheel}[serve,aiohttp,gcp,trio,junit,openapi,locust]")
    for name in ("tests", "fixtures", "docs"):
        shutil.copytree(name, room / name, ignore=shutil.ignore_patterns("node_modules", "interop"))
    for name in ("pyproject.toml", "README.md", "noxfile.py"):
        shutil.copy(name, room / name)
    session.chdir(room)
    chosen = ("-m", "fast and not source", *WHOLE_PRODUCT)
    session.run("python", "-m", "pytest", "-q", "-n", "3", *chosen, *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site of the documentation into `build/site`. Each warning is an error: a dead link, a page outside the navigation."""
    session.install("-e", ".", *_group("docs"))
    # Without this, the theme announces its successor on each run. With `--quiet`, mkdocs would not count warnings, and pass.
    env = {"NO_MKDOCS_2_WARNING": "1"}
    session.run("mkdocs", "build", "--strict", "--clean", "--config-file", "docs/site/mkdocs.yml", env=env)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Side by side with the peers, in one run; figures, not verdicts."""
    session.install("-e", EVERYTHING, *_group("test"), *_group("benchmarks"))
    for script in sorted(Path("tests/benchmarks").glob("bench_*.py")):
        session.run("python", str(script), env={"PYTHONPATH": "."})


@nox.session
def fuzz(session: nox.Session) -> None:
    """Parser and checker under a coverage-guided fuzzer, for so many seconds: `nox -s fuzz -- 120`.

    What reaches new code is added to `fixtures/fuzz`, and so is what breaks a promise, as `crash-*`: `tests/fuzz/test_fuzz_corpus.py`
    then fails until that is mended. It needs Linux and a CPython that atheris has wheels for: 3.11 to 3.14.
    """
    session.install("-e", ".", *_group("fuzz"))
    seconds = int(session.posargs[0]) if session.posargs else 120
    for target in ("parser", "checker"):
        corpus, found = Path("fixtures/fuzz", target), Path(session.create_tmp(), target)
        shutil.rmtree(found, ignore_errors=True)
        found.mkdir()
        python = ("python", "-m", "tests.fuzz", target)
        limits = (
            # With 0 the fuzzer would never end.
            f"-max_total_time={max(1, seconds // 2)}",
            "-max_len=3000",
            "-timeout=60",
            "-dict=tests/fuzz/tokens.dict",
        )
        env = {"PYTHONPATH": "."}
        session.run(*python, *limits, f"-artifact_prefix={corpus}/", str(found), str(corpus), env=env)
        session.run(*python, "-merge=1", str(corpus), str(found), env=env)
