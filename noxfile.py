"""Every check of this project: ``nox`` runs them all."""

import shutil
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "tests", "build"]

EVERYTHING = ".[serve,gcp,trio]"
CORE = "cutover/sse.py,cutover/contract/*,cutover/errors.py,cutover/findings.py"


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
    """All tests, on asyncio and on trio, with the coverage that they must have."""
    session.install("-e", EVERYTHING, *_group("test"), *_group("lint"), *_group("interop"))
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", "-q", "-n", "2", *session.posargs)
    session.run("coverage", "combine")
    session.run("coverage", "report", "--fail-under=95")
    session.run("coverage", "report", f"--include={CORE}", "--fail-under=100")


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel, and run the tests against it, in a folder without the source."""
    session.install("build", *_group("test"), *_group("lint"))
    room = Path(session.create_tmp())
    shutil.rmtree(room)
    session.run("python", "-m", "build", "--outdir", str(room / "dist"), ".")
    (wheel,) = (room / "dist").glob("*.whl")
    session.install(f"{wheel}[serve,gcp,trio]")
    for name in ("tests", "fixtures"):
        shutil.copytree(name, room / name, ignore=shutil.ignore_patterns("node_modules", "interop"))
    for name in ("pyproject.toml", "README.md", "noxfile.py"):
        shutil.copy(name, room / name)
    session.chdir(room)
    session.run("python", "-m", "pytest", "-q", "-n", "2", "-m", "not source", *session.posargs)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Side by side with the peers, in one run; figures, not verdicts."""
    session.install("-e", EVERYTHING, *_group("test"))
    for script in sorted(Path("tests/benchmarks").glob("bench_*.py")):
        session.run("python", str(script))
