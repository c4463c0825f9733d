"""``report.html`` in a real browser: nothing is loaded, nothing runs, nothing is a barrier, and hostile text stays text.

With ``CUTOVER_ARTIFACTS``, the pictures are kept in that folder, to be looked at.
"""

import os
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from cutover.record.journal import read_journal
from cutover.report.page.document import render_page
from cutover.simulation import FAULTS
from tests.interop import ai_sdk, chromium
from tests.support.embedded_trains import EmbeddedTrain, live_config
from tests.support.report_pages import hostile_events
from tests.support.virtual_time import virtual_backend

# The browser is asked over a websocket of aiohttp, which needs asyncio.
pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

VIEWS = (("wide", 1280, False), ("phone", 390, False), ("dark", 1280, True), ("phone-dark", 390, True))


def _passed(folder: Path) -> bytes:
    return _page_of(folder, run_dual_run=True, held_streams=2, canary_soak_seconds=5.0)


def _broken(folder: Path) -> bytes:
    return _page_of(folder, "finish-doubled-after-flip", held_streams=2)


def _not_undone(folder: Path) -> bytes:
    return _page_of(folder, "override-sticks")


def _killed(folder: Path) -> bytes:
    _broken(folder)
    events = read_journal(folder / "run" / "journal.jsonl")
    return render_page(events[: len(events) // 2])


def _hostile(_: Path) -> bytes:
    return render_page(hostile_events())


def _page_of(folder: Path, *faults: str, **changes: object) -> bytes:
    train = EmbeddedTrain(live_config(folder, **changes), faults=tuple(FAULTS[name] for name in faults))
    backend, options = virtual_backend("asyncio")
    anyio.run(train.run, backend=backend, backend_options=dict(options))
    return (folder / "run" / "report.html").read_bytes()


@pytest.mark.parametrize(
    "make", [_passed, _broken, _not_undone, _killed, _hostile], ids=lambda make: make.__name__[1:]
)
async def test_a_page_in_a_browser(make: Callable[[Path], bytes], tmp_path: Path) -> None:
    ai_sdk.node()
    page = tmp_path / "report.html"
    page.write_bytes(await anyio.to_thread.run_sync(make, tmp_path))
    async with chromium.tab() as tab:
        await tab.open(page)
        for name, width, dark in VIEWS:
            await tab.shown(width=width, dark=dark)
            assert await tab.value("document.documentElement.scrollWidth") <= width, name
            # Also what a reader has to open is looked at.
            await tab.value("document.querySelectorAll('details').forEach(each => { each.open = true })")
            assert await _barriers(tab) == [], name
            if folder := os.environ.get("CUTOVER_ARTIFACTS"):
                picture = Path(folder) / f"report-{make.__name__[1:]}-{name}.png"
                picture.parent.mkdir(parents=True, exist_ok=True)
                picture.write_bytes(await tab.picture())
        await tab.shown(width=800, media="print")
        assert await tab.value("getComputedStyle(document.querySelector('nav')).display") == "none"
        assert await tab.value("window.hacked") is None
        assert await tab.value("document.scripts.length + document.images.length") == 0
        # The sheet was accepted by its hash.
        assert await tab.value("getComputedStyle(document.querySelector('h1')).fontWeight") == "650"
        assert tab.complaints() == []
        assert tab.requested() == [page.as_uri()]


async def test_the_keyboard_reaches_the_result_first(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_bytes(_hostile(tmp_path))
    async with chromium.tab() as tab:
        await tab.open(page)
        for kind in ("keyDown", "keyUp"):
            await tab.ask("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        assert await tab.value("document.activeElement.getAttribute('href')") == "#main"
        assert await tab.value("document.activeElement.getBoundingClientRect().left") >= 0


async def test_a_script_and_a_barrier_in_a_page_would_be_noticed(tmp_path: Path) -> None:
    """The browser enforces the policy, and the tests see that and what axe finds."""
    ai_sdk.node()
    page = tmp_path / "report.html"
    worse = b"<script>window.hacked=1</script><img src='x.png'></main>"
    page.write_bytes(_hostile(tmp_path).replace(b"</main>", worse))
    async with chromium.tab() as tab:
        await tab.open(page)
        assert await tab.value("window.hacked") is None
        assert "Content Security Policy" in str(tab.complaints())
        assert [name for name, _ in await _barriers(tab)] == ["image-alt"]


async def _barriers(tab: chromium.Tab) -> list[tuple[str, list[str]]]:
    """Return what axe-core finds on the page: the rule, and the elements."""
    await tab.value((ai_sdk.HERE / "node_modules" / "axe-core" / "axe.min.js").read_text())
    found = "result => result.violations.map(each => [each.id, each.nodes.map(node => node.html)])"
    violations: list[tuple[str, list[str]]] = await tab.value(f"axe.run().then({found})")
    return violations
