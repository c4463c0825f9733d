"""Places: which URLs are two spellings of one place."""

import pytest

from cutover.http.places import place_of

ONE_PLACE = [
    ("https://chat.example", "https://chat.example"),
    ("https://chat.example", "HTTPS://Chat.Example"),
    ("https://chat.example", "https://chat.example:443"),
    ("https://chat.example", "https://chat.example:"),
    ("http://chat.example:80", "http://chat.example"),
    ("https://chat.example:8443", "https://chat.example:08443"),
    ("https://chat.example", "https://chat.example/"),
    ("https://chat.example/old", "https://chat.example/old//"),
    ("https://chat.example", "https://chat.example."),
    ("https://chat.example", "https://ch%61t.example"),
    ("https://chat.example/~old", "https://chat.example/%7eold"),
    ("https://chat.example/%2f", "https://chat.example/%2F"),
    ("https://chat.example/old", "https://chat.example/new/../old"),
    ("https://chat.example/old", "https://chat.example/./old/%2E"),
    ("https://chat.example", "https://chat.example/../.."),
    ("https://xn--mnchen-3ya.example", "https://m%C3%BCnchen.example"),
    ("https://xn--mnchen-3ya.example", "https://XN--MNCHEN-3YA.example"),
    ("https://xn--mnchen-3ya.example", "https://M\u00dcNCHEN.example"),
    ("http://[::1]:8080", "http://[0:0:0:0:0:0:0:1]:8080"),
    ("http://[2001:db8::a]", "http://[2001:0DB8::000A]:80/"),
    ("http://127.0.0.1", "http://[::ffff:127.0.0.1]"),
    ("http://127.0.0.1", "http://127.1"),
    ("http://127.0.0.1", "http://0x7f000001"),
    ("http://127.0.0.1", "http://2130706433"),
]
TWO_PLACES = [
    ("https://chat.example", "http://chat.example"),
    ("https://chat.example", "https://chat.example:8443"),
    ("https://chat.example", "https://legacy.chat.example"),
    ("https://chat.example", "https://chat.example/old"),
    ("https://chat.example/old", "https://chat.example/OLD"),
    ("https://chat.example/a%2Fb", "https://chat.example/a/b"),
    ("http://127.0.0.1", "http://127.0.0.2"),
    ("http://[::1]", "http://[::2]"),
    ("http://127.0.0.1", "http://localhost"),
    ("https://face.example", "https://cafe.example"),
    ("https://1.2.3.4.5", "https://1.2.3.4"),
]


@pytest.mark.parametrize(("one", "other"), ONE_PLACE)
def test_two_spellings_of_one_place_are_equal(one: str, other: str) -> None:
    assert place_of(one) == place_of(other)


@pytest.mark.parametrize(("one", "other"), TWO_PLACES)
def test_two_places_are_not_equal(one: str, other: str) -> None:
    assert place_of(one) != place_of(other)


@pytest.mark.parametrize("host", ["\u00fc" * 80, "%C3%BC..example"])
def test_a_host_that_cannot_exist_is_equal_to_itself_alone(host: str) -> None:
    assert place_of(f"https://{host}") == place_of(f"https://{host}")
    assert place_of(f"https://{host}") != place_of("https://chat.example")
