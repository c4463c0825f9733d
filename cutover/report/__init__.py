"""Everything people see: artifacts, terminal lines, the live view, the preview of a run, verdicts of `cutover check`."""
