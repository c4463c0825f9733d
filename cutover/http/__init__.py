"""The one way out: the client's rules, deadlines, retries, bounds and secrets, and apps run in this process."""
