"""A fake gcloud program for tests. It is quick, uses the Cloud Run API v1 like the real one, and can fail on demand.

``FAKE_GCLOUD`` is ``COMMAND:MODE`` or ``COMMAND:MODE:NUMBER``. COMMAND is describe, list, update-traffic or all. With
NUMBER, only that call of the command has the mode. ``FAKE_GCLOUD_LOG`` names a file that gets one line of JSON for each call.
The program runs without site-packages.
"""

import json
import os
import signal
import socket
import sys
import time
from typing import Any, NoReturn


def ask(method: str, path: str, body: object = None) -> Any:
    """Send one request to the API, through the proxy that the real gcloud uses; return the JSON document of the reply."""
    region = options["--region"]
    override = os.environ["CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN"].removeprefix("http://").rstrip("/")
    sent = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} http://{region}-{override}{path} HTTP/1.1\r\nhost: {region}-{override}\r\n"
        f"authorization: Bearer {os.environ.get('CLOUDSDK_AUTH_ACCESS_TOKEN', '')}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(sent)}\r\nconnection: close\r\n\r\n"
    )
    address = os.environ["CLOUDSDK_PROXY_ADDRESS"], int(os.environ["CLOUDSDK_PROXY_PORT"])
    with socket.create_connection(
        address, timeout=float(os.environ["CLOUDSDK_CORE_HTTP_TIMEOUT"])
    ) as connection:
        connection.sendall(head.encode() + sent)
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    if not reply:
        fail("connection reset")
    top, _, raw = reply.partition(b"\r\n\r\n")
    status = int(top.split()[1])
    if status >= 400:
        fail(f"{status} {raw[:200].decode()}")
    try:
        return json.loads(raw)
    except ValueError:
        fail(f"not JSON: {raw[:80].decode()}")


def fail(message: str) -> NoReturn:
    print(f"ERROR: (gcloud.run) {message}", file=sys.stderr)
    sys.exit(1)


def replaced(service: Any) -> list[dict[str, object]]:
    """Return the traffic rows that the options ask for. As in the real gcloud, new shares keep the tags."""
    rows: list[dict[str, Any]] = []
    for pair in options["--to-revisions"].split(","):
        name, _, share = pair.partition("=")
        rows.append({**target(name), "percent": int(share)})
    assert sum(row["percent"] for row in rows) == 100
    tags = {row["tag"]: target_name(row) for row in service["spec"]["traffic"] if row.get("tag")}
    if "--clear-tags" in options:
        tags = {}
    elif "--set-tags" in options:
        tags = dict(pair.split("=") for pair in options["--set-tags"].split(","))
    return [*rows, *({**target(name), "tag": tag} for tag, name in tags.items())]


def target(name: str) -> dict[str, object]:
    return {"latestRevision": True} if name == "LATEST" else {"revisionName": name}


def target_name(row: dict[str, str]) -> str:
    return "LATEST" if row.get("latestRevision") else row["revisionName"]


def run() -> None:
    namespace = f"/apis/serving.knative.dev/v1/namespaces/{options['--project']}"
    if command == "list":
        wanted = options["--filter"].removeprefix("metadata.name=")
        items = ask("GET", f"{namespace}/revisions")["items"]
        print(json.dumps([item for item in items if item["metadata"]["name"] == wanted]))
        return
    service = ask("GET", f"{namespace}/services/{name}")
    if command == "describe":
        print(json.dumps(service, indent=2))
    elif mode != "ignored":
        service["spec"]["traffic"] = replaced(service)
        ask("PUT", f"{namespace}/services/{name}", service)


def hang() -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    log({"hangs": os.getpid()})
    while True:
        time.sleep(60)


def log(row: dict[str, object]) -> None:
    if path := os.environ.get("FAKE_GCLOUD_LOG"):
        with open(path, "ab", buffering=0) as file:
            file.write(json.dumps(row).encode() + b"\n")


def calls() -> int:
    with open(os.environ["FAKE_GCLOUD_LOG"]) as file:
        return sum(json.loads(row).get("command") == command for row in file)


arguments = sys.argv[1:]
assert arguments[0] == "run", arguments
command = arguments[2]
name = next((each for each in arguments[3:] if not each.startswith("--")), None)
options = dict(each.partition("=")[::2] for each in arguments[3:] if each.startswith("--"))
unknown = set(options) - {
    "--project", "--region", "--format", "--service", "--filter", "--to-revisions", "--set-tags", "--clear-tags", "--async",
}  # fmt: skip
assert not unknown, unknown
environment = sorted(f"{key}={value}" for key, value in os.environ.items())
log({"command": command, "argv": sys.argv, "environment": environment, "pid": os.getpid()})
wanted, mode, number = (os.environ.get("FAKE_GCLOUD", "::") + "::").split(":")[:3]
if wanted not in (command, "all") or (number and calls() != int(number)):
    mode = ""
match mode:
    case "hang":
        hang()
    case "hang-after":
        run()
        hang()
    case "fails":
        fail("no\x1b[2J such \u202ething")
    case "fails-after":
        run()
        fail("connection reset")
    case "garbage":
        os.write(1, b"\xff{")
    case "html":
        print("<!doctype html><title>Sign in</title>")
    case "huge":
        for _ in range(17):
            os.write(1, b" " * (1 << 20))
    case "null":
        print("null")
    case "grandchild":
        if not os.fork():
            hang()
        run()
    case "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    case _:
        run()
