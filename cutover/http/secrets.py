r"""The secrets of a run, and how they are masked in every response.

A service may echo a token in another form than the one it was sent in. These forms are masked too:

- percent-encoded, in a URL or a form body (RFC 3986 2.1): any of its signs may be encoded, in either case, once or more often;
- escaped in JSON (RFC 8259 7): ``\/``, ``\"``, ``\u002f``, also in JSON that is itself a text in JSON;
- escaped in HTML: ``&amp;``, ``&#39;``;
- inside base64, such as the header of basic authentication.

Encoders leave letters and digits alone. So the longest run of them in a secret occurs in every form but base64, and a search for
this run (some milliseconds in 4 MiB) decides whether the slow search for the forms is made at all.

A URL holds secrets too: the login before its host, and parameters of its query such as ``token=...``. `secret_parts` finds them. Every
text that may show the URL of a request goes through `mask_urls`, and `secrets_of` also masks the same values elsewhere in the text.
"""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import unquote, unquote_plus

import attrs

from cutover.text import CUT

_SECRET_NAME = re.compile(
    r"token(?!s)|secret|key(?!word|board)|cookie|session|passw|pwd|auth(?!or(?!i))|credential|signature|jwt"
    r"|(?<![a-z])(?:sig|pass)(?![a-z])|^code$",
    re.IGNORECASE,
)
"""The name of a header or of a parameter whose value is likely a secret. Azure sends keys as ``sig`` and ``code``."""
_IN_URL = re.compile(r"""(?<=://)[^/?#\s"<>]+(?=@)|(?<=[?&#;])(?P<name>[^=?&#;\s"<>]+)=""")
"""The login or the name of a parameter in a URL (RFC 3986 3.2.1, 3.4). A fragment may hold parameters too, as OAuth 2.0 writes them."""
_VALUE = re.compile(r"""[^&#\s"<>]*""")
"""The value of a parameter."""
_TYPED = re.compile(
    r"\b(?P<scheme>bearer|basic)\s+(?=\S*[0-9])[a-z0-9._~+/-]{16,}=*|(?P<name>[\w-]+)=[^\s,;&]{4,}",
    re.IGNORECASE,
)
"""Credentials as a person pastes them: those of a header (RFC 6750 2.1), and the assignment of a variable. A sentence with "basic" has none."""
SHORTEST_SECRET = 4
"""Characters of the shortest secret that is masked. To mask a shorter one would hide most of the evidence."""
_SHORTEST_RANDOM = 16
"""Characters of the shortest part of a secret address that is masked by itself. A shorter one may be a usual word."""
_SHORTEST_IN_BASE64 = 12
"""Bytes of the shortest secret that is masked inside base64: of a shorter one too little is certain to be masked."""
_SIGNS = re.compile(r"[^A-Za-z0-9]")
_CUT_ESCAPE = re.compile(
    r"%(?:25){0,3}[0-9A-Fa-f]?|\\+(?:u[0-9A-Fa-f]{0,3})?|&(?:amp;){0,3}(?:#?[0-9A-Za-z]{0,6})?"
)
"""The beginning of an escape that was cut in its middle."""
_HTML_NAMES = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos"}


