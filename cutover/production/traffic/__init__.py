"""The traffic split: its one writer (``mover.py``) and the backends that carry a write out (Admin API, gcloud)."""
