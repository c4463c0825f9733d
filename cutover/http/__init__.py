"""HTTP: requests with deadlines, retries, size limits and masked secrets, and a transport for an app in this process."""
