"""The routes: their one writer (``writer.py``) and the route-split API that it uses (``control_plane.py``)."""
