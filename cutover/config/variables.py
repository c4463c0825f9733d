"""The table of inputs: every variable, how it is read, what it must be, and what it is for."""

from collections.abc import Callable
from pathlib import Path

import attrs

from cutover.config import values
from cutover.config.values import Rule

RUNS = Path("storage/app/production-stream-cutover")
"""Where run directories are made unless OUTPUT_DIR says otherwise."""
GOOGLE_API = "https://run.googleapis.com"

_SECONDS = values.number(most=86_400.0)
_SOME_SECONDS = values.number(most=86_400.0, above=True)
_PERCENT = values.number(most=100.0)
_COUNT = values.number(most=1e9)
_TOLERATED = "failed checks that are tolerated"


@attrs.frozen(kw_only=True)
class Variable:
    """One input: an environment variable, and but for a secret an option of the same name."""

    name: str
    help: str
    parse: Callable[[str], object] = str
    """From the text of the variable to the value; raises ValueError."""
    rule: Rule = values.text
    """What the value must be."""
    default: str = ""
    """As one would write it; shown by ``--help``."""
    secret: bool = False

    @property
    def field(self) -> str:
        """The field of ``CutoverConfig`` that it sets."""
        return self.name.lower()

    @property
    def option(self) -> str:
        """The command's option."""
        return "--" + self.name.lower().replace("_", "-")

    @property
    def is_text(self) -> bool:
        """Whether an empty text counts as not set; an empty flag or number is an error."""
        return self.parse in {str, values.parse_url, Path}


def _flag(name: str, default: str, said: str) -> Variable:
    return Variable(name=name, default=default, parse=values.parse_flag, rule=values.anything, help=said)


def _number(name: str, default: str, rule: Rule, said: str) -> Variable:
    return Variable(name=name, default=default, parse=values.parse_number, rule=rule, help=said)


def _count(name: str, default: str, said: str, rule: Rule = _COUNT) -> Variable:
    return Variable(name=name, default=default, parse=values.parse_count, rule=rule, help=said)


def _url(name: str, default: str, said: str) -> Variable:
    rule = values.url if default else values.anything
    return Variable(name=name, default=default, parse=values.parse_url, rule=rule, help=said)


def _secret(name: str, said: str) -> Variable:
    return Variable(name=name, rule=values.token, help=said, secret=True)


VARIABLES: tuple[Variable, ...] = (
    _flag("DRY_RUN", "1", "1: a rehearsal that touches nothing; 0: live"),
    _url("BASE_URL", "https://openagents.com", "the service whose streams move"),
    _secret("CONTROL_ACCESS_TOKEN", "for the route-split API; required when DRY_RUN=0"),
    _secret("AUTH_TOKEN", "for the streams; required when DRY_RUN=0"),
    _flag("APPLY_ROUTE_FLIP", "0", "1: set the overrides; 0: only verify them"),
    Variable(name="PROJECT", default="openagentsgemini", rule=values.project, help="Cloud Run project"),
    Variable(name="REGION", default="us-central1", rule=values.name, help="Cloud Run region"),
    Variable(
        name="SERVICE", default="openagents-control-service", rule=values.name, help="Cloud Run service"
    ),
    Variable(
        name="TRAFFIC_BACKEND",
        default="cloud-run-api",
        rule=values.backend,
        help="how traffic is moved: by the Admin API, or by the gcloud on the PATH",
    ),
    _url("CLOUD_RUN_API_URL", GOOGLE_API, "where the Admin API v2 is; gcloud goes by its own settings"),
    _secret(
        "CLOUD_RUN_ACCESS_TOKEN",
        "for Cloud Run; without it, application default credentials, or gcloud's account",
    ),
    Variable(
        name="CANARY_STEPS",
        default="5,25,50,100",
        parse=values.parse_steps,
        rule=values.steps,
        help="the canary's shares, whole percents, rising",
    ),
    _number("CANARY_SOAK_SECONDS", "30", _SECONDS, "how long each share is held and watched"),
    _number("FLIP_CONFIRM_SECONDS", "5", _SECONDS, "after the flip, until it is read again"),
    _count(
        "HELD_STREAMS", "2", "streams in flight across each change; 0: no sentinels", values.number(most=50)
    ),
    _flag("RUN_DUAL_RUN", "0", "1: compare with the legacy service"),
    _url("LEGACY_BASE_URL", "", "the legacy service; required when RUN_DUAL_RUN=1"),
    _secret("LEGACY_AUTH_TOKEN", "for a legacy host on another site; AUTH_TOKEN is not sent there"),
    Variable(
        name="REQUESTS_FILE",
        rule=values.anything,
        help="a manifest for the dual run instead of the one that ships",
    ),
    _flag("RUN_MUTATING_REQUESTS", "0", '1: run manifest entries with "mutates": true'),
    _count("MAX_ROUTE_FLIP_FAILURES", "0", _TOLERATED),
    _count("MAX_STREAM_SMOKE_FAILURES", "0", _TOLERATED),
    _count("MAX_CANARY_DRILL_FAILURES", "0", _TOLERATED),
    _count("MAX_DUAL_RUN_FAILURES", "0", _TOLERATED),
    _count("MAX_BROKEN_STREAMS", "0", "sentinel streams that may break"),
    _number("MAX_ROLLBACK_SECONDS", "60", _SOME_SECONDS, "from the rollback to its proof"),
    _number("MAX_ERROR_BUDGET_CONSUMED_PERCENT", "5", _PERCENT, "of the error budget, at most"),
    _number("SLO_ERROR_BUDGET_CONSUMED_PERCENT", "0", _PERCENT, "what you observe as consumed"),
    _number("MAX_P95_LATENCY_DELTA_MS", "0", values.number(most=1e9), "dual run; 0: not gated"),
    _number("PROBE_TIMEOUT_SECONDS", "120", _SOME_SECONDS, "one stream, connect to end"),
    _number("MAX_FIRST_EVENT_SECONDS", "5", _SOME_SECONDS, "until a stream's first event"),
    _number("MAX_EVENT_GAP_SECONDS", "15", _SOME_SECONDS, "between two events of a stream"),
    Variable(
        name="REVISION_HEADER",
        rule=values.header_name,
        help="the response header that names the revision, where there is one",
    ),
    Variable(name="COHORT_KEY", default="prod-rust-route-flip", help="cohort key of the route evaluations"),
    Variable(
        name="THREAD_ID_PREFIX",
        default="thread_prod_stream_smoke",
        rule=values.thread_prefix,
        help="how the probes' thread ids begin",
    ),
    Variable(name="COMPAT_CLIENT_BUILD_ID", default="20260221T130000Z", help="x-oa-client-build-id"),
    Variable(name="COMPAT_PROTOCOL_VERSION", default="openagents.control.v1", help="x-oa-protocol-version"),
    Variable(name="COMPAT_SCHEMA_VERSION", default="1", help="x-oa-schema-version"),
    _flag("ALLOW_INSECURE_HTTP", "0", "1: plain http to a host that is not loopback"),
    Variable(
        name="OUTPUT_DIR",
        parse=Path,
        rule=values.anything,
        help=f"the run directory; default {RUNS}/<UTC second>-<random>/",
    ),
)
"""Every input but the two revisions."""
