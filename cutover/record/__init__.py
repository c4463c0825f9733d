"""The files of a run on disk: journal, lock, evidence folder. They hold train events and do not know what they mean."""
