"""The steps of the train. Each is one file with a plan and one coroutine; no step imports another."""
