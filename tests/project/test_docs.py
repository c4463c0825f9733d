"""Every block of the README and of each page of the documentation is true; CI runs the two set-up commands.

A file that a page shows, such as ``my_service.py``, stands beside the page's tests and commands when they run. The README's test uses
the service of the first page. How a page writes a stream is explained in docs/rules/index.md.
"""

import ast
import contextlib
import importlib
import importlib.util
import inspect
import io
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import attrs
import pytest

from cutover import CutoverConfig
from cutover.contract import RULES, Each, Framing, StreamContract
from cutover.protocols import COMPAT_LANE
from cutover.protocols.openapi.contract import contract_from
from tests.support.doc_pages import (
    DOCS,
    FAILS,
    PAGES,
    PASSES,
    README,
    STREAMS,
    Block,
    Page,
    lines_of,
    links_of,
    report_on,
    sections_of,
)
from tests.support.paths import ROOT

RULE_PAGES = {path.stem: path for path in (DOCS / "rules").glob("*.md") if path.stem != "index"}
BLOCKS = [block for page in PAGES if page.stem not in RULE_PAGES for block in Page(page).blocks]
SETUP = [block.text for block in BLOCKS if block.page == README and block.language == "sh"]
PYTHON = [block for block in BLOCKS if block.language == "python" and block.title is None]
TESTS = [block for block in BLOCKS if (block.title or "").startswith("test_")]
SHELL = [block for block in BLOCKS if block.language == "sh" and ".venv/bin/" not in block.text]
STREAM_PAGES = {block.page for block in BLOCKS if block.language in STREAMS}
INPUTS = [block for block in BLOCKS if block.language == "toml"]
FIRST_PAGE = DOCS / "first-test.md"
CONTRACTS = [block for block in BLOCKS if (block.title or "").endswith("_contract.py")]
MOST_LINES_OF_A_CONTRACT = 15
DOORS = ("cutover", "cutover.contract", "cutover.protocols", "cutover.testing")


