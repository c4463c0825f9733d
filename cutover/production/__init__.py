"""Readers and writers of production: the traffic split, the routes, the lane's streams. No policy."""