@attrs.frozen
class _Forms:
    """The forms of one secret, prepared once."""

    value: str = attrs.field(repr=False)
    core: str = attrs.field(repr=False)
    """The part that occurs in every form but base64."""
    characters: tuple[re.Pattern[str], ...] = attrs.field(repr=False)
    """One pattern for each character, in order."""
    in_text: re.Pattern[str] = attrs.field(repr=False)
    in_bytes: re.Pattern[bytes] = attrs.field(repr=False)
    in_base64: tuple[str, ...] = attrs.field(repr=False)
    core_bytes: bytes = attrs.field(repr=False)
    in_base64_bytes: tuple[bytes, ...] = attrs.field(repr=False)

    @classmethod
    def of(cls, value: str) -> "_Forms":
        patterns = [_forms_of_character(char) for char in value]
        whole = "".join(patterns)
        core, in_base64 = max(_SIGNS.split(value), key=len), tuple(_base64_forms(value))
        return cls(
            value=value,
            core=core,
            characters=tuple(re.compile(pattern) for pattern in patterns),
            in_text=re.compile(whole),
            in_bytes=re.compile(whole.encode("utf-8", "surrogatepass")),
            in_base64=in_base64,
            core_bytes=core.encode("utf-8", "surrogatepass"),
            in_base64_bytes=tuple(form.encode() for form in in_base64),
        )

    def mask(self, data: bytes) -> bytes:
        """Return the data with every form of the secret replaced by as many asterisks."""
        if self.core_bytes in data:
            data = self.in_bytes.sub(lambda found: b"*" * len(found[0]), data)
        for form in self.in_base64_bytes:
            data = data.replace(form, b"*" * len(form))
        return data

    def mask_text(self, text: str) -> str:
        """Return the text with every form of the secret replaced by as many asterisks, also a form that was cut short."""
        if self.core in text:
            text = self.in_text.sub(lambda found: "*" * len(found[0]), text)
        for form in self.in_base64:
            text = text.replace(form, "*" * len(form))
        return self._mask_cut(text) if CUT in text else text

    def _mask_cut(self, text: str) -> str:
        """Mask the beginning of the secret where ``printable`` has cut the text inside it."""
        start, parts = 0, []
        while (cut := text.find(CUT, start)) >= 0:
            found = next(
                (place for place in range(start, cut) if self._begins_at(text, place, cut)),
                cut,
            )
            parts += [text[start:found], "*" * (cut - found), CUT]
            start = cut + len(CUT)
        return "".join((*parts, text[start:]))

    def _begins_at(self, text: str, place: int, end: int) -> bool:
        """Return True if the text from ``place`` to ``end`` is the beginning of the secret, long enough to be masked."""
        for count, character in enumerate(self.characters):
            found = character.match(text, place, end)
            if found is None:
                cut_escape = place < end and _CUT_ESCAPE.fullmatch(text, place, end)
                return count >= SHORTEST_SECRET and (place == end or bool(cut_escape))
            place = found.end()
        return False


@attrs.define(eq=False)
class Secrets:
    """The secrets of a run. Each response is masked with them before anything is stored or shown.

    A secret with fewer than ``SHORTEST_SECRET`` characters is not masked.
    """

    values: tuple[str, ...] = attrs.field(default=(), repr=False)
    _forms: tuple[_Forms, ...] = attrs.field(default=(), init=False, repr=False)
    """The forms of the secrets that are long enough, the longest first."""

    def __attrs_post_init__(self) -> None:
        """Prepare the forms of the first secrets."""
        self._prepare()

    def add(self, value: str) -> None:
        """Mask one more secret from now on, such as a token that the run received later."""
        if value not in self.values:
            self.values = (*self.values, value)
            self._prepare()

    def mask(self, data: bytes) -> bytes:
        """Return the data with each secret of at least ``SHORTEST_SECRET`` characters replaced by as many asterisks."""
        for forms in self._forms:
            data = forms.mask(data)
        return data

    def mask_text(self, text: str) -> str:
        """Return the text with each secret replaced by asterisks, also a secret that `printable` has cut short."""
        for forms in self._forms:
            text = forms.mask_text(text)
        return text

    def _prepare(self) -> None:
        known = {forms.value: forms for forms in self._forms}
        long_enough = sorted(
            {value for value in self.values if len(value) >= SHORTEST_SECRET}, key=len, reverse=True
        )
        self._forms = tuple(known.get(value) or _Forms.of(value) for value in long_enough)


def _forms_of_character(char: str) -> str:
    """Return a pattern of every form in which an encoder, or a few of them in a row, may write one character.

    Every repetition has a bound, so that no body makes the search slow.
    """
    if not _SIGNS.match(char):
        return char
    encoded = char.encode("utf-8", "surrogatepass")
    units = char.encode("utf-16-be", "surrogatepass")
    percent = "".join(f"%(?:25){{0,3}}{_either_case(f'{byte:02x}')}" for byte in encoded)
    unicode = "".join(
        rf"\\{{1,7}}u{_either_case(units[place : place + 2].hex())}" for place in range(0, len(units), 2)
    )
    names = [
        f"#0{{0,4}}{ord(char)}",
        f"#[xX]0{{0,4}}{_either_case(f'{ord(char):x}')}",
        *filter(None, [_HTML_NAMES.get(char)]),
    ]
    literal = r"\\{1,8}" if char == "\\" else rf"\\{{0,7}}{re.escape(char)}"
    html = f"&(?:amp;){{0,3}}(?:{'|'.join(names)});"
    return f"(?:{percent}|{unicode}|{html}|{literal})"


