"""The traffic split: its backends (Cloud Run Admin API, gcloud) and its one writer, the mover."""
