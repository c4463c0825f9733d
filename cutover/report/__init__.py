"""The output that people read: artifacts, terminal lines, the live view, the preview of a run, `cutover check` verdicts."""