def _either_case(digits: str) -> str:
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in digits)


def _base64_forms(value: str) -> Iterator[str]:
    """Give the texts that occur in the base64 of any data that contains the secret, one for each alignment (RFC 4648 4, 5).

    The characters at both ends that also depend on the data around the secret are left out.
    """
    data = value.encode("utf-8", "surrogatepass")
    if len(data) < _SHORTEST_IN_BASE64:
        return
    for shift in range(3):
        text = base64.b64encode(b"\0" * shift + data).rstrip(b"=").decode()
        bits = 8 * (shift + len(data))
        inner = text[-(-8 * shift // 6) : bits // 6]
        yield inner
        if (url_safe := inner.translate(str.maketrans("+/", "-_"))) != inner:
            yield url_safe


@attrs.frozen
class SecretPart:
    """A secret in a URL."""

    start: int
    end: int
    """The place behind its last character."""
    name: str
    """The name of the parameter; ``login`` for the login."""


def secret_parts(text: str) -> Iterator[SecretPart]:
    """Give the secrets in the URLs of a text: logins, and the values of parameters whose name suggests a secret, in their order."""
    end = 0
    for found in _IN_URL.finditer(text):
        if found["name"] is None:
            yield SecretPart(*found.span(), "login")
        elif found.start() >= end and holds_secret(name := unquote(found["name"])):
            value = _VALUE.match(text, found.end())
            if value is not None and value[0]:
                end = value.end()
                yield SecretPart(*value.span(), name)


def mask_urls(text: str) -> str:
    """Return the text with three asterisks in place of each secret in a URL."""
    parts, start = [], 0
    for secret in secret_parts(text):
        parts += [text[start : secret.start], "***"]
        start = secret.end
    return "".join((*parts, text[start:]))


def mask_typed(text: str) -> str:
    """Return a text that a person typed, with three asterisks in place of each credential: in URLs, after ``Bearer``, after ``TOKEN=``."""

    def hide(found: re.Match[str]) -> str:
        if found["scheme"]:
            return f"{found['scheme']} ***"
        return f"{found['name']}=***" if holds_secret(found["name"]) else found[0]

    return _TYPED.sub(hide, mask_urls(text))


def mask_login(value: str) -> str:
    """Return a value that should be a URL, and may be none, with three asterisks in place of all before its last ``@``, but the scheme."""
    return re.sub(r"\A([a-z][a-z0-9+.-]*://)?.*@", r"\1***@", value, count=1, flags=re.IGNORECASE | re.DOTALL)


def parts_of_address(url: str) -> tuple[str, ...]:
    """Return the parts of an address that is a secret as a whole, which are secrets by themselves; none of a text that is no URL.

    These are its path with its query, and each part of them that looks random: long, and with a digit. A service may echo them alone.
    """
    _, colon, rest = url.partition("://")
    path = re.sub(r"\A[^/?#]*", "", rest) if colon else ""
    words = (unquote_plus(word) for word in re.split(r"[/?&=#]", path))
    random = [word for word in words if len(word) >= _SHORTEST_RANDOM and re.search("[0-9]", word)]
    return (*([path] if len(path) >= _SHORTEST_RANDOM else []), *random)


def with_parts(secrets: Iterable[str]) -> tuple[str, ...]:
    """Return these secrets and the parts of those that are addresses, without empty ones."""
    return tuple(part for secret in secrets if secret for part in (secret, *parts_of_address(secret)))


def secrets_of(headers: Mapping[str, str], url: str = "") -> Secrets:
    """Return the secrets in a request's headers and URL: the credentials, and values whose name suggests a secret."""
    credentials = [
        value.split(" ", 1)[-1] for name, value in headers.items() if name.lower().endswith("authorization")
    ]
    named = [value for name, value in headers.items() if holds_secret(name)]
    in_url: list[str] = []
    for part in secret_parts(url):
        value = url[part.start : part.end]
        in_url += [value, unquote_plus(value)]
        if part.name == "login":
            # The name of a user is no secret, but a token may stand there without a password.
            in_url.append(unquote(value.partition(":")[2] or value))
    return Secrets((*credentials, *named, *in_url))


def holds_secret(name: str) -> bool:
    """Return True if the name of a header or of a parameter suggests that its value is a secret."""
    return _SECRET_NAME.search(name) is not None
