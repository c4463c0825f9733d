"""The release train.

| file | what it does |
|---|---|
| ``engine.py`` | the stage table, and the train that runs it, stops it and undoes it |
| ``steps/`` | one file for each step |
| ``step_recorder.py`` | the checks and the evidence of one step |
| ``token_lifetimes.py`` | the lifetimes of the tokens, compared with the time of the train and its undo |
| ``canary_evidence.py`` | the evidence that can tell that the canary answered; the preflight looks for it |
| ``canary_tag.py`` | the tag that the drill gives a canary without one, at 0 % |
| ``canary_answers.py`` | the streams of one canary step, counted by the revision that answered, and the test of the share |
| ``legacy_identity.py`` | the signs that the new service answers at LEGACY_BASE_URL |
| ``probe_log.py`` | the counts and the log of any number of probes, in bounded memory |
| ``sentinels.py`` | streams across and after a change, which show a break that the change causes |
| ``soak.py`` | the window after a change, watched by looks and sentinels until its end or the first sign of a fault |
| ``undo_executor.py`` | the one executor of every way back: look, decide (``model/undo_policy.py``), write, prove |
| ``undo_parts.py`` | the parts that it restores: the split (``undo_traffic.py``) and the overrides (``undo_routes.py``) |
| ``stream_proof.py`` | the proof by streams: a revision without a share answers no more |
"""
