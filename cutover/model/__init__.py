"""Pure values and functions of a run: states, checks, train events, gates, undo plan and policy, summary. No IO, no clock."""
