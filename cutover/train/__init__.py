"""The release train.

| file | what it does |
|---|---|
| ``engine.py`` | the stage table, and the train that runs it, stops it and undoes it |
| ``steps/`` | one file for each step |
| ``step_recorder.py`` | the checks and the evidence of one step |
| ``sentinels.py`` | sentinel streams, kept open across a change to see whether it breaks them |
| ``undo_executor.py`` | carries an undo out and proves it |
| ``recovery.py`` | recovers a run that was killed; ``model/undo_policy.py`` decides |
"""
