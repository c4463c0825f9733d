"""Configurations made into clients, backends, a clock and plans; ``run_cutover`` and ``recover_cutover``."""