def _environment(**more: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # Another run of pytest must not take itself for a worker of this one.
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV"))}
    return {**own, "PATH": path, "PYTHONWARNINGS": "error", "PYTHONDONTWRITEBYTECODE": "1", **more}


def _shown_after(block: Block) -> str | None:
    """Return the output that the page shows for a block: the next block, if its title says so."""
    blocks = Page(block.page).blocks
    after = blocks[blocks.index(block) + 1 :][:1]
    titles = ("output", "findings", f"pytest {block.title}")
    return next((each.text for each in after if each.language == "text" and each.title in titles), None)


def _write_files(page: Path, folder: Path) -> None:
    for block in (*Page(FIRST_PAGE).blocks, *Page(page).blocks):
        if block.language in {"python", "yaml"} and block.title is not None:
            (folder / block.title).write_text(block.text)


def test_every_block_is_one_that_a_test_runs() -> None:
    shown = [block for block in BLOCKS if block.language == "text"]
    assert {block.language for block in BLOCKS} == {"sh", "python", "toml", "yaml", "text", *STREAMS}
    runs = (*PYTHON, *TESTS, *SHELL, *(block for block in BLOCKS if block.language in STREAMS))
    assert {_shown_after(block) for block in runs} - {None} == {block.text for block in shown}
    # A file of YAML is read by the tests of its page.
    assert all(block.title for block in BLOCKS if block.language == "yaml")
    # Of a fence that is not closed, or that has other words in its first line, no test would know.
    for page in PAGES:
        fences = re.findall(r"^ *(?:```|~~~)", page.read_text("utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(Page(page).blocks), page


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_a_python_block_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = _shown_after(block)
    printed = _printed_alone(block, tmp_path) if "run_cutover" in block.text else _printed(block)
    assert shown is None or printed == shown
    assert list(tmp_path.iterdir()) == []


def _printed(block: Block) -> str:
    """Return what a block prints in this process."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})  # noqa: S102  the page's own example
    return output.getvalue()


def _printed_alone(block: Block, folder: Path) -> str:
    """Return what a block prints in a process of its own, which may take over the signals."""
    done = subprocess.run(
        [sys.executable, "-c", block.text],
        env=_environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", sorted(STREAM_PAGES), ids=lambda path: path.name)
def test_a_stream_gives_the_findings_that_its_page_says(path: Path) -> None:
    count = 0
    for block, findings in Page(path).examples():
        if block.language in STREAMS:
            assert lines_of(findings) == (_shown_after(block) or "").splitlines(), block
            count += 1
    assert count == sum(block.page == path and block.language in STREAMS for block in BLOCKS)


@pytest.mark.parametrize("block", CONTRACTS, ids=str)
def test_a_whole_contract_of_a_page_is_short_and_uses_documented_names_alone(block: Block) -> None:
    assert len([line for line in block.text.splitlines() if line]) <= MOST_LINES_OF_A_CONTRACT
    names = {
        f"{node.module}.{name.name}"
        for node in ast.walk(ast.parse(block.text))
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    for name in names:
        module, _, short = name.rpartition(".")
        assert not module.startswith("cutover") or short in importlib.import_module(module).__all__, name
        assert not module.startswith("cutover") or module in DOORS, name


def test_three_whole_contracts_are_shown() -> None:
    assert [block.title for block in CONTRACTS] == [
        "ticker_contract.py",
        "job_contract.py",
        "chat_contract.py",
    ]


@pytest.fixture(scope="module")
def service_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service of the first page, as it runs on a server."""
    folder = tmp_path_factory.mktemp("service")
    _write_files(FIRST_PAGE, folder)
    port = _free_port()
    command = [sys.executable, "-m", "uvicorn", "my_service:app", "--port", str(port)]
    with (
        (folder / "said").open("w") as said,
        subprocess.Popen(command, cwd=folder, env=_environment(), stdout=said, stderr=said) as server,
    ):
        try:
            _wait_for(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({block.page for block in TESTS}), ids=lambda page: page.name)
def test_the_tests_of_a_page_give_what_it_says(page: Path, tmp_path: Path, service_url: str) -> None:
    """All tests of a page run in one process, because each start of pytest takes a second."""
    _write_files(page, tmp_path)
    # Without it pytest takes the options, and the name of the root, from a project above this folder.
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    blocks = [block for block in TESTS if block.page == page]
    report = tmp_path / "report.xml"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio"),
            *("--junit-xml", str(report), *(str(block.title) for block in blocks)),
        ],
        env=_environment(BASE_URL=service_url, AUTH_TOKEN="any"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr
    outcomes: dict[str, list[str]] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  pytest has written it
        outcome = next(
            (child.tag for child in case if child.tag in {"failure", "error", "skipped"}), "passed"
        )
        outcomes.setdefault(f"{case.get('classname')}.py", []).append(outcome)
    for block in blocks:
        wanted = "passed" if _shown_after(block) is None else "failure"
        assert set(outcomes[str(block.title)]) == {wanted}, done.stdout
    for block in blocks:
        lines = iter(done.stdout.splitlines())
        for line in (_shown_after(block) or "").splitlines():
            pattern = re.compile(".*".join(map(re.escape, line.split("…"))))
            assert any(pattern.fullmatch(each) for each in lines), (
                f"not in the output, or not in this order: {line}\n{done.stdout}"
            )


@pytest.mark.parametrize("block", INPUTS, ids=str)
def test_a_file_of_inputs_is_one(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "cutover.toml"
    file.write_text(block.text)
    config = CutoverConfig.from_env(stable_revision="a-1", canary_revision="a-2", env={}, file=file)
    assert set(config.sources) == set(tomllib.loads(block.text))


@pytest.mark.slow
@pytest.mark.parametrize("block", SHELL, ids=str)
def test_a_shell_block_runs(block: Block, tmp_path: Path) -> None:
    _write_files(block.page, tmp_path)
    said = tmp_path / "said"
    code = _run_shell(block.text, said)
    shown = _shown_after(block)
    assert code == 0, said.read_text()
    if shown is None:
        assert ": ok " in said.read_text()
    else:
        assert said.read_text() == shown
    if "cutover run" in block.text:
        assert "verdict   passed (live run), exit 0" in said.read_text()


@pytest.mark.slow
def test_a_shell_block_that_fails_leaves_no_process(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "alive")
    reader = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    try:
        # The process in the background keeps the pipe open for as long as it lives.
        assert _run_shell("exec 3> alive; sleep 60 & false", tmp_path / "said") == 1
        assert select.select([reader], [], [], 10.0)[0] == [reader]
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


def _run_shell(text: str, said: Path) -> int:
    """Run a shell block in the folder of ``said``, which gets its output; return its exit code. No process of it is left."""
    with (
        said.open("w") as output,
        subprocess.Popen(
            ["sh", "-eu", "-c", text],
            env=_environment(PYTHONUNBUFFERED="1", PORT=str(_free_port())),
            cwd=said.parent,
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as shell,
    ):
        try:
            return shell.wait(timeout=120)
        finally:
            # A command that fails ends the shell before the block stops its server.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_for(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.1):
            return
        select.select([], [], [], 0.1)
    raise TimeoutError(f"no server at port {port}")


def test_ci_runs_the_set_up_commands() -> None:
    assert len(SETUP) == 2
    assert "-m venv" in SETUP[0]
    assert "nox" in SETUP[1]
    ci = README.parent / ".ci" / "run"
    if not ci.exists():
        pytest.skip("an installed wheel has no CI")
    script = ci.read_text()
    assert "block" in script
    assert "for number in 1 2" in script


def test_every_other_command_that_sets_up_is_one_of_the_readme() -> None:
    known = {command.strip() for text in SETUP for command in text.split("&&")}
    for block in BLOCKS:
        if block.language == "sh" and block not in SHELL:
            assert {command.strip() for command in block.text.split("&&")} <= known, block


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 80
    (code,) = (block.text for block in BLOCKS if block.page == README and block.language == "python")
    assert len(code.splitlines()) <= 10


def test_every_rule_has_its_page_and_every_page_its_rule() -> None:
    assert RULE_PAGES.keys() == RULES.keys()


@pytest.mark.parametrize("rule", RULE_PAGES)
def test_the_page_of_a_rule_shows_the_rule(rule: str) -> None:
    page = Page(RULE_PAGES[rule])
    seen: list[str] = []
    said = [block.text.splitlines() for block in page.blocks if block.language == "text"]
    for block, findings in page.examples():
        seen.append(block.heading)
        if block.heading == PASSES:
            assert lines_of(findings) == [], block
        else:
            assert lines_of(findings) == said[seen.count(FAILS) - 1], block
            assert {finding.rule for finding in findings} == {rule}
    assert set(seen) == {FAILS, PASSES}
    assert len(said) == seen.count(FAILS)
    assert {block.language for block in page.blocks} <= {*STREAMS, "python", "text"}


@pytest.mark.parametrize(
    ("language", "text", "rules"),
    [
        ("sse", "# a whole turn\n", []),
        ("sse", "# a whole turn\n# cut\n", ["stream.truncated"]),
        ("sse", "\\xef\\xbb\\xbf# a whole turn\n", ["stream.empty"]),
        ("sse", "\\xef\\xbb\\xbf: a comment\\x0d\n\\x0d\n# a whole turn\n", []),
        ("sse", "# at 6 s\n# a whole turn\n", ["timing.held-back", "timing.first-event"]),
        ("sse", "# a whole turn\n# at 3 s the connection breaks\n", ["transport.reset"]),
        ("http", "# no connection\n", ["transport.unreachable"]),
        ("http", "HTTP/1.1 500 Failed\nx: 1\nx: 2\n\nsorry\n", ["head.status"]),
    ],
)
def test_a_stream_is_read_as_the_page_on_rules_explains(language: str, text: str, rules: list[str]) -> None:
    block = Block(page=DOCS, language=language, title=None, text=text, heading="")
    assert [finding.rule for finding in report_on(block, COMPAT_LANE, None).findings] == rules


def test_a_line_that_the_notation_does_not_have_is_refused() -> None:
    block = Block(page=DOCS, language="sse", title=None, text="# at six o'clock\n", heading="")
    with pytest.raises(ValueError, match="no such line: # at six"):
        report_on(block, COMPAT_LANE, None)


@pytest.mark.parametrize("rule", RULE_PAGES)
def test_the_page_of_a_rule_says_why_and_what_to_do(rule: str) -> None:
    sections = sections_of(RULE_PAGES[rule])
    titles = [title for title, _ in sections]
    # A page may have sections of its own, such as the contract, between the first and the last.
    assert titles[0] == rule
    assert titles[-3:] == [FAILS, PASSES, "What to do"]
    why, remedy = sections[0][1], sections[-1][1]
    assert len(why) > len(RULES[rule].why)
    assert RULES[rule].why not in why
    assert len(remedy.split()) >= 20
    assert len(RULE_PAGES[rule].read_text("utf-8").splitlines()) <= 80


def test_no_two_pages_of_rules_give_the_same_reason_or_remedy() -> None:
    texts = [text for path in RULE_PAGES.values() for title, text in sections_of(path) if title != PASSES]
    prose = [line for text in texts for line in text.splitlines() if line.startswith("- ")]
    assert len(prose) == len(set(prose))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_link_leads_nowhere(page: Path) -> None:
    for target, anchor in links_of(page):
        path = (page.parent / target).resolve() if target else page
        assert path.is_file(), target
        assert not anchor or anchor in {_slug(title) for title, _ in sections_of(path)}, f"{target}#{anchor}"


def _slug(title: str) -> str:
    return re.sub(r"[ -]+", "-", re.sub(r"[^\w -]", "", title.lower()).strip())


def test_every_page_is_in_the_navigation() -> None:
    listed = (DOCS / "site" / "mkdocs.yml").read_text()
    assert "  - Rules: rules/\n" in listed
    pages = [page.relative_to(DOCS).as_posix() for page in PAGES if page != README]
    assert {page for page in pages if not page.startswith("rules/")} == set(
        re.findall(r"[\w/-]+\.md$", listed, re.MULTILINE)
    )


def test_the_build_of_the_site_takes_warnings_for_errors() -> None:
    session = (ROOT / "noxfile.py").read_text().partition("def docs(")[2].partition("@nox.session")[0]
    assert '"--strict"' in session
    # With this option, mkdocs neither shows warnings nor counts them.
    assert '"--quiet"' not in session.partition("session.run(")[2]


def _site() -> Any:
    """Return the module that makes parts of the site from the code."""
    spec = importlib.util.spec_from_file_location("site_hooks", DOCS / "site" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_describes_every_public_name_once() -> None:
    site = _site()
    assert set(site.DOORS) == {"cutover", "cutover.contract", "cutover.protocols", "cutover.testing"}
    described = []
    for door in site.DOORS:
        page = (DOCS / "reference" / f"{door.rpartition('.')[2]}.md").read_text()
        assert f"<!-- names of {door} -->" in page
        section = site.names_of(door)
        names = re.findall(r"^::: [\w.]+\.(\w+)$|^- \[`(\w+)`\]", section, re.MULTILINE)
        assert sorted(a or b for a, b in names) == sorted(importlib.import_module(door).__all__)
        described += re.findall(r"^::: [\w.]+\.(\w+)$", section, re.MULTILINE)
    assert len(described) == len(set(described))


def test_the_table_and_the_navigation_hold_every_rule() -> None:
    site = _site()
    assert "\n<!-- rules -->\n" in (DOCS / "rules" / "index.md").read_text()
    assert re.findall(r"^\| \[([\w.-]+)\]\(\1\.md\)", site.rule_table(), re.MULTILINE) == list(RULES)
    (entry,) = site.on_config({"nav": [{"Rules": "rules/"}]})["nav"]
    index, *families = entry["Rules"]
    assert index == "rules/index.md"
    assert [
        path
        for family in families
        for (rules,) in [family.values()]
        for rule in rules
        for path in rule.values()
    ] == [f"rules/{rule}.md" for rule in RULES]


def test_the_page_of_a_rule_says_its_severity_in_each_contract() -> None:
    site = _site()
    assert site.severities(RULES["head.status"]) == (
        "It is a violation, unless your contract says something else."
    )
    assert "a violation in compat-lane and a loss in ai-sdk-5" in site.severities(RULES["stream.empty"])
    assert site.severities(RULES["stream.empty"]).endswith("in a contract test it is always a violation.")


@pytest.mark.parametrize("described", [StreamContract, Each, Framing], ids=lambda each: each.__name__)
def test_the_page_on_own_contracts_names_every_field(described: type) -> None:
    text = (DOCS / "own-contract.md").read_text("utf-8")
    fields = [field.name for field in attrs.fields(described) if field.init and field.name != "order"]
    assert [name for name in fields if not re.search(rf"`{name}[`=]|\b{name}=", text)] == []


def test_the_page_on_openapi_names_every_error_and_every_warning() -> None:
    text = (DOCS / "openapi.md").read_text("utf-8")
    sources = (ROOT / "cutover" / "protocols" / "openapi").glob("*.py")
    ids = {rule for path in sources for rule in re.findall(r'"(openapi\.[a-z-]+)"', path.read_text("utf-8"))}
    assert sorted(rule for rule in ids if f"`{rule}`" not in text) == []


def test_the_page_on_openapi_names_every_option_that_is_about_documents() -> None:
    text = (DOCS / "openapi.md").read_text("utf-8")
    names = [each for each in inspect.signature(contract_from).parameters if each not in {"document", "path"}]
    assert [name for name in names if not re.search(rf"`{name}[`=]", text)] == []
