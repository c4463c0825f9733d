"""The secrets of a request, masked in the report about its stream: a service may echo what it received."""

import attrs

from cutover.contract import ContractReport
from cutover.http.secrets import Secrets


def masked(report: ContractReport, secrets: Secrets) -> ContractReport:
    """Return the report with the secrets masked in every text that may come from the stream."""

    def mask(text: str | None) -> str | None:
        return None if text is None else secrets.mask_text(text)

    return attrs.evolve(
        report,
        findings=tuple(
            attrs.evolve(
                finding,
                message=secrets.mask_text(finding.message),
                expected=mask(finding.expected),
                actual=mask(finding.actual),
            )
            for finding in report.findings
        ),
        service_error=mask(report.service_error),
    )
