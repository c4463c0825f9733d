"""The structure of the package: its public names, the modules that an import loads, and the layers."""

import ast
import importlib
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import cutover
from cutover import contract, protocols, pytest_plugin
from cutover.testing import pytest_plugin as testing_plugin
from tests.support.paths import ROOT

SOURCES = sorted((ROOT / "cutover").rglob("*.py"))
TESTS = (*sorted((ROOT / "tests").rglob("*.py")), ROOT / "noxfile.py")
LONG_MODULE = 300
"""Lines; a longer module has a reason at its top."""
PUBLIC = {
    "EventStreamParser", "MessageEvent", "OpenApiError", "Comment", "Retry", "Truncated", "Oversized",
    "StreamContract", "ContractChecker", "ContractReport", "Finding", "Severity", "ContractViolation",
    "COMPAT_LANE", "AI_SDK_5", "AI_SDK_6", "AI_SDK_7",
    "check_recording", "check_stream", "stream_contract", "StreamingASGITransport",
    "CutoverConfig", "CutoverSummary", "run_cutover", "recover_cutover",
}  # fmt: skip


def test_the_public_names_are_exactly_these() -> None:
    assert set(cutover.__all__) == PUBLIC
    assert {name for name in PUBLIC if getattr(cutover, name, None) is None} == set()
    assert set(dir(cutover)) >= PUBLIC
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = cutover.nonsense


def test_import_cutover_loads_no_io_library() -> None:
    code = "import sys, cutover; print([m for m in ('httpx', 'anyio', 'asyncio', 'jinja2', 'rich', 'click') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_pytest_plugin_loads_no_library_and_no_contract() -> None:
    code = (
        "import sys, cutover.testing.pytest_plugin as plugin; "
        "print([m for m in ('httpx', 'anyio', 'jinja2', 'msgspec', 'cutover.contract', 'cutover.testing.session') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.source
def test_imports_go_only_downward() -> None:
    command = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("door", ["cutover", "cutover.contract", "cutover.protocols", "cutover.testing"])
def test_a_public_door_names_what_it_offers_and_shows_a_first_use(door: str) -> None:
    package = importlib.import_module(door)
    assert [name for name in package.__all__ if getattr(package, name, None) is None] == []
    assert re.search(r"^    (from|import) cutover", package.__doc__ or "", re.MULTILINE)


@pytest.mark.parametrize(
    "name", ["AI_SDK_5", "AI_SDK_6", "AI_SDK_7", "COMPAT_LANE", "SHIPPED", "check_recording"]
)
def test_a_name_that_has_moved_is_still_found_where_it_was(name: str) -> None:
    assert getattr(contract, name) is getattr(protocols if name != "check_recording" else cutover, name)


def test_the_plugin_is_still_found_under_its_old_name() -> None:
    assert pytest_plugin.stream_contract is testing_plugin.stream_contract


@pytest.mark.source
@pytest.mark.parametrize(
    "path", sorted((ROOT / "cutover").rglob("__init__.py")), ids=lambda path: path.parent.name
)
def test_no_package_holds_logic(path: Path) -> None:
    """A package has a docstring, imports, and names: no function, no class, no branch but for the type checker."""
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()):
                continue
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                continue
            case ast.Assign(targets=targets):
                names = [
                    each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)
                ]
                assert all(name.startswith("__") for name in names), f"{path}:{node.lineno}: {names}"
            case _:
                pytest.fail(f"{path}:{node.lineno} is logic")


@pytest.mark.source
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_long_module_says_why_it_is_one(path: Path) -> None:
    text = path.read_text()
    if text.count("\n") > LONG_MODULE:
        assert re.search(r"\blong(er)?\b", ast.get_docstring(ast.parse(text)) or ""), (
            f"{path} has no reason at its top"
        )


@pytest.mark.source
@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=lambda path: path.stem)
def test_a_comment_stands_on_its_own_line(path: Path) -> None:
    """Only what a tool reads, with its reason, may follow code on a line."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.COMMENT and not re.match(
            r"# (noqa|type: ignore|fmt:|pragma:)", token.string
        ):
            assert not token.line[: token.start[1]].strip(), f"{path}:{token.start[0]}: {token.string}"


@pytest.mark.source
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_docstring_starts_like_a_riddle(path: Path) -> None:
    """The first sentence has a subject and a verb, or starts with the verb."""
    riddle = re.compile(r"(What|Whether|Where|As|Of|Whoever|Who|Which|Until when|From|How|When)\b")
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            assert not riddle.match(node.value.value), f"{path}:{node.lineno}: {node.value.value[:80]}"


@pytest.mark.source
def test_each_room_is_in_the_table_for_contributors() -> None:
    table = (ROOT / "docs" / "contributing.md").read_text()
    rooms = {path.parent.name for path in (ROOT / "cutover").glob("*/__init__.py")}
    assert {room for room in rooms if f"| `{room}/` |" not in table} == set()
