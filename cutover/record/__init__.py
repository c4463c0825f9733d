"""The record of a run: journal, lock, decisions and evidence folder on disk, and their copy in the bucket of STATE_URL. It interprets no train event."""
