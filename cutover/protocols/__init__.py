"""The contracts that ship, one for each protocol.

A first use::

    from cutover import check_recording
    from cutover.protocols import AI_SDK_7

    check_recording(body, contract=AI_SDK_7).raise_for_violations()
"""

from cutover.protocols.catalog import AI_SDK_5, AI_SDK_6, AI_SDK_7, COMPAT_LANE, SHIPPED

__all__ = ["AI_SDK_5", "AI_SDK_6", "AI_SDK_7", "COMPAT_LANE", "SHIPPED"]
