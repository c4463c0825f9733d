"""Every check of this project: ``nox`` runs them all."""

import shutil
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lint", "types", "tests", "build"]

CORE = "cutover/sse.py,cutover/contract/*,cutover/errors.py,cutover/findings.py"


@nox.session
def lint(session: nox.Session) -> None:
    """Style, formatting and the layers."""
    session.install("-e", ".", "--group", "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Types, strictly."""
    session.install("-e", ".", "--group", "types")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, on asyncio and on trio, with the coverage that they must have."""
    session.install("-e", ".", "--group", "test", "--group", "lint")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine")
    session.run("coverage", "report", "--fail-under=95")
    session.run("coverage", "report", f"--include={CORE}", "--fail-under=100")


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel, and run the tests against it, in a folder without the source."""
    session.install("build", "--group", "test", "--group", "lint")
    room = Path(session.create_tmp())
    shutil.rmtree(room)
    session.run("python", "-m", "build", "--outdir", str(room / "dist"), ".")
    (wheel,) = (room / "dist").glob("*.whl")
    session.install("--force-reinstall", "--no-deps", str(wheel))
    for name in ("tests", "fixtures"):
        shutil.copytree(name, room / name)
    for name in ("pyproject.toml", "README.md", "noxfile.py"):
        shutil.copy(name, room / name)
    session.chdir(room)
    session.run("python", "-m", "pytest", "-q", "-m", "not source", *session.posargs)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Side by side with the peers, in one run; figures, not verdicts."""
    session.install("-e", ".", "--group", "test")
    for script in sorted(Path("tests/benchmarks").glob("bench_*.py")):
        session.run("python", str(script))
