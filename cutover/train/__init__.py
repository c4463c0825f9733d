"""The release train.

| file | what it does |
|---|---|
| ``engine.py`` | the stage table, and the train that runs it, stops it and undoes it |
| ``steps/`` | one file for each step |
| ``step_recorder.py`` | the checks and the evidence of one step |
| ``probe_log.py`` | the counts and the log of any number of probes, in bounded memory |
| ``sentinels.py`` | streams across and after a change, which show a break that the change causes |
| ``soak.py`` | the window after a change, watched by looks and sentinels until its end or the first sign of a fault |
| ``undo_executor.py`` | carries an undo out and proves it |
| ``recovery.py`` | recovers a run that was killed; ``model/undo_policy.py`` decides |
"""
