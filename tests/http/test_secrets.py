"""A secret is masked in every form in which a service may echo it."""

import base64
import html
import json
import re
import time
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutover.http.secrets import SHORTEST_SECRET, Secrets, holds_secret, mask_login, mask_urls, secrets_of
from cutover.text import CUT, printable

SECRETS = (
    "ya29.a0-b_c~d+e/f=",
    "eyJhbGciOiJub25lIn0.eyJleHAiOjF9.c2ln",
    "pass\"w\\d/&<x>:'y;",
    "/+=:leading-signs",
    "percent%2Fencoded",
    "0123456789abcdef",
)


def lower_hex(text: str) -> str:
    return re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), quote(text, safe=""))


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "quote": quote,
    "quote, nothing safe": lambda text: quote(text, safe=""),
    "quote_plus": quote_plus,
    "lower-case hex": lower_hex,
    "encoded twice": lambda text: quote(quote(text, safe=""), safe=""),
    "a query of httpx": lambda text: str(httpx.URL("https://x.example/", params={"t": text}).query, "ascii"),
    "a path of httpx": lambda text: str(httpx.URL("https://x.example/" + quote(text)).raw_path, "ascii"),
    "JSON": json.dumps,
    "JSON with escaped slashes": lambda text: json.dumps(text).replace("/", "\\/"),
    "JSON with escaped signs": lambda text: "".join(
        char if char.isalnum() else f"\\u{ord(char):04x}" for char in text
    ),
    "JSON with escaped signs in capitals": lambda text: "".join(
        char if char.isalnum() else f"\\u{ord(char):04X}" for char in text
    ),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text).replace("/", "\\/")),
    "HTML": html.escape,
    "basic authentication": lambda text: base64.b64encode(f"user:{text}".encode()).decode(),
    "basic authentication with a longer user": lambda text: base64.b64encode(
        f"user1:{text}".encode()
    ).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(f"us:{text}?".encode()).decode(),
}


def runs(secret: str) -> list[str]:
    """Return the parts of a secret that every encoder leaves alone, and that tell something."""
    parts = "".join(char if char.isalnum() else " " for char in secret).split()
    return [part for part in parts if len(part) > 2]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", SECRETS)
def test_no_form_is_left(secret: str, form: str) -> None:
    echoed = FORMS[form](secret)
    data = f"before {echoed} after"
    for masked in (Secrets((secret,)).mask(data.encode()).decode(), Secrets((secret,)).mask_text(data)):
        assert echoed not in masked
        assert not any(part in masked for part in runs(secret))
        if "base64" in form or "basic" in form:
            assert len(masked.replace("*", "")) <= len("before  after") + len("dXNlcjE6") + 6
        assert len(masked) == len(data)
        assert masked.startswith("before ")
        assert masked.endswith(" after")


@pytest.mark.parametrize("form", [form for form in FORMS if "base64" not in form and "basic" not in form])
@pytest.mark.parametrize("secret", SECRETS)
def test_no_form_that_was_cut_short_is_left(secret: str, form: str) -> None:
    echoed = FORMS[form](secret)
    begin = echoed.find(runs(secret)[0])
    for size in range(1, len(echoed)):
        cut = printable(echoed, size) if echoed.isprintable() else echoed[:size] + CUT
        masked = Secrets((secret,)).mask_text(cut)
        if size - begin > 8 * SHORTEST_SECRET:
            assert runs(secret)[0][:SHORTEST_SECRET] not in masked


@given(
    secret=st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126), min_size=4, max_size=40)
)
def test_any_token_is_masked_in_bytes_and_text(secret: str) -> None:
    for form in (str, quote, quote_plus, json.dumps, html.escape):
        echoed = form(secret)
        secrets = Secrets((secret,))
        masked = secrets.mask(f"<{echoed}>".encode()).decode()
        assert echoed.strip('"') not in masked.replace("*", "")
        assert secrets.mask_text(f"<{echoed}>") == masked


