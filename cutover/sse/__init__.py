"""The wire format of Server-Sent Events (WHATWG HTML 9.2): the incremental parser and the values that it returns."""
