r"""The contracts that this package ships: one for the compatibility lane and one for each major of the AI SDK.

A first use::

    from cutover import check_recording
    from cutover.protocols import AI_SDK_7

    body = b'data: {"type": "start"}\n\ndata: {"type": "abort"}\n\ndata: [DONE]\n\n'
    check_recording(body, contract=AI_SDK_7).raise_for_violations()
"""

from cutover.protocols.catalog import AI_SDK_5, AI_SDK_6, AI_SDK_7, COMPAT_LANE, SHIPPED

__all__ = ["AI_SDK_5", "AI_SDK_6", "AI_SDK_7", "COMPAT_LANE", "SHIPPED"]