def test_what_is_not_the_secret_stays() -> None:
    text = 'a%2Fb \\/ \\" &amp; ya29.a0-b_c~d+e dXNlcjp5YTI5 …'
    secrets = Secrets(SECRETS)
    assert secrets.mask_text(text) == text
    assert secrets.mask(text.encode()).decode() == text


def test_a_secret_that_is_added_later_is_masked_too() -> None:
    secrets = Secrets(("marked-first",))
    secrets.add("marked/second")
    secrets.add("marked/second")
    assert secrets.values == ("marked-first", "marked/second")
    assert secrets.mask(b"marked%2fsecond marked-first") == b"*" * 15 + b" " + b"*" * 12
    assert "marked" not in repr(secrets)


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"type":"text-delta","delta":"hello \\/ there"}\n\n' * 80_000,
        b"\\" * (4 << 20),
        b"%25" * (4 << 18) + b"leading",
        b"/" * (4 << 20) + b"leading",
    ],
)
def test_the_largest_body_is_masked_in_less_than_seconds(body: bytes) -> None:
    """It takes some 20 ms, and half a second for a body that is made to be slow; the bound leaves room for a busy machine."""
    secrets = Secrets(SECRETS[:4])
    started = time.process_time()
    secrets.mask(body)
    assert time.process_time() - started < 5.0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://h.example/x?key=abc&n=1", "https://h.example/x?key=***&n=1"),
        ("POST /x?n=1&api_key=abc: failed", "POST /x?n=1&api_key=*** failed"),
        ("/x?access_token=a&Token=b#id_token=c", "/x?access_token=***&Token=***#id_token=***"),
        ("/x?api%5Fkey=a%26b&sig=c;d&code=e", "/x?api%5Fkey=***&sig=***&code=***"),
        ("/x?note=a;token=b", "/x?note=a;token=***"),
        ("/x?token=a;key=b&n=1", "/x?token=***&n=1"),
        ("https://me:pass@h.example/@a", "https://***@h.example/@a"),
        ("https://me:pa@ss@h.example", "https://***@h.example"),
        ("https://token@h.example?x-amz-signature=a", "https://***@h.example?x-amz-signature=***"),
        (
            '{"url": "https://h.example?sig=abc", "token": "kept"}',
            '{"url": "https://h.example?sig=***", "token": "kept"}',
        ),
        ("https://h.example/a@b?x=c@d", "https://h.example/a@b?x=c@d"),
        (
            "/x?max_tokens=100&author=me&keyword=k&design=d&zipcode=z&key=",
            "/x?max_tokens=100&author=me&keyword=k&design=d&zipcode=z&key=",
        ),
        ("what? token=abc, me@h.example", "what? token=abc, me@h.example"),
    ],
)
def test_a_secret_of_a_url_is_masked_and_nothing_else(text: str, shown: str) -> None:
    assert mask_urls(text) == shown


def test_the_login_of_a_value_that_is_no_url_is_masked() -> None:
    for value in ("http://me:pa/ss@host:x", "me:pa/ss@host:x", "http://a@me:pa\nss@host:x"):
        assert mask_login(value) == ("http://" if "://" in value else "") + "***@host:x"
    assert mask_login("http://host/x") == "http://host/x"


def test_the_secrets_of_a_request_are_those_of_its_headers_and_its_url() -> None:
    headers = {"Proxy-Authorization": "Basic abcd", "x-auth": "efgh", "accept": "text/plain"}
    found = secrets_of(headers, "https://me:p%40ss@h.example/x?key=a%2Bb+c&n=nnnn https://t0ken@h.example")
    echoed = "abcd efgh p@ss me:p@ss a%2Bb+c a+b c t0ken"
    assert set(found.mask_text(echoed)) == {"*", " "}
    assert found.mask_text("text/plain me nnnn https") == "text/plain me nnnn https"


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("Authorization", True),
        ("X-Api-Key", True),
        ("set-cookie", True),
        ("accept", False),
        ("x-max-tokens", False),
    ],
)
def test_the_name_of_a_header_tells_a_secret(name: str, *, secret: bool) -> None:
    assert holds_secret(name) is secret
