"""A naive parser of event streams (WHATWG HTML 9.2.5 and 9.2.6), independent of the real one, as its reference.

It takes the whole body at once and reads one byte after another.
"""

from cutover.sse.events import Comment, MessageEvent, Oversized, Retry, StreamEvent, Truncated


def split_lines(body: bytes) -> tuple[list[tuple[int, bytes]], tuple[int, bytes]]:
    """Return each complete line with its offset, and the incomplete last line with its offset."""
    lines: list[tuple[int, bytes]] = []
    begin = index = 0
    while index < len(body):
        if body[index] not in b"\r\n":
            index += 1
            continue
        width = 2 if body[index : index + 2] == b"\r\n" else 1
        lines.append((begin, body[begin:index]))
        index += width
        begin = index
    return lines, (begin, body[begin:])


def interpret(  # noqa: C901, PLR0912, PLR0915  the standard in one piece, to be read beside it
    body: bytes, *, max_event_bytes: int = 1 << 20
) -> tuple[list[StreamEvent], str, int | None]:
    """Return what the parser must give: the events, the last event ID, and the first offset that is not UTF-8."""
    skip = 3 if body[:3] == b"\xef\xbb\xbf" else 0
    lines, (rest_at, rest) = split_lines(body[skip:])
    events: list[StreamEvent] = []
    bad: list[int] = []
    data: list[bytes] = []
    begin: int | None = None
    event = identifier = buffered = ""
    own_id: str | None = None
    retry: int | None = None
    dropping = False

    def too_long(line: bytes) -> bool:
        return sum(map(len, data)) + len(line) > max_event_bytes

    for at, line in lines:
        offset = at + skip
        text = line.decode("utf-8", "replace")
        if line == b"":
            identifier = buffered
            if data:
                named = event or "message"
                events.append(
                    MessageEvent(join(data), named, identifier, begin or 0, event or None, own_id, retry)
                )
            data, begin, event, own_id, retry, dropping = [], None, "", None, None, False
        elif dropping:
            continue
        elif too_long(line):
            events.append(Oversized(max_event_bytes + 1, offset if begin is None else begin))
            data, begin, event, retry, dropping = [], None, "", None, True
        elif text[0] == ":":
            bad += bad_bytes(line, offset)
            events.append(Comment(text[2:] if text[1:2] == " " else text[1:], offset))
        else:
            bad += bad_bytes(line, offset)
            begin = offset if begin is None else begin
            name, _, value = text.partition(":")
            value = value[1:] if value[:1] == " " else value
            if name == "data":
                data.append(line)
            elif name == "event":
                event = value
            elif name == "id" and "\0" not in value:
                buffered = own_id = value
            elif name == "retry" and value and all(c in "0123456789" for c in value):
                # A value of 18 digits or more counts as 10 to the power of 18.
                digits = value.lstrip("0") or "0"
                retry = int(digits) if len(digits) < 18 else 10**18
                events.append(Retry(retry, offset))
    if rest and not dropping and too_long(rest):
        events.append(Oversized(max_event_bytes + 1, rest_at + skip if begin is None else begin))
        dropping = True
    if not dropping:
        bad += bad_bytes(rest, rest_at + skip)
        lost = [*data, *([rest] if rest and rest[:1] != b":" else [])]
        if lost:
            events.append(Truncated(b"\n".join(lost), rest_at + skip if begin is None else begin))
    return events, identifier, min(bad, default=None)


def join(lines: list[bytes]) -> str:
    """Return the values of these `data` lines, joined by LF."""
    values = []
    for line in lines:
        value = line.decode("utf-8", "replace").removeprefix("data").removeprefix(":")
        values.append(value[1:] if value[:1] == " " else value)
    return "\n".join(values)


def bad_bytes(line: bytes, offset: int) -> list[int]:
    """Return the offset of the first byte that is not UTF-8, as a list of at most one."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return [offset + error.start]
    return []
