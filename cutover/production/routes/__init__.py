"""The routes: the route-split API and the one writer of overrides."""
