"""The pytest plugin in the suite of another service: pytest runs inside pytest."""

import importlib
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.slow

SERVICE = """
import json
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

app = FastAPI()
CHUNKS = [
    {"type": "start", "threadId": "t1"},
    {"type": "start-step", "threadId": "t1", "turnId": "turn_1", "model": "m"},
    {"type": "finish-step", "turnId": "turn_1", "status": "accepted"},
    {"type": "finish", "status": "accepted"},
]

@app.post("/api/chat/stream")
async def stream(broken: bool = False):
    async def body():
        for chunk in CHUNKS[broken:]:
            yield f"data: {json.dumps(chunk)}\\n\\n"
        yield "data: [DONE]\\n\\n"
    return StreamingResponse(
        body(), media_type="text/event-stream", headers={"x-vercel-ai-ui-message-stream": "v1"}
    )
"""
ONE_LOOP = """
@pytest.fixture
def anyio_backend():
    return "asyncio"
"""
ASYNC_TEST = """
async def test_chat(stream_contract):
    async with stream_contract(app, "/api/chat/stream", json={"id": "t1"}) as stream:
        await stream.expect("start", within=5.0)
        await stream.drain()
"""
SYNC_TEST = """
def test_chat(stream_contract):
    assert stream_contract.check(app, "/api/chat/stream", json={"id": "t1"}).ok
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Return a separate suite that loads only this plugin, as its entry point does, and anyio's plugin."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", "cutover.testing.pytest_plugin,anyio.pytest_plugin")
    monkeypatch.setenv("COLUMNS", "200")
    return pytester


def run(suite: pytest.Pytester, source: str, *arguments: str) -> pytest.RunResult:
    suite.makepyfile(SERVICE + source)
    return suite.runpytest_subprocess("-W", "error", *arguments, timeout=60)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_fixture_works_under_anyios_plugin(suite: pytest.Pytester, backend: str) -> None:
    backend_fixture = f"\n@pytest.fixture\ndef anyio_backend():\n    return {backend!r}\n"
    result = run(suite, backend_fixture + "\n@pytest.mark.anyio" + ASYNC_TEST)
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_the_fixture_works_under_pytest_asyncio(suite: pytest.Pytester, mode: str) -> None:
    pytest.importorskip("pytest_asyncio")
    marked = "\n@pytest.mark.asyncio" + ASYNC_TEST if mode == "strict" else ASYNC_TEST
    options = (f"asyncio_mode={mode}", "asyncio_default_fixture_loop_scope=function")
    result = run(suite, marked, "-p", "pytest_asyncio.plugin", *(f"-o{option}" for option in options))
    result.assert_outcomes(passed=1)


def test_the_fixture_works_in_a_suite_that_is_not_async(suite: pytest.Pytester) -> None:
    run(suite, SYNC_TEST).assert_outcomes(passed=1)


@pytest.mark.parametrize("test", [SYNC_TEST, "\n@pytest.mark.anyio" + ASYNC_TEST], ids=["sync", "async"])
def test_a_failure_names_the_rule_and_saves_the_stream(suite: pytest.Pytester, test: str) -> None:
    """The short summary names the rule, and the replay command names a recording that exists."""
    result = run(suite, ONE_LOOP + test.replace("/stream", "/stream?broken=1"))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*FAILED* - cutover.ContractViolation: order.*"])
    [replay] = {
        line.strip().removeprefix("E").strip() for line in result.outlines if "replay: cutover check" in line
    }
    recording = Path(replay.split()[-1])
    assert recording.read_bytes().startswith(b'data: {"type": "start-step"')


def test_a_suite_that_does_not_use_the_fixture_loads_no_io_library() -> None:
    """Loading the plugin imports nothing that does IO."""
    code = (
        "import sys, pytest; before = set(sys.modules); import cutover.testing.pytest_plugin; "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert not {"anyio", "asyncio", "h11", "httpx", "starlette"} & set(loaded.stdout.split())


def first_use(package: str) -> str:
    """Return the example in the docstring of a package."""
    text = importlib.import_module(package).__doc__ or ""
    [example] = re.findall(r"A first use.*::\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    return textwrap.dedent(example)


def test_the_first_use_in_the_docstring_of_the_test_library_works(suite: pytest.Pytester) -> None:
    suite.makepyfile(my_service=SERVICE)
    suite.makepyfile(first_use("cutover.testing") + ONE_LOOP)
    suite.runpytest_subprocess("-W", "error", timeout=60).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("package", "output"), [("cutover", "False\n"), ("cutover.contract", ""), ("cutover.protocols", "")]
)
def test_the_first_use_in_the_docstring_of_a_package_works(
    package: str, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(first_use(package), {})  # noqa: S102  the example is this project's own text
    assert capsys.readouterr().out.startswith(output)


def test_the_fixture_is_documented(suite: pytest.Pytester) -> None:
    result = suite.runpytest_subprocess("--fixtures", timeout=60)
    result.stdout.fnmatch_lines(["stream_contract*", "*chat stream*contract*"])
