"""`cutover check` against a contract of one's own, or of an OpenAPI document; and `cutover lint-openapi`."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cutover.cli.commands import main
from tests.support.paths import FIXTURES

DOCUMENTS = FIXTURES / "openapi" / "documents"
JOBS = DOCUMENTS / "jobs-cutover.yaml"
OWN = """
from cutover.contract import ANYTHING, StreamContract, StreamRule

class Odd(StreamRule):
    id = "mine.odd"
    why = "Odd numbers look odd."
    def event(self, event):
        if event.data["n"] % 2:
            yield "an even number", str(event.data["n"])

MINE = StreamContract(name="mine", chunks={"tick": ANYTHING, "done": ANYTHING}, order="tick* done", rules=(Odd(),))
class Holder:
    INNER = MINE
NUMBER = 5
"""


def run(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments], input=stdin)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with modules that have contracts. Each test gets modules of its own name, because Python keeps modules."""
    monkeypatch.chdir(tmp_path)
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(OWN)
    (tmp_path / f"{name}_broken.py").write_text("raise RuntimeError('no database')")
    (tmp_path / "good.sse").write_text('data: {"type":"tick","n":2}\n\ndata: {"type":"done","n":0}\n\n')
    (tmp_path / "odd.sse").write_text('data: {"type":"tick","n":3}\n\ndata: {"type":"done","n":0}\n\n')
    return tmp_path


def module(folder: Path) -> str:
    return next(path.stem for path in folder.glob("own_*.py") if not path.stem.endswith("broken"))


def test_a_contract_of_a_module_checks_a_recording(folder: Path) -> None:
    name = module(folder)
    assert run("check", "--contract", f"{name}:MINE", "good.sse").exit_code == 0
    assert run("check", "--contract", f"{name}:Holder.INNER", "good.sse").exit_code == 0
    done = run("check", "--contract", f"{name}:MINE", "odd.sse")
    assert done.exit_code == 1
    assert "violation mine.odd" in done.output


def test_an_own_rule_is_explained_to_a_ci_server_too(folder: Path) -> None:
    done = run("check", "--contract", f"{module(folder)}:MINE", "--junit-xml", "report.xml", "odd.sse")
    assert done.exit_code == 1
    report = (folder / "report.xml").read_text()
    assert "mine.odd" in report
    assert "Odd numbers look odd." in report
    as_json = run("check", "--contract", f"{module(folder)}:MINE", "--json", "odd.sse")
    assert json.loads(as_json.output)["findings"][0]["rule"] == "mine.odd"


def test_an_own_rule_is_explained(folder: Path) -> None:
    done = run("check", "--contract", f"{module(folder)}:MINE", "--explain", "mine.odd")
    assert done.exit_code == 0
    assert done.output.splitlines()[0] == "mine.odd: Odd numbers look odd."


def test_a_contract_that_is_not_there_is_named(folder: Path) -> None:
    name = module(folder)
    for given, said in (
        ("nonsense", "give one of compat-lane, ai-sdk-5, ai-sdk-6, ai-sdk-7, or module:NAME"),
        ("no_such_module_here:X", "there is no module no_such_module_here"),
        (f"{name}:OTHER", f"the module {name} has no name OTHER"),
        (f"{name}:NUMBER", "it is a int, and not a StreamContract"),
        (f"{name}_broken:X", "cannot be imported: RuntimeError: no database"),
        (":X", "give one of"),
    ):
        done = run("check", "--contract", given, "good.sse")
        assert done.exit_code == 2
        assert said in done.output


def test_a_recording_is_held_to_a_stream_of_a_document(tmp_path: Path) -> None:
    body = b'data: {"type":"start"}\n\ndata: {"type":"finish"}\n\n'
    done = run("check", "--openapi", JOBS, "--path", "/chat", "-", stdin=body)
    assert done.exit_code == 1
    assert "terminator.missing" in done.output
    good = run("check", "--openapi", JOBS, "--path", "/chat", "-", stdin=body + b"data: [DONE]\n\n")
    assert good.exit_code == 0
    other = run(
        "check",
        "--openapi",
        JOBS,
        "--path",
        "/chat",
        "--terminator",
        "END",
        "-",
        stdin=body + b"data: END\n\n",
    )
    assert other.exit_code == 0
    several = run("check", "--openapi", JOBS, "-", stdin=body)
    assert several.exit_code == 2
    assert "--openapi: say with --path which event stream of the document this is" in several.output
    wrong = run("check", "--openapi", JOBS, "--path", "/chatt", "-", stdin=body)
    assert wrong.exit_code == 2
    assert "the document has no path /chatt" in wrong.output
    lone = tmp_path / "one.json"
    document = {
        "openapi": "3.2.0",
        "info": {"title": "t", "version": "1"},
        "paths": {
            "/s": {"get": {"responses": {"200": {"content": {"text/event-stream": {"itemSchema": {}}}}}}}
        },
    }
    lone.write_text(json.dumps(document))
    assert run("check", "--openapi", lone, "-", stdin=b"data: x\n\n").exit_code == 0


