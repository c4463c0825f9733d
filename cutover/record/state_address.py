"""The address of the state in a bucket, ``gs://bucket/prefix``, and the names of the objects below it.

====================================  ==================================================================
Object                                Content
====================================  ==================================================================
``PREFIX/locks/KEY.json``             the lock of one service (``state_lock.py``)
``PREFIX/RUN/journal/00000001.json``  the first event of a run (``journal_copy.py``), and so on
``PREFIX/RUN/decisions/WAIT.json``    the decision about one wait (``bucket_decisions.py``)
====================================  ==================================================================
"""

import re

import attrs

SCHEME = "gs://"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_SEGMENT = re.compile(r"(?!\.)[A-Za-z0-9._=-]{1,100}")
_RUN = re.compile(r"[0-9]{8}T[0-9]{6}Z_[0-9a-f]{6}")
_MOST = 500
"""Characters of the longest prefix. The name of an object has 1,024 bytes at most (Cloud Storage, object naming)."""
_FORM = "gs://BUCKET/PREFIX, such as gs://chat-production-cutover/trains"


@attrs.frozen
class StateAddress:
    """A bucket and a prefix."""

    bucket: str
    prefix: str = ""
    """Segments with slashes between them; empty for the whole bucket."""

    @classmethod
    def parse(cls, text: str) -> "StateAddress":
        """Read an address such as ``gs://bucket/prefix``.

        Raises:
            ValueError: It is not such a text. The message is a predicate, such as "must be ...".
        """
        bucket, _, prefix = text.removeprefix(SCHEME).rstrip("/").partition("/")
        segments = prefix.split("/") if prefix else []
        right = text.startswith(SCHEME) and _BUCKET.fullmatch(bucket) and len(prefix) <= _MOST
        if not right or not all(_SEGMENT.fullmatch(segment) for segment in segments):
            raise ValueError(f"must be {_FORM} (letters, digits, '.', '_', '=', '-'), not {text!r}")
        return cls(bucket, prefix)

    def __str__(self) -> str:
        return SCHEME + "/".join(filter(None, (self.bucket, self.prefix)))

    @property
    def run(self) -> str:
        """The name of the run, if the last segment is one; else empty."""
        last = self.prefix.rpartition("/")[2]
        return last if _RUN.fullmatch(last) else ""

    @property
    def parent(self) -> "StateAddress":
        """The address without its last segment."""
        return attrs.evolve(self, prefix=self.prefix.rpartition("/")[0])

    def below(self, *segments: str) -> str:
        """Return the name of an object below this address. With an empty last segment it is the beginning of such names, with its slash."""
        return "/".join((*filter(None, (self.prefix,)), *segments))

    def of_run(self, run: str) -> str:
        """Return the address of one run, as ``cutover recover`` takes it."""
        return f"{self}/{run}"


def is_state_address(text: str) -> bool:
    """Return True if a text is meant as an address in a bucket, not as a folder."""
    return text.startswith(SCHEME)


def state_url_problem(value: object) -> str:
    """Return the reason why a value is no STATE_URL; an empty text if it is one, or empty."""
    if value == "":
        return ""
    try:
        address = StateAddress.parse(value if isinstance(value, str) else "")
    except ValueError as error:
        return str(error) if isinstance(value, str) else f"must be {_FORM}, not {value!r}"
    if address.run:
        return f"must not end with the name of a run ({address.run}): it names the place of all runs, such as {address.parent}"
    return ""
