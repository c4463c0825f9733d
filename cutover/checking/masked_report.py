"""A report without secrets: a service may echo the headers and the URL that it received."""

import attrs

from cutover.contract import ContractReport
from cutover.http.secrets import Secrets, mask_urls


def masked_report(report: ContractReport, secrets: Secrets) -> ContractReport:
    """Return the report with the secrets masked in every text that may come from the stream."""

    def mask(text: str) -> str:
        return secrets.mask_text(mask_urls(text))

    def mask_if(text: str | None) -> str | None:
        return None if text is None else mask(text)

    findings = tuple(
        attrs.evolve(
            finding,
            message=mask(finding.message),
            expected=mask_if(finding.expected),
            actual=mask_if(finding.actual),
            path=mask_if(finding.path),
        )
        for finding in report.findings
    )
    return attrs.evolve(report, findings=findings, service_error=mask_if(report.service_error))
