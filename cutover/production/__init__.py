"""Readers and writers of production: the traffic split, the routes, the lane's streams. They decide nothing.

| file | what it does |
|---|---|
| ``traffic/mover.py`` | writes the traffic split and proves it: the one writer of the split |
| ``traffic/backend.py`` | the interface of a traffic backend: ``cloud_run_api.py`` or ``gcloud.py`` |
| ``routes/writer.py`` | writes overrides and proves them: the one writer of the routes |
| ``routes/control_plane.py`` | the route-split API: reads the routes, sends one override |
| ``lane.py``, ``lane_prober.py`` | the paths and bodies of the lane, and the probes of its streams |
| ``services.py`` | all of them together, as one train uses them |
"""
