"""Applies an OpenAPI Overlay 1.0: changes to a document, kept in a file of their own.

A tool writes the document anew each time; the overlay adds what the tool cannot say. An action names its targets by
JSONPath (RFC 9535). The subset in use is supported: `$`, `.name`, `['name']`, `[0]`, `.*`, `[*]`, `..name`, `..*` and a
filter that compares one member with a literal (`[?@.x == 'y']`) or asks for its presence (`[?@.x]`).
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import attrs

from cutover.errors import OpenApiError
from cutover.protocols.openapi.source import plain_copy

_RULE = "openapi.overlay"
_MOST_NODES = 100_000
"""Most nodes that one target may meet."""

_STEP = re.compile(
    r"""
    (?P<deep>\.\.)(?=[\[*\w]) | \.(?=[*\w])
    | (?P<star>\*) | (?P<name>[^\W\d][\w-]*)
    | \[\s*(?:
        (?P<all>\*) | (?P<index>-?\d+)
        | '(?P<single>(?:[^'\\]|\\.)*)' | "(?P<double>(?:[^"\\]|\\.)*)"
        | \?\s*\(?\s*@(?P<member>(?:\.[\w-]+|\['[^']*'\])+)\s*
          (?:(?P<compare>==|!=)\s*(?P<literal>'[^']*'|"[^"]*"|-?\d+(?:\.\d+)?|true|false|null)\s*)?\)?
      )\s*\]
    """,
    re.VERBOSE,
)

_Keys: TypeAlias = tuple[str | int, ...]


@attrs.frozen
class _Node:
    """One place in a document."""

    keys: _Keys
    """The keys from the root to this place."""
    value: Any
    """The value that stands there."""


_Select: TypeAlias = Callable[[_Node], list[_Node]]


def apply_overlay(document: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with all actions of the overlay applied, in their order. Both arguments stay as they are.

    Raises:
        OpenApiError: If the overlay is malformed, a target is not understood, or a target meets nothing.
    """
    if not isinstance(overlay.get("overlay"), str) or not overlay["overlay"].startswith("1."):
        raise OpenApiError(_RULE, "this is no Overlay 1.x document; it begins with `overlay: 1.0.0`")
    actions = overlay.get("actions")
    if not isinstance(actions, list) or not actions:
        raise OpenApiError(_RULE, "`actions` must be a list with at least one action", where="/actions")
    changed: dict[str, Any] = plain_copy(document)
    for index, action in enumerate(actions):
        where = f"/actions/{index}"
        if not isinstance(action, Mapping) or not isinstance(action.get("target"), str):
            raise OpenApiError(_RULE, "an action is an object with a `target`", where=where)
        changed = _apply(changed, action, where)
    return changed


def find_nodes(document: object, path: str) -> list[tuple[str | int, ...]]:
    """Return the place of each node that a JSONPath meets: the keys from the root.

    Raises:
        OpenApiError: If the path is not understood, or meets too many nodes.
    """
    text = path.strip()
    if not text.startswith("$"):
        raise OpenApiError(_RULE, f"the JSONPath {path!r} must begin with $")
    nodes, at, deep = [_Node((), document)], 1, False
    while at < len(text):
        step = _STEP.match(text, at)
        if step is None:
            raise OpenApiError(
                _RULE, f"the JSONPath {path!r} is not understood from character {at}: {text[at:]!r}"
            )
        at = step.end()
        if step["deep"]:
            deep = True
            continue
        if step.group() == ".":
            continue
        if deep:
            nodes = [inner for node in nodes for inner in _descendants(node)]
        select = _selector(step)
        found = [inner for node in nodes for inner in select(node)]
        if len(found) > _MOST_NODES:
            raise OpenApiError(_RULE, f"the JSONPath {path!r} meets more than {_MOST_NODES} nodes")
        nodes, deep = list({node.keys: node for node in found}.values()), False
    return [node.keys for node in nodes]


def _apply(document: dict[str, Any], action: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the document with one action applied. The document itself may change."""
    target = action["target"]
    places = find_nodes(document, target)
    if not places:
        raise OpenApiError(_RULE, f"the target {target} meets no node of the document", where=where)
    if action.get("remove") is True:
        # The deepest first, then from the last to the first, so that no place and no index of a list changes.
        places.reverse()
        for keys in sorted(places, key=len, reverse=True):
            if not keys:
                raise OpenApiError(_RULE, "the root of the document cannot be removed", where=where)
            del _at(document, keys[:-1])[keys[-1]]
        return document
    if "update" not in action:
        raise OpenApiError(_RULE, "an action has `update`, or `remove: true`", where=where)
    for keys in places:
        node = _at(document, keys)
        if isinstance(node, dict) and isinstance(action["update"], Mapping):
            _merge(node, action["update"])
        elif isinstance(node, list):
            node.append(plain_copy(action["update"]))
        else:
            raise OpenApiError(_RULE, f"the target {target} meets a value that is no object", where=where)
    return document


def _merge(node: dict[str, Any], update: Mapping[str, Any]) -> None:
    """Merge an update into an object: objects recursively, lists by appending, all else by replacing."""
    for key, value in update.items():
        old = node.get(key)
        if isinstance(old, dict) and isinstance(value, Mapping):
            _merge(old, value)
        elif isinstance(old, list) and isinstance(value, list):
            old.extend(plain_copy(value))
        else:
            node[str(key)] = plain_copy(value)


def _at(document: Any, keys: _Keys) -> Any:  # noqa: ANN401
    """Return the value at a place."""
    for key in keys:
        document = document[key]
    return document


def _children(node: _Node) -> list[_Node]:
    """Return the members of an object or a list."""
    value = node.value
    if isinstance(value, dict):
        return [_Node((*node.keys, key), member) for key, member in value.items()]
    if isinstance(value, list):
        return [_Node((*node.keys, index), member) for index, member in enumerate(value)]
    return []


def _descendants(node: _Node) -> list[_Node]:
    """Return the node and all nodes below it."""
    found, waiting = [], [node]
    while waiting:
        node = waiting.pop()
        found.append(node)
        waiting.extend(reversed(_children(node)))
    return found


def _selector(step: re.Match[str]) -> _Select:
    """Return the function that makes one step of a path."""
    if step["star"] or step["all"]:
        return _children
    if step["index"]:
        return _by_index(int(step["index"]))
    if step["member"]:
        return _by_filter(step["member"], step["compare"], step["literal"])
    quoted = step["single"] if step["single"] is not None else step["double"]
    name = step["name"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    return lambda node: (
        [_Node((*node.keys, name), node.value[name])]
        if isinstance(node.value, dict) and name in node.value
        else []
    )


def _by_index(index: int) -> _Select:
    """Return the step to one element of a list."""

    def select(node: _Node) -> list[_Node]:
        if not isinstance(node.value, list) or not -len(node.value) <= index < len(node.value):
            return []
        place = index % len(node.value)
        return [_Node((*node.keys, place), node.value[place])]

    return select


def _by_filter(member: str, compare: str | None, literal: str | None) -> _Select:
    """Return the step to the children whose member compares as asked, or is there."""
    names = [name or quoted for name, quoted in re.findall(r"\.([\w-]+)|\['([^']*)'\]", member)]
    wanted = None
    if literal is not None:
        wanted = literal[1:-1] if literal[0] in "'\"" else json.loads(literal)

    def holds(node: _Node) -> bool:
        value = node.value
        for name in names:
            if not isinstance(value, dict) or name not in value:
                return compare == "!="
            value = value[name]
        same = type(value) is type(wanted) and value == wanted
        return {None: True, "==": same, "!=": not same}[compare]

    return lambda node: [child for child in _children(node) if holds(child)]
