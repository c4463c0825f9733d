"""Metrics of real users: the error budget and the requests of each revision, read by PromQL."""
