"""The contracts that this package ships, by name."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from cutover.contract.definition import StreamContract
from cutover.protocols.ai_sdk import AI_SDK_5, AI_SDK_6, AI_SDK_7
from cutover.protocols.compat_lane import COMPAT_LANE

__all__ = ["AI_SDK_5", "AI_SDK_6", "AI_SDK_7", "COMPAT_LANE", "SHIPPED"]

SHIPPED: Final[Mapping[str, StreamContract]] = MappingProxyType(
    {each.name: each for each in (COMPAT_LANE, AI_SDK_5, AI_SDK_6, AI_SDK_7)}
)
"""All contracts of this package, by their name on the command line."""
