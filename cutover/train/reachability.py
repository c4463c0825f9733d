"""The addresses of a train: each is asked before anything else, so that a dead network gives one clear line for each address.

The answer also shows the proxy, the certificate and the clock at the other end.
"""

from collections.abc import Mapping, Sequence

import anyio
import attrs

from cutover.http.outbound import ATTEMPTS, pause_after
from cutover.http.reach import REACH_SECONDS, Reached, UnreachedError, date_of, reach
from cutover.model.results import StepStatus
from cutover.production.services import Services
from cutover.train.step_recorder import StepRecorder

CERTIFICATE_DAYS = 14
"""Days before the end of a certificate from which on it is a warning."""
MOST_CLOCK_SKEW = 30.0
"""Seconds by which two clocks may differ before that is a warning. Token lifetimes are judged by this machine's clock."""
_DAY = 86_400.0
_SHOWN_NAMES = 3
"""Names of a certificate that a detail shows."""


@attrs.frozen(kw_only=True)
class Address:
    """One address that a train needs."""

    field: str
    """The field of the configuration, such as ``base_url``."""
    name: str
    """The name of the input as the user typed it, such as ``BASE_URL``."""
    url: str

    @property
    def check_id(self) -> str:
        """The id of the check: ``address-base-url``."""
        return f"address-{self.field.replace('_', '-')}"


async def check_addresses(
    addresses: Sequence[Address], seconds_needed: float, services: Services, recorder: StepRecorder
) -> Mapping[str, Reached]:
    """Record a check for each address, and one for the clocks. Return the facts of the addresses that answered, by field.

    Args:
        addresses: The addresses that the train needs.
        seconds_needed: Seconds for which each certificate must still be valid.
        services: The services of the train. Its client for plain requests asks.
        recorder: Gets the checks.
    """
    reached: dict[str, Reached] = {}

    async def ask(address: Address) -> None:
        facts = await _reach(address, services)
        if isinstance(facts, UnreachedError):
            detail = f"{address.name} is not reached: {facts}; {facts.remedy}"
            recorder.check(address.check_id, StepStatus.ERROR, detail, endpoint=address.url, tolerable=False)
            return
        reached[address.field] = facts
        _record(address, facts, seconds_needed, recorder)

    async with anyio.create_task_group() as group:
        for address in addresses:
            group.start_soon(ask, address)
    _check_clocks([(each.name, reached[each.field]) for each in addresses if each.field in reached], recorder)
    return reached


async def _reach(address: Address, services: Services) -> Reached | UnreachedError:
    """Ask at an address; ask again after a failure that may pass, while half of the time is left."""
    client, clock, attempt = services.service.client, services.clock, 0
    began = clock.now()
    while True:
        attempt += 1
        try:
            return await reach(client, address.url, name=address.name, label=f"preflight.{address.check_id}")
        except UnreachedError as error:
            if not error.may_pass or attempt == ATTEMPTS or clock.now() - began > REACH_SECONDS / 2:
                return error
        await clock.sleep(pause_after(attempt))


def _record(address: Address, facts: Reached, seconds_needed: float, recorder: StepRecorder) -> None:
    """Record the check of an address that answered: its connection, and the time for which its certificate is valid."""
    route = f"at {facts.remote}" if facts.remote else "in this process"
    if facts.proxy:
        route = f"through {facts.proxy}, which looks the name up"
    detail, status, warns = f"{address.url} answers {route}", StepStatus.PASS, False
    left, ends = facts.certificate_left, facts.certificate_ends
    if left is None or ends is None:
        detail += "; its connection has no TLS"
    else:
        names = ", ".join(facts.certificate_names[:_SHOWN_NAMES])
        detail += f"; {facts.tls_version}, certificate for {names}, valid until {date_of(ends)} ({left / _DAY:.1f} days)"
        if left < seconds_needed:
            status = StepStatus.ERROR
            detail += f": that may be before the end of the train and its undo ({seconds_needed:.0f} s); renew it first"
        elif left < CERTIFICATE_DAYS * _DAY:
            warns = True
            detail += ": renew it soon"
    recorder.check(address.check_id, status, detail, endpoint=address.url, tolerable=False, warns=warns)


def _check_clocks(answers: Sequence[tuple[str, Reached]], recorder: StepRecorder) -> None:
    """Record the check of the clocks: the difference between this machine's clock and each Date header."""
    ahead = {name: facts.clock_ahead for name, facts in answers if facts.clock_ahead is not None}
    apart = {name: seconds for name, seconds in ahead.items() if abs(seconds) > MOST_CLOCK_SKEW}
    status, warns = StepStatus.PASS, False
    if not answers:
        status, detail = StepStatus.SKIP, "not compared: no address answered"
    elif not ahead:
        warns = True
        detail = "the clocks were not compared: no answer has a Date header; check the clock of this machine by hand: date -u"
    elif apart:
        warns = True
        words = ", ".join(
            f"{abs(seconds):.0f} s {'behind' if seconds > 0 else 'ahead of'} that of {name}"
            for name, seconds in apart.items()
        )
        detail = (
            f"the clock of this machine is {words} (Date header), and the lifetimes of tokens and certificates are judged by it: "
            "set it, for instance with timedatectl set-ntp true"
        )
    else:
        furthest = max(abs(seconds) for seconds in ahead.values())
        detail = f"the clock of this machine is within {furthest + 1:.0f} s of that of {', '.join(ahead)}"
    recorder.check("clock", status, detail, tolerable=False, warns=warns)


def address_facts(address: Address, facts: Reached | None) -> dict[str, object]:
    """Return the facts of an address, ready for JSON; None stands for what is not known."""
    return {
        "input": address.name,
        "url": address.url,
        "reached": facts is not None,
        "remote": facts.remote or None if facts else None,
        "proxy": facts.proxy or None if facts else None,
        "tls_version": facts.tls_version or None if facts else None,
        "certificate_names": list(facts.certificate_names) if facts else [],
        "certificate_ends": date_of(facts.certificate_ends)
        if facts and facts.certificate_ends is not None
        else None,
        "clock_ahead_seconds": round(facts.clock_ahead, 1)
        if facts and facts.clock_ahead is not None
        else None,
    }
