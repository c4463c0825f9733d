"""The files of a run on disk: journal, lock, evidence folder. They keep train events and do not interpret them."""
