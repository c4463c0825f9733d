"""The page ``report.html``: the events of one run as somebody reads them who knows nothing else."""
