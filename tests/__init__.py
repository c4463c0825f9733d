"""The tests. A folder mirrors a room of ``cutover``; ``support`` is shared code; ``whole_trains`` runs trains end to end."""
