"""The contracts that this package ships, built from the data of each protocol."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from cutover.contract.chunks import ChunkSchema
from cutover.contract.definition import HeadRules, StreamContract
from cutover.contract.findings import Severity
from cutover.contract.grammar import Grammar
from cutover.contract.rules import RULES
from cutover.protocols import ai_sdk, compat_lane

_PROTOCOL = {"x-vercel-ai-ui-message-stream": "v1"}

COMPAT_LANE: Final = StreamContract(
    name="compat-lane",
    schema=compat_lane.SCHEMA,
    grammar=compat_lane.GRAMMAR,
    head=HeadRules(
        charset="utf-8",
        required=_PROTOCOL,
        refused=("x-oa-legacy-chat-retired",),
        sunset=("sunset", "x-oa-compat-sunset-date"),
    ),
)
"""The contract of the compatibility lane's stream aliases."""

_REFUSED_BY_AI_SDK = frozenset(
    {
        "head.status",
        "head.redirect",
        "transport.unreachable",
        "transport.reset",
        "json.syntax",
        "json.prototype",
        "schema.not-object",
        "schema.unknown-kind",
        "schema.missing-field",
        "schema.field-type",
        "order.unopened-part",
        "order.unknown-call",
        "order.unknown-approval",
    }
)
"""Rules that are violations, because the AI SDK's client refuses a stream that breaks them. All other rules are warnings."""


def _ai_sdk(major: int, schema: ChunkSchema, grammar: Grammar) -> StreamContract:
    severities = {
        rule: Severity.VIOLATION if rule in _REFUSED_BY_AI_SDK else Severity.WARNING for rule in RULES
    }
    return StreamContract(
        name=f"ai-sdk-{major}",
        schema=schema,
        grammar=grammar,
        head=HeadRules(statuses=tuple(range(200, 300)), required=_PROTOCOL),
        severities=severities,
    )


AI_SDK_5: Final = _ai_sdk(5, ai_sdk.SCHEMA_5, ai_sdk.GRAMMAR_5)
"""The contract of the AI SDK's client, major 5 (measured on 5.0.277)."""
AI_SDK_6: Final = _ai_sdk(6, ai_sdk.SCHEMA_6, ai_sdk.GRAMMAR_6)
"""The contract of the AI SDK's client, major 6 (measured on 6.0.326)."""
AI_SDK_7: Final = _ai_sdk(7, ai_sdk.SCHEMA_7, ai_sdk.GRAMMAR_7)
"""The contract of the AI SDK's client, major 7 (measured on 7.0.173)."""

SHIPPED: Final[Mapping[str, StreamContract]] = MappingProxyType(
    {each.name: each for each in (COMPAT_LANE, AI_SDK_5, AI_SDK_6, AI_SDK_7)}
)
"""All contracts of this package, by their name on the command line."""
