"""The text of ``cutover check --explain``."""

import difflib

import click

from cutover.contract import RULES, StreamContract
from cutover.protocols import COMPAT_LANE

_OWN_SHAPES = (
    "compat-lane has its own shapes for tool-input, tool-output and error; the AI SDK's clients refuse them. "
    "To check a stream for those clients, use --contract ai-sdk-5, ai-sdk-6 or ai-sdk-7"
)


def explanation(rule_id: str, contract: StreamContract) -> str:
    """Return the reason for a rule, and its severity; raise a usage error if there is no such rule."""
    reasons = {
        **{rule.id: rule.why for rule in RULES.values()},
        **{rule.id: rule.why for rule in contract.rules},
    }
    why = reasons.get(rule_id)
    if why is None:
        near = [each for each in reasons if rule_id and rule_id in each]
        near = near or difflib.get_close_matches(rule_id, reasons)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known rules: {', '.join(sorted(reasons))}"
        raise click.BadParameter(f"no rule is named {rule_id!r}; {hint}", param_hint="--explain")
    severity, strict = contract.severity(rule_id).value, contract.strict().severity(rule_id).value
    lines = [
        f"{rule_id}: {why}",
        f"severity in {contract.name}: {severity}; in `cutover check` and in the pytest fixture: {strict}",
    ]
    if contract is COMPAT_LANE and rule_id.startswith("schema."):
        lines.append(_OWN_SHAPES)
    return "\n".join(lines)
