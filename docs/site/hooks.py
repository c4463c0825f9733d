"""The parts of the site that are made from the code: the pages of the rules in order, their table, and the public names.

A page holds a mark, such as ``<!-- rules -->``, where such a part goes. So a rule or a public name is written down once.
"""

import importlib
from itertools import groupby
from typing import Any

from cutover.contract import RULES, Rule, Severity
from cutover.protocols import SHIPPED

DOORS = ("cutover.testing", "cutover.contract", "cutover.protocols", "cutover")
"""The public packages. A name that several of them have is described at the first of these."""


def on_config(config: Any) -> Any:  # noqa: ANN401  mkdocs hands its own types to a hook
    """Put the page of each rule into the navigation, by family, in the order of the table."""
    families = [
        {family: [{rule.id: f"rules/{rule.id}.md"} for rule in rules]}
        for family, rules in groupby(RULES.values(), key=_family)
    ]
    config["nav"] = [
        {"Rules": ["rules/index.md", *families]} if entry == {"Rules": "rules/"} else entry
        for entry in config["nav"]
    ]
    return config


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:  # noqa: ANN401  as above
    """Fill the marks of a page; below the title of a rule's page, say what the rule is in each contract."""
    folder, _, name = page.file.src_uri.removesuffix(".md").rpartition("/")
    if folder == "rules" and name in RULES:
        title, below = markdown.split("\n", 1)
        return f"{title}\n\n*{severities(RULES[name])}*\n{below}"
    if folder == "rules":
        return markdown.replace("<!-- rules -->", rule_table())
    for door in DOORS:
        markdown = markdown.replace(f"<!-- names of {door} -->", names_of(door))
    return markdown


def on_page_content(html: str, *, page: Any, **_: Any) -> str:  # noqa: ANN401  as above
    """Turn the mark of a block of code in a docstring, two colons, into the one colon that a reader expects."""
    return html.replace("::</p>", ":</p>") if page.file.src_uri.startswith("reference/") else html


def severities(rule: Rule) -> str:
    """Return the severity of a rule in each contract, in words."""
    by_severity = {
        severity: [name for name, contract in SHIPPED.items() if contract.severity(rule.id) is severity]
        for severity in Severity
    }
    in_all = [each.value for each, names in by_severity.items() if len(names) == len(SHIPPED)]
    if in_all:
        return f"It is a {in_all[0]}, unless your contract says something else."
    said = [f"a {each.value} in {', '.join(names)}" for each, names in by_severity.items() if names]
    seen = (
        "; a user sees the defect, so in a contract test it is always a violation" if rule.user_sees else ""
    )
    return f"It is {' and '.join(said)}{seen}."


def rule_table() -> str:
    """Return the table of all rules."""
    lane, sdk = SHIPPED["compat-lane"], SHIPPED["ai-sdk-7"]
    rows = [
        f"| [{rule.id}]({rule.id}.md) | {rule.why} | {lane.severity(rule.id).value} | {sdk.severity(rule.id).value} "
        f"| {_in_a_test(rule, lane.strict().severity(rule.id), sdk.strict().severity(rule.id))} |"
        for rule in RULES.values()
    ]
    head = (
        "| rule | why | `compat-lane` | `ai-sdk-5`, `-6`, `-7` | in a contract test |\n|---|---|---|---|---|"
    )
    return "\n".join([head, *rows])


def _in_a_test(rule: Rule, lane: Severity, sdk: Severity) -> str:
    return Severity.VIOLATION.value if rule.user_sees or lane is sdk is Severity.VIOLATION else "the same"


def names_of(door: str) -> str:
    """Return a section for each public name of a package, or a link if another package describes the name."""
    names = sorted(importlib.import_module(door).__all__, key=str.lower)
    first = {
        name: next(each for each in DOORS if name in importlib.import_module(each).__all__) for name in names
    }
    here = [f"::: {door}.{name}\n" for name in names if first[name] == door]
    there = [
        f"- [`{name}`][{first[name]}.{name}], described at `{first[name]}`"
        for name in names
        if first[name] != door
    ]
    return "\n".join([*here, *([f"## Also in `{door}`\n", *there] if there else [])])


def _family(rule: Rule) -> str:
    return rule.id.partition(".")[0]
