"""The recording of a failed stream: its bytes in a file, and the command that checks them again."""

import shlex
from pathlib import Path

import attrs

from cutover.contract import StreamContract
from cutover.http.secrets import Secrets
from cutover.protocols import SHIPPED
from cutover.text import printable

_BLANK_LINES = (b"\n\n", b"\r\n\r\n", b"\r\r")


def save_recording(
    folder: Path, body: bytes, *, contract: StreamContract, secrets: Secrets, received: int
) -> str | None:
    """Save a body, and return a command or a hint to check it again; None if saving fails.

    Args:
        folder: The folder to save it in. It is made if it does not exist.
        body: The kept bytes.
        contract: The contract that the stream did not keep.
        secrets: Secrets to mask in the body.
        received: The number of bytes that came. If it is larger than the body, the result says so.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"stream-{len(list(folder.iterdir()))}.sse"
        path.write_bytes(secrets.mask(body))
    except OSError:
        return None
    part = "" if len(body) == received else f"  # the first {len(body)} of {received} bytes"
    shipped = SHIPPED.get(contract.name)
    if shipped is None or attrs.evolve(shipped.strict(), limits=contract.limits) != contract:
        return f"run check_recording on {path} with the contract {printable(contract.name)}{part}"
    return shlex.join(["cutover", "check", "--contract", contract.name, str(path)]) + part


def end_of_last_event(body: bytes | bytearray) -> int:
    """Return the position behind the last blank line; 0 without one."""
    return max(body.rfind(blank) + len(blank) if blank in body else 0 for blank in _BLANK_LINES)
