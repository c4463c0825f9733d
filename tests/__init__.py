"""The tests. Each folder mirrors a room of ``cutover``; ``support`` holds what they share, ``whole_trains`` runs trains end to end."""