def test_an_overlay_adds_what_the_document_leaves_out(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(
        "overlay: 1.0.0\ninfo: {title: t, version: '1'}\nactions:\n"
        "  - target: $.paths['/chat'].post.responses['200'].content['text/event-stream']\n"
        "    update: {x-sse-stream: {terminator: STOP}}\n"
    )
    body = b'data: {"type":"start"}\n\ndata: {"type":"finish"}\n\ndata: STOP\n\n'
    arguments = ("check", "--openapi", JOBS, "--path", "/chat", "--overlay", overlay, "-")
    assert run(*arguments, stdin=body).exit_code == 0
    overlay.write_text("overlay: 1.0.0\nactions: [{target: $.paths.nothing, update: {}}]\n")
    missed = run(*arguments, stdin=body)
    assert missed.exit_code == 2
    assert str(overlay) in missed.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--path", "/x"], "--path needs --openapi"),
        (["--overlay", "x.yaml"], "--overlay needs --openapi"),
        (["--openapi", JOBS, "--contract", "ai-sdk-7"], "give one of them"),
        (["--openapi", "no-such-file.yaml"], "no-such-file.yaml cannot be read"),
        (["--seconds", "0"], "--seconds"),
        (["--method", "PUT"], "--method"),
    ],
)
def test_options_that_contradict_each_other_are_named(arguments: list[object], said: str) -> None:
    done = run("check", *arguments, "-", stdin=b"")
    assert done.exit_code == 2
    assert said in done.output


def test_a_document_that_is_none_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("openapi: [")
    for arguments in (("check", "--openapi", broken, "-"), ("lint-openapi", broken)):
        done = run(*arguments, stdin=b"")
        assert done.exit_code == 2
        assert f"{broken}: openapi." in done.output


class TestLint:
    def test_it_tells_promises_and_open_points(self) -> None:
        done = run("lint-openapi", JOBS)
        assert done.exit_code == 0
        assert "GET /jobs/{id}/events" in done.output
        assert "  promises order: queued? progress* (done | failed)" in done.output
        assert "  promises resume: each event has an id" in done.output
        assert "  promises endless" in done.output
        assert "  promises each: text-start text-delta* text-end by /data/id" in done.output
        assert "  promises first event: at most 2 s" in done.output
        assert "  promises the last event has the data [DONE]" in done.output
        assert "  open     No order" in done.output

    def test_a_stream_that_can_never_be_right_is_exit_1(self) -> None:
        done = run("lint-openapi", DOCUMENTS / "broken-oneof.yaml", "--path", "/never")
        assert done.exit_code == 1
        assert "openapi.unsatisfiable" in done.output

    def test_an_error_of_the_document_is_exit_1(self) -> None:
        done = run("lint-openapi", DOCUMENTS / "broken-remote-ref.yaml", "--path", "/http")
        assert done.exit_code == 1
        assert "  error    openapi.remote-ref" in done.output

    def test_an_order_that_names_no_kind_is_an_error(self, tmp_path: Path) -> None:
        slip = tmp_path / "slip.yaml"
        slip.write_text(JOBS.read_text().replace("order: queued? progress*", "order: queud? progress*"))
        done = run("lint-openapi", slip, "--path", "/jobs/{id}/events")
        assert done.exit_code == 1
        assert "did you mean queued?" in done.output

    def test_json_has_one_object_for_each_stream(self) -> None:
        done = run("lint-openapi", "--json", DOCUMENTS / "ms-terminal-3.2.yaml")
        found = [json.loads(line) for line in done.output.splitlines()]
        assert [(each["method"], each["path"], each["error"]) for each in found] == [
            ("GET", "/named", None),
            ("POST", "/payload-discriminator", None),
        ]
        assert "the last event has finished at /event" in found[0]["promises"]
        assert found[1]["warnings"][0]["rule"] == "openapi.item-is-payload"
        failed = run("lint-openapi", "--json", DOCUMENTS / "broken-remote-ref.yaml", "--path", "/http")
        assert json.loads(failed.output)["error"]["rule"] == "openapi.remote-ref"

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ([JOBS, "--method", "get"], "--method needs --path"),
            ([JOBS, "--path", "/nothing"], "no operation has an event stream"),
            (["-"], "openapi."),
        ],
    )
    def test_wrong_use_is_named(self, arguments: list[object], said: str) -> None:
        done = run("lint-openapi", *arguments, stdin=b"swagger: '2.0'")
        assert done.exit_code == 2
        assert said in done.output
