"""The release train.

| file | what it does |
|---|---|
| ``engine.py`` | the stage table, and the train that runs it, stops it and undoes it |
| ``steps/`` | one file for each step |
| ``step_recorder.py`` | the checks and the evidence of one step |
| ``sentinels.py`` | streams before, across and after a change, which show a break that the change causes |
| ``undo_executor.py`` | carries an undo out and proves it |
| ``recovery.py`` | recovers a run that was killed; ``model/undo_policy.py`` decides |
"""
